"""Animated WebP and TIFF with several pages as videos."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklet._media.frames import shown_frames
from masklet.errors import DataLoss, InvalidArgument, ResourceExhausted
from masklet_media.picture_pages import PicturePages, count_pictures, has_pages
from masklet_server.video.limits import VideoLimits
from tests.support.clips import decode_clip, make_clip, picture

PICTURES = [Image.fromarray(picture(5 * index, 64, 48)) for index in range(6)]


def webp(durations: int | list[int] = 40) -> bytes:
    file = io.BytesIO()
    PICTURES[0].save(file, "WEBP", save_all=True, append_images=PICTURES[1:], duration=durations, lossless=True)
    return file.getvalue()


def tiff(pictures: list[Image.Image] | None = None) -> bytes:
    file = io.BytesIO()
    first, *others = pictures or PICTURES
    first.save(file, "TIFF", save_all=True, append_images=others, compression="tiff_lzw")
    return file.getvalue()


@pytest.mark.parametrize("chunk", [500, 2**20])
async def test_animated_webp_has_the_durations_of_its_pictures(chunk: int) -> None:
    outcome = await decode_clip(webp([40, 100, 20, 40, 40, 40]), chunk=chunk)
    assert outcome.error is None
    assert [frame.pts_nanoseconds // 10**6 for frame in outcome.frames] == [0, 40, 140, 160, 200, 240]
    assert outcome.info is not None
    assert (outcome.info.width, outcome.info.height, outcome.info.frame_count) == (64, 48, 6)
    assert (outcome.info.container, outcome.info.codec) == ("webp", "webp")
    for frame, one in zip(outcome.frames, PICTURES, strict=True):
        np.testing.assert_array_equal(frame.pixels, np.asarray(one.resize((32, 32))))


async def test_pages_of_a_tiff_are_frames() -> None:
    outcome = await decode_clip(tiff())
    assert outcome.error is None
    assert [round(frame.pts_nanoseconds / 1e9 * 30) for frame in outcome.frames] == [0, 1, 2, 3, 4, 5]
    for frame, one in zip(outcome.frames, PICTURES, strict=True):
        np.testing.assert_array_equal(frame.pixels, np.asarray(one.resize((32, 32))))


@pytest.mark.parametrize("make", [webp, tiff])
def test_a_client_draws_on_the_same_pictures(make: object) -> None:
    assert callable(make)
    for pixels, one in zip(shown_frames(make()), PICTURES, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(one))


async def test_what_is_wrong_with_a_file_of_pictures() -> None:
    outcome = await decode_clip(webp()[:-400])
    assert isinstance(outcome.error, DataLoss)
    outcome = await decode_clip(b"RIFF1234WEBP" + bytes(100))
    assert isinstance(outcome.error, DataLoss)
    outcome = await decode_clip(tiff([PICTURES[0], PICTURES[1].resize((32, 32))]))
    assert isinstance(outcome.error, InvalidArgument)
    assert "32x32" in outcome.error.message
    assert len(outcome.frames) == 1
    outcome = await decode_clip(tiff(), limits=VideoLimits(max_frames=3))
    assert isinstance(outcome.error, ResourceExhausted)
    with pytest.raises(DataLoss):
        list(shown_frames(webp()[:-400]))


@pytest.mark.parametrize("file_format", ["GIF", "PNG"])
async def test_animations_that_ffmpeg_reads_have_their_durations(file_format: str) -> None:
    file = io.BytesIO()
    durations = [100, 200, 50, 100, 100, 100]
    PICTURES[0].save(file, file_format, save_all=True, append_images=PICTURES[1:], duration=durations)
    outcome = await decode_clip(file.getvalue(), chunk=1000)
    assert outcome.error is None
    assert [frame.pts_nanoseconds // 10**6 for frame in outcome.frames] == [0, 100, 300, 350, 450, 550]
    assert len(list(shown_frames(file.getvalue()))) == 6


def test_which_files_are_animations(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(webp())
    (tmp_path / "a.tiff").write_bytes(tiff())
    PICTURES[0].save(tmp_path / "one.png")
    (tmp_path / "none.png").write_bytes(b"no picture")
    assert [count_pictures(tmp_path / name) for name in ("a.webp", "a.tiff", "one.png", "none.png")] == [6, 6, 1, 1]
    assert not has_pages(make_clip(frames=1)[:16])
    assert PicturePages(io.BytesIO(tiff())).count == 6
