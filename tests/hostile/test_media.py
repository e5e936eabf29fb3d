"""Damaged files of every container and format: each ends in a status that is no bug's, and leaves nothing behind.

``MASKLET_HOSTILE_FILES=1000 scripts/test tests/hostile/test_media.py`` tries more of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from masklet.v1 import common_pb2, image_pb2, tracking_pb2
from tests.hostile.media import FILES, PICTURE_KINDS, VIDEO_KINDS, clips, damaged, pictures, png_mask
from tests.hostile.messages import Attack
from tests.hostile.stage import Stage, nothing_is_left

pytestmark = pytest.mark.slow

Request = tracking_pb2.TrackRequest
CONFIG = Request(config=tracking_pb2.TrackConfig()).SerializeToString()
END = Request(end_of_video=tracking_pb2.EndOfVideo()).SerializeToString()
CLICK = [common_pb2.Point(x=4, y=4, label=common_pb2.POINT_LABEL_FOREGROUND)]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    one = Stage(real_video=True, idle_timeout_seconds=10)
    yield one
    one.close()


def upload(file: bytes) -> Attack:
    parts = [file[start : start + 4096] for start in range(0, len(file), 4096)]
    chunks = [Request(video_chunk=part).SerializeToString() for part in parts]
    return Attack((CONFIG, *chunks, END), cancels=False)


def asking_with(mask: bytes) -> bytes:
    """A request about a good picture, with a PNG as the prompt's mask."""
    return image_pb2.SegmentImageRequest(
        picture=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=pictures()["JPEG"]),
        prompts=[
            image_pb2.SegmentPrompt(
                mask=common_pb2.Mask(encoding=common_pb2.MASK_ENCODING_PNG, height=48, width=64, data=mask)
            )
        ],
    ).SerializeToString()


def asking_about(picture: bytes) -> bytes:
    return image_pb2.SegmentImageRequest(
        picture=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=picture),
        prompts=[image_pb2.SegmentPrompt(points=CLICK)],
    ).SerializeToString()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", VIDEO_KINDS)
def test_video_files(stage: Stage, kind: str) -> None:
    good = clips()[kind]
    with nothing_is_left(stage):
        assert stage.stream(upload(good)).name == "OK"
        for seed in range(FILES // len(VIDEO_KINDS)):
            stage.stream(upload(damaged(good, seed)))


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_pictures(stage: Stage, kind: str) -> None:
    good = pictures()[kind]
    with nothing_is_left(stage):
        assert stage.request(asking_about(good)).name == "OK"
        for seed in range(FILES // len(PICTURE_KINDS)):
            stage.request(asking_about(damaged(good, seed)))


@pytest.mark.timeout(0)
def test_masks(stage: Stage) -> None:
    good = png_mask()
    with nothing_is_left(stage):
        assert stage.request(asking_with(good)).name == "OK"
        for seed in range(FILES // len(PICTURE_KINDS)):
            stage.request(asking_with(damaged(good, seed)))
