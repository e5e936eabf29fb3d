"""A change of mind over a real channel: the masks are those of Meta's predictor for the same clicks in their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

import masklet
from benchmarks.sides import Reference, normalized
from masklet import Prompt
from tests.support import synthetic
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, Mask, center, frames, lossless, prompt, small, truth
from tests.support.upstream import nano_predictor

pytestmark = pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2':UserWarning")


def reference(
    prompts: Sequence[Prompt],
    corrections: Iterable[Prompt],
    *,
    video: int,
    stop: int,
    end: int,
    pictures: bool = False,
) -> dict[int, Mask]:
    """One object's masks by frame: prompted, tracked to `stop`, corrected one by one, and tracked to `end`.

    `video` is the number of frames that the predictor is told of.
    """
    shown = small(nano_predictor().image_size, pictures=pictures)[:video]
    play = Reference(nano_predictor(), normalized(np.stack(shown)), HEIGHT, WIDTH)
    found: dict[int, Mask] = {}

    def propagate(first: int, last: int) -> None:
        found.update({index: (logits > 0).numpy() for (index, _), logits in play.propagate(first, last).items()})

    for one in prompts:
        play.prompt(one)
    propagate(min(one.frame_index for one in prompts), stop)
    for one in corrections:
        found[one.frame_index] = (play.prompt(one) > 0).numpy()
        if one.frame_index + 1 < stop:
            propagate(one.frame_index + 1, stop)
    if stop < end:
        propagate(stop, end)
    return found


def click(object_id: int, frame_index: int, xy: tuple[float, float], label: int = 1, *, old: bool = False) -> Prompt:
    return Prompt(object_id, frame_index, [xy], [label], keep_old_points=old)


def follow(live: masklet.Live, picture: synthetic.Image, **options: float) -> masklet.FrameResult:
    live.send(picture, **options)  # type: ignore[arg-type]
    return next(live)


def final(results: Iterable[masklet.FrameResult], object_id: int) -> dict[int, Mask]:
    """What holds of an object on each frame."""
    return {r.frame_index: r.objects[object_id].mask for r in results if object_id in r.objects}


def assert_same(ours: dict[int, Mask], theirs: dict[int, Mask]) -> None:
    assert ours.keys() == theirs.keys()
    for frame_index, mask in theirs.items():
        agreed = (ours[frame_index] == mask).mean()
        assert agreed >= 0.9999, f"frame {frame_index}: masks agree on {agreed:.4%} of pixels"


def test_a_clip_is_corrected_after_its_last_frame(client: masklet.Client) -> None:
    length = 12
    first = [prompt("box", 0), prompt("point", 1)]
    # Together, of two objects, and then a new object that is corrected in turn.
    corrections = [
        click(1, 6, center(0, 6)),
        click(1, 6, (4.0, 4.0), 0, old=True),
        click(1, 9, (3.0, 200.0), 0),
        Prompt(2, 8, mask=truth(1, 8)),
    ]
    late = [prompt("box", 2, 7), click(3, 10, center(2, 10))]
    results: list[masklet.FrameResult] = []
    answers: list[masklet.PromptResult] = []
    to_say, said = [corrections, late[:1], late[1:]], len(first)
    call = client.track(lossless(length), first, correction_window=64, on_prompt=answers.append, edges="none")
    with call as tracking:
        for frame in tracking:
            results.append(frame)
            # The server may begin before it has all of them, and then needs more than one way to the last frame.
            if frame.frame_index == length - 1 and len(answers) == said and to_say:
                said += len(to_say[0])
                for one in to_say.pop(0):
                    tracking.add_prompt(one)

    assert [(r.frame_index, list(r.objects)) for r in results[:length]] == [(i, [1, 2]) for i in range(length)]
    for index in range(length):
        revisions = [r.revision for r in results if r.frame_index == index]
        assert revisions == list(range(len(revisions)))
        assert (len(revisions) > 1) == (index >= 6)
    assert sorted(a.frame_index for a in answers) == [0, 0, 6, 6, 7, 8, 9, 10]
    assert [r.sequence for r in results] == sorted({r.sequence for r in results})
    whole: Any = {"video": length, "stop": length, "end": length}
    assert_same(final(results, 1), reference(first[:1], corrections[:3], **whole))
    assert_same(final(results, 2), reference(first[1:], corrections[3:], **whole))
    assert_same(final(results, 3), reference(late[:1], late[1:], **whole))
    before, after = final(results[:length], 1), final(results, 1)
    assert all((before[i] == after[i]).all() for i in range(6))
    assert any((before[i] != after[i]).any() for i in range(6, length)), "the clicks changed nothing"


def test_a_live_stream_is_corrected_and_goes_on_from_there(client: masklet.Client) -> None:
    correction = click(1, 5, (3.0, 200.0), 0)
    with client.live(prompt("point"), delivery="lossless", edges="none") as live:
        results = [follow(live, picture) for picture in frames()[:8]]
        live.prompt(correction, frame_index=5)
        results += [next(live) for _ in range(3)]  # without any further frame
        results += [follow(live, picture) for picture in frames()[8:12]]
        live.end()
        assert list(live) == []
    assert [(r.frame_index, r.revision) for r in results] == [
        *[(i, 0) for i in range(8)],
        *[(5, 1), (6, 1), (7, 1)],
        *[(i, 0) for i in range(8, 12)],
    ]
    assert_same(
        final(results, 1), reference([prompt("point")], [correction], video=NUM_FRAMES, stop=8, end=12, pictures=True)
    )


def test_a_time_names_a_frame(client: masklet.Client) -> None:
    answers: list[masklet.PromptResult] = []
    with client.live(delivery="lossless", on_prompt=answers.append) as live:
        live.prompt(Prompt(1, pts_seconds=0.11, box=prompt("box", 0, 3).box))
        live.prompt(Prompt(2, pts_seconds=0.05, box=prompt("box", 1, 1).box))
        results = [follow(live, picture, pts_seconds=0.04 * index) for index, picture in enumerate(frames()[:5])]
        live.end()
        results += list(live)
    assert {(a.frame_index, a.object.object_id) for a in answers} == {(3, 1), (1, 2)}
    assert set(final(results, 1)) == {3, 4}
    assert set(final(results, 2)) == {1, 2, 3, 4}


def test_what_can_not_be_corrected_is_told_and_the_call_goes_on(client: masklet.Client) -> None:
    errors: list[masklet.MaskletError] = []
    pictures = list(frames()[:8])
    with client.track(pictures, prompt("box"), window=2, correction_window=2, on_error=errors.append) as tracking:
        for frame in tracking:
            if frame.frame_index == 5 and frame.revision == 0:
                tracking.clear_prompts(1, 0)
                tracking.add_prompt(click(1, 1, center(0, 1)))
                tracking.add_prompt(click(9, 7, center(1, 7)))
                tracking.clear_prompts(9, 7)
            last = frame
    assert (last.frame_index, set(last.objects)) == (7, {1})
    assert [type(error) for error in errors] == [masklet.FailedPrecondition, masklet.InvalidArgument]
    assert [v.field for v in errors[1].violations] == ["prompt.frame_index"]
    assert "can. Every frame can be corrected in a clip that is sent as a file" in errors[1].message


def test_without_a_handler_the_error_is_raised(client: masklet.Client) -> None:
    with client.track(list(frames()[:6]), prompt("box"), window=1, correction_window=1) as tracking:
        for _ in range(4):
            next(tracking)
        tracking.add_prompt(click(1, 0, center(0)))
        with pytest.raises(masklet.InvalidArgument, match=r"prompt.frame_index: is 0"):
            list(tracking)


async def test_asyncio(nano_server: str) -> None:
    errors: list[masklet.MaskletError] = []
    seen = []
    async with masklet.AsyncClient(nano_server) as client:
        tracking = client.track(lossless(4), prompt("box"), correction_window=64, on_error=errors.append)
        async with tracking:
            async for frame in tracking:
                seen.append((frame.frame_index, frame.revision))
                if seen[-1] == (3, 0):
                    tracking.add_prompt(click(1, 2, center(0, 2)))
                    tracking.clear_prompts(7, 2)
    assert seen == [(0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (3, 1)]
    assert [type(error) for error in errors] == [masklet.NotFound]
