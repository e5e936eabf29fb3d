"""Which frames are worth a look, on masks that are known to the pixel."""

from __future__ import annotations

import base64

import numpy as np

from masklet import rle
from masklet_studio.project import lanes
from masklet_studio.project.history import GivenPrompt
from masklet_studio.project.mask_log import Stored
from masklet_studio.project.records import VISIBLE, MaskRecord
from masklet_studio.session import review

SIZE = (200, 100)  # width, height


def _series(*squares: tuple[int, int, int, float] | None) -> tuple[dict[int, Stored], dict[int, MaskRecord]]:
    """Masks of squares (x, y, side, predicted IoU), one a frame; None: the object is not seen."""
    stored, records = {}, {}
    for frame, square in enumerate(squares):
        mask = np.zeros(SIZE[::-1], bool)
        x, y, side, iou = square or (0, 0, 0, 0.5)
        mask[y : y + side, x : x + side] = True
        area, flags = int(mask.sum()), VISIBLE if square else 0
        counts = rle.encode(mask)["counts"].encode() if square else b""
        records[frame] = MaskRecord(1, frame, 1, flags, iou, 1.0, area, SIZE, counts)
        stored[frame] = Stored(1, frame, 0, flags, iou, area)
    return stored, records


def _found(*squares: tuple[int, int, int, float] | None, prompted: frozenset[int] = frozenset()) -> dict[int, str]:
    stored, records = _series(*squares)
    doubts = review.doubts(1, stored, set(prompted), lambda one: records[one.offset])
    return {doubt.frame: doubt.why for doubt in doubts}


def test_centres_and_boxes_are_those_of_the_masks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = np.zeros((40, 30), bool)
        x0, y0 = rng.integers(0, 25, 2)
        mask[y0 : y0 + rng.integers(1, 20), x0 : x0 + rng.integers(1, 8)] = True
        if rng.random() < 0.5:
            mask &= rng.random(mask.shape) < 0.8
        if not mask.any():
            continue
        counts = rle.encode(mask)["counts"].encode()
        record = MaskRecord(1, 0, 1, 1, 1.0, 1.0, int(mask.sum()), (30, 40), counts)
        ys, xs = mask.nonzero()
        assert np.abs(np.subtract(review.centre(record), (xs.mean(), ys.mean()))).max() < 1
        assert record.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_a_quiet_object_has_no_doubtful_frame() -> None:
    assert _found(*[(10 + 2 * n, 20, 30, 0.5) for n in range(30)]) == {}


def test_what_changes_suddenly_is_doubtful() -> None:
    quiet = [(10, 20, 30, 0.9)] * 10
    assert _found(*quiet, (10, 20, 50, 0.9)) == {10: "the mask is suddenly 2.8 times larger"}
    assert _found(*quiet, (90, 20, 30, 0.9)) == {10: "the mask has jumped to another place"}
    assert _found(*quiet, (10, 20, 30, 0.4), *quiet) == {10: "the model doubts this mask (predicted IoU 0.40)"}
    assert _found(*quiet, None, *quiet)[10] == "the object is lost here"
    assert _found(*quiet, *[None] * 9, *quiet)[19] == "the object is found again here"


def test_frames_with_a_prompt_were_looked_at() -> None:
    quiet = [(10, 20, 30, 0.9)] * 10
    assert _found(*quiet, (90, 20, 30, 0.9), prompted=frozenset({10})) == {}


def test_lanes_tell_runs_and_events() -> None:
    square = (10, 20, 30, 0.5)
    stored, _ = _series(square, square, None, None, square, square)
    del stored[5]
    told = lanes.lane(3, stored, [], 8)
    assert told["runs"] == [[0, 1, 1], [2, 3, 2], [4, 4, 1]]
    assert told["events"] == [[2, "lost"], [4, "found"]]
    assert list(base64.b64decode(told["ious"])) == [127] * 5 + [255] * 3


def test_lanes_tell_which_corrections_were_not_tracked_on() -> None:
    square = (10, 20, 30, 0.5)
    stored, _ = _series(square, square, square, square)
    (revision,) = {one.revision for one in stored.values()}

    def untracked(*prompts: GivenPrompt) -> list[int]:
        found: list[int] = lanes.lane(1, stored, prompts, 4)["untracked"]
        return found

    assert untracked(GivenPrompt(1, 1, revision + 1, ((2.0, 2.0, 1),), corrects=True)) == [1]
    assert untracked(GivenPrompt(1, 1, revision + 1, mask="04")) == [1], "a painted mask, too"
    assert untracked(GivenPrompt(1, 1, revision - 1, ((2.0, 2.0, 1),), corrects=True)) == [], "it was tracked since"
    assert untracked(GivenPrompt(1, 0, revision + 1, ((2.0, 2.0, 1),))) == [], "a first click corrects nothing"
    assert untracked(GivenPrompt(1, 3, revision + 1, ((2.0, 2.0, 1),), corrects=True)) == [], "nothing comes after it"
