"""Work on request, as annotators do it: any frame, both ways, second thoughts; held against SAM2VideoPredictor."""

from __future__ import annotations

import pytest

from masklet.prompts import Prompt
from tests.parity.harness import PlayOnRequest, center, prompts

# Upstream's hole filling needs its CUDA extension, and warns where that was not built; masklet skips it there as well.
pytestmark = pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2':UserWarning")

NUM_FRAMES = 20


def play(model: str = "nano", num_frames: int = NUM_FRAMES) -> PlayOnRequest:
    return PlayOnRequest(model, num_frames)


def click(object_id: int, frame_index: int, *, away: bool = False, keep: bool = False) -> Prompt:
    """A click on the middle of the object or, as a background click, on the ground."""
    xy, label = ((8.0, 8.0), 0) if away else (center(object_id - 1, frame_index), 1)
    return Prompt(object_id, frame_index, point_coords=[xy], point_labels=[label], keep_old_points=keep)


def upwards(start: int, stop: int = NUM_FRAMES) -> list[int]:
    return list(range(start, stop))


def test_backward_reads_what_forward_left() -> None:
    stage = play()
    stage.prompt(click(1, 9))
    stage.propagate()
    stage.propagate(reverse=True)
    stage.propagate(14, reverse=True)
    assert stage.passes == [upwards(9), upwards(0, 10)[::-1], upwards(0, 15)[::-1]]
    assert stage.foreground > 0


def test_backward_alone() -> None:
    stage = play()
    stage.prompt(dict(prompts(1, frame_index=19))["box"][0])
    stage.propagate(19, reverse=True)
    assert stage.passes == [upwards(0)[::-1]]
    assert stage.foreground > 0


def test_both_directions_from_a_tracked_frame() -> None:
    stage = play()
    stage.prompt(click(1, 4))
    stage.propagate()
    stage.propagate(10)
    stage.propagate(10, reverse=True)
    assert stage.foreground > 0


@pytest.mark.parametrize("start", [12, 13])
def test_a_tracked_frame_is_refined(start: int) -> None:
    """Starting on the corrected frame tracks it again, from the frame after it keeps the correction."""
    stage = play()
    stage.prompt(click(1, 0))
    stage.propagate()
    stage.prompt(click(1, 12))
    stage.prompt(click(1, 12, away=True, keep=True))
    stage.propagate(start)
    stage.propagate(start, reverse=True)
    assert stage.foreground > 0


def test_a_frame_tracked_backward_is_refined() -> None:
    """A correction looks at the past in the direction in which its frame was tracked last."""
    stage = play()
    stage.prompt(click(1, 16))
    stage.propagate(reverse=True)
    stage.prompt(click(1, 7))
    stage.propagate(6, reverse=True)
    stage.propagate(3)
    stage.prompt(dict(prompts(1, frame_index=5))["mask"][0])
    stage.propagate(6)
    assert stage.foreground > 0


def test_a_conditioning_frame_is_refined() -> None:
    """Upstream shows the correction and then drops it; cleared before, the frame is a conditioning one again."""
    stage = play()
    stage.prompt(click(1, 6))
    stage.propagate()
    stage.prompt(click(1, 6, away=True))
    stage.propagate(7, 5)
    stage.propagate(6, 3, reverse=True)
    stage.clear(1, 6)
    stage.prompt(click(1, 6, away=True))
    stage.prompt(click(1, 6, keep=True))
    stage.propagate(6, 3)
    assert stage.foreground > 0


def test_two_corrections() -> None:
    stage = play()
    stage.prompt(dict(prompts(1))["mask"][0])
    stage.propagate()
    stage.prompt(click(1, 15))
    stage.prompt(click(1, 5, away=True))
    stage.propagate(6)
    stage.prompt(click(1, 15, away=True, keep=True))
    stage.propagate(16)
    assert stage.foreground > 0


