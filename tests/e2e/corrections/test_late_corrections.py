"""A change of mind about frames of a clip that went by long ago, over a real channel."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from typing import Any

import pytest

import masklet
from masklet import Prompt
from masklet_server.embedded import EmbeddedServer
from tests.e2e.corrections.test_corrections import assert_same, click, final, reference
from tests.support import clips
from tests.support.e2e import HEIGHT, WIDTH, Mask, center, frames, lossless, prompt
from tests.support.processes import decoders, settle

pytestmark = pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2':UserWarning")

LENGTH = 13
LONG = 30


@functools.cache
def to_and_fro() -> bytes:
    """A clip that can be entered in the middle, with frames that refer to later ones."""
    pictures = [*frames(), *frames()[::-1], *frames()][:LONG]
    options = {"preset": "ultrafast", "bf": "3", "b_strategy": "0"}
    return clips.make_clip(size=(WIDTH, HEIGHT), pictures=pictures, codec_options=options, gop=8)


def track(
    client: masklet.Client, video: bytes, first: list[Prompt], corrections: list[Prompt], *, length: int, window: int
) -> list[masklet.FrameResult]:
    """All results, with SAM 2's own edges; each correction is sent when those of the ones before it are here."""
    results, waiting = [], list(corrections)
    with client.track(video, first, correction_window=window, edges="none") as tracking:
        for frame in tracking:
            results.append(frame)
            if frame.frame_index == length - 1 and waiting:
                tracking.add_prompt(waiting.pop(0))
    assert not waiting
    return results


def test_corrections_long_before_the_window_give_the_masks_of_sam2(client: masklet.Client) -> None:
    first = [prompt("box", 0), prompt("point", 1)]
    corrections = [click(1, 3, (3.0, 200.0), 0), click(1, 9, center(0, 9), old=True), click(1, 7, (4.0, 4.0), 0)]
    late = [prompt("box", 2, 5), click(3, 8, (3.0, 3.0), 0)]
    results = track(client, lossless(LENGTH), first, [*corrections, *late], length=LENGTH, window=2)
    again = [3, 9, 7, 5, 8]
    assert [(r.frame_index, r.revision) for r in results] == [
        *[(i, 0) for i in range(LENGTH)],
        *[
            (i, 1 + sum(before <= i for before in again[:n]))
            for n, frame_index in enumerate(again)
            for i in range(frame_index, LENGTH)
        ],
    ]
    whole: Any = {"video": LENGTH, "stop": LENGTH, "end": LENGTH}
    assert_same(final(results, 1), reference(first[:1], corrections, **whole))
    assert_same(final(results, 2), reference(first[1:], [], **whole))
    assert_same(final(results, 3), reference(late[:1], late[1:], **whole))
    before: dict[int, Mask] = final(results[:LENGTH], 1)
    assert any((before[i] != mask).any() for i, mask in final(results, 1).items()), "the clicks changed nothing"


def test_the_window_is_a_matter_of_speed_alone(client: masklet.Client) -> None:
    corrections = [click(1, 21, (4.0, 4.0), 0), click(1, 26, center(0, 9)), click(2, 24, center(1, 11))]
    narrow, wide = (
        track(client, to_and_fro(), [prompt("box")], corrections, length=LONG, window=window) for window in (1, LONG)
    )
    assert [(r.frame_index, r.revision, list(r.objects)) for r in narrow] == [
        (r.frame_index, r.revision, list(r.objects)) for r in wide
    ]
    assert narrow[-1].revision == 3
    for one, other in zip(narrow, wide, strict=True):
        assert one.pts_seconds == other.pts_seconds
        for object_id, found in one.objects.items():
            assert (found.mask == other.objects[object_id].mask).all(), f"frame {one.frame_index}"


def test_a_time_long_gone(client: masklet.Client) -> None:
    late = Prompt(2, pts_seconds=0.21, box=prompt("box", 1, 5).box)
    results = track(client, lossless(LENGTH), [prompt("box")], [late], length=LENGTH, window=1)
    assert sorted(final(results, 2)) == list(range(5, LENGTH))


def read(tracking: masklet.Tracking) -> None:
    with contextlib.suppress(masklet.Cancelled):
        for _ in tracking:
            pass


def test_who_leaves_in_the_middle_leaves_nothing_behind() -> None:
    with EmbeddedServer(device="cpu", dtype="float32") as address, masklet.Client(address) as client:
        before = len(decoders())
        with client.track(to_and_fro(), prompt("box"), correction_window=1) as tracking:
            for frame in tracking:
                if frame.frame_index == LONG - 1:
                    break
            settle(before)
            tracking.add_prompt(click(1, 25, (4.0, 4.0), 0))
            reading = threading.Thread(target=read, args=(tracking,))
            reading.start()
            deadline = time.monotonic() + 30
            while len(decoders()) == before and time.monotonic() < deadline:
                time.sleep(0.005)
            assert len(decoders()) == before + 1, "the clip is decoded again"
            tracking.close()
            reading.join()
        settle(before, seconds=1)


@pytest.mark.parametrize("policy", ["sam2", "distractor_aware", "motion_aware"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_memory_policy_leaves_a_trail_and_is_brought_back_from_it(policy: Any, dtype: str) -> None:
    with (
        EmbeddedServer(device="cpu", dtype=dtype, correction_window=2) as address,
        masklet.Client(address) as client,
        client.track(lossless(LENGTH), prompt("box"), memory_policy=policy, correction_window=2) as tracking,
    ):
        results = []
        for frame in tracking:
            results.append(frame)
            if (frame.frame_index, frame.revision) == (LENGTH - 1, 0):
                tracking.add_prompt(click(1, 5, center(0, 5)))
    assert [r.frame_index for r in results if r.revision == 0] == list(range(LENGTH))
    assert [r.frame_index for r in results if r.revision == 1] == list(range(5, LENGTH))
    assert all(r.objects[1].area > 0 for r in results)