def test_prompts_are_cleared() -> None:
    stage = play()
    stage.prompt(click(1, 0))
    stage.prompt(click(1, 10))
    stage.propagate()
    stage.clear(1, 10)  # is remembered as tracked, though it was not
    stage.propagate(11, 5)
    stage.propagate(5)
    stage.prompt(click(1, 10))
    stage.clear(1, 10)  # nothing that waits is left
    stage.prompt(click(1, 0, away=True, keep=True))
    stage.clear(1, 0)
    stage.prompt(click(1, 0))  # a conditioning frame again, going on from its old logits
    stage.propagate()
    stage.clear(1, 19)  # which has no prompt
    assert stage.foreground > 0


def test_a_prompt_is_cleared_before_it_was_used() -> None:
    stage = play()
    stage.prompt(click(1, 3))
    stage.prompt(click(1, 8))
    stage.clear(1, 3)
    stage.propagate()
    assert stage.passes == [upwards(8)]


def test_going_back_from_the_first_frame_settles_prompts_and_tracks_nothing() -> None:
    stage = play()
    stage.prompt(click(1, 0))
    stage.propagate(0, reverse=True)
    stage.clear(1, 0)
    stage.prompt(click(1, 12))
    stage.propagate(1)
    assert stage.passes == [[], upwards(1)]


def test_one_of_two_is_removed() -> None:
    stage = play()
    stage.prompt(click(1, 2))
    stage.prompt(dict(prompts(2, frame_index=2))["box"][0])
    stage.propagate()
    stage.remove(1)
    stage.propagate(8)
    stage.prompt(click(1, 8))  # anew
    stage.propagate(8, reverse=True)
    assert stage.foreground > 0


def test_scrubbing() -> None:
    """Ranges in the middle, with gaps that no memory comes from, before and after the prompt."""
    stage = play()
    stage.prompt(click(1, 10))
    stage.propagate(13, 3)
    stage.propagate(2, 2)
    stage.propagate(17, 0)
    stage.propagate(6, 4, reverse=True)
    stage.propagate(11, 30)
    assert stage.passes == [[13, 14, 15, 16], [2, 3, 4], [17], [6, 5, 4, 3, 2], upwards(11)]
    assert stage.foreground > 0


def test_an_object_is_added_later() -> None:
    stage = play()
    stage.prompt(click(1, 0))
    stage.propagate()
    stage.prompt(dict(prompts(2, frame_index=7))["mask"][0])
    stage.propagate()
    stage.propagate(7, reverse=True)
    assert stage.foreground > 0


def test_much_of_it_with_another_trunk() -> None:
    stage = play("sam2.1-tiny", 10)
    stage.prompt(click(1, 5))
    stage.propagate()
    stage.propagate(5, 3, reverse=True)
    stage.prompt(click(1, 7))
    stage.propagate(8)
    stage.prompt(dict(prompts(2, frame_index=3))["box"][0])
    stage.clear(1, 7)
    stage.propagate(4, 1, reverse=True)
    stage.remove(1)
    stage.propagate()
    assert stage.foreground > 0


def test_reset_then_anew() -> None:
    stage = play()
    stage.prompt(click(1, 0))
    stage.propagate()
    stage.reset()
    stage.prompt(click(2, 6))
    stage.propagate()
    stage.propagate(reverse=True)
    assert stage.passes[1:] == [upwards(6), upwards(0, 7)[::-1]]


@pytest.mark.fast
@pytest.mark.parametrize("num_frames", [2, 5, 15])
def test_short_clips(num_frames: int) -> None:
    stage = play(num_frames=num_frames)
    stage.prompt(click(1, num_frames // 2))
    stage.propagate()
    stage.propagate(reverse=True)
    stage.propagate(0)
    assert stage.passes[2] == list(range(num_frames))


def test_most_of_it_was_put_away_and_came_back() -> None:
    """The scenarios above would pass too if nothing ever left memory."""
    stage = play(num_frames=40)
    stage.prompt(click(1, 0))
    stage.propagate()
    (history,) = stage.ours.histories.values()
    one_frame = stage.ours.tensor_file.size / 40
    assert history.nbytes < 10 * one_frame
    stage.propagate(20, 3)
    stage.propagate(20, 3, reverse=True)
    assert history.nbytes < 10 * one_frame
