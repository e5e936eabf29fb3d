"""The changes of a live session: which one is undone next, and what is learned of a click afterwards."""

from __future__ import annotations

import numpy as np

from masklet import ObjectResult
from masklet.rle import decode, encode
from masklet_studio.live.history import MAX_CHANGES, MAX_PICTURE_BYTES, Change, Held, LiveHistory, Start
from masklet_studio.live.pictures import Found, LivePrompt, Picture
from masklet_studio.project.history import StudioObject

BALL = StudioObject(1, "ball", "", "#ffffff")
PICTURE = Picture(b"", 4, 2, 0, 0.0, number=7)


def renamed(number: int) -> Change:
    return Change("change_object", 1, Held(BALL), Held(StudioObject(1, f"ball {number}", "", "#ffffff")))


def test_changes_are_undone_from_the_last_to_the_first_and_done_again_in_order() -> None:
    history = LiveHistory()
    changes = [renamed(number) for number in range(3)]
    for change in changes:
        history.add(change)
    for change in reversed(changes):
        assert history.undoable is change
        history.undid()
    assert history.undoable is None
    for change in changes:
        assert history.redoable is change
        history.redid()
    assert history.redoable is None


def test_only_the_last_changes_are_kept() -> None:
    history = LiveHistory()
    changes = [renamed(number) for number in range(MAX_CHANGES + 5)]
    for change in changes:
        history.add(change)
    undone = []
    while history.undoable is not None:
        undone.append(history.undoable)
        history.undid()
    assert undone == changes[:4:-1]


def test_a_click_is_done_again_by_the_mask_that_it_made() -> None:
    """Its points alone would not make it: they say what is wrong with a mask that is there."""
    history = LiveHistory()
    click = LivePrompt(1, 7, points=((1.0, 1.0, 0),))
    other = LivePrompt(1, 7, points=((2.0, 1.0, 1),))
    for prompt in (click, other):
        history.add(Change("prompt", 1, Held(BALL), Held(BALL, Start(PICTURE, prompt)), prompt))
    mask = np.zeros((2, 4), bool)
    mask[1, 2:] = True
    result = ObjectResult(1, encode(mask), (2, 1, 4, 2), 2, predicted_iou=0.9, object_score=5.0, visible=True)
    history.learn(Found(PICTURE, {1: result}, is_new=False, prompts=[other]))
    assert history.undoable is not None
    start = history.undoable.after.start
    assert start is not None
    assert start.picture is PICTURE
    assert (start.prompt.points, start.prompt.box) == ((), None)
    assert start.prompt.mask is not None
    assert (decode(start.prompt.mask) == mask).all()
    history.undid()
    assert history.undoable.after.start is not None
    assert history.undoable.after.start.prompt is click, "of this one nothing was found yet"


def test_the_pictures_that_are_kept_are_bounded() -> None:
    history = LiveHistory()
    changes = []
    for number in range(6):
        picture = Picture(bytes(MAX_PICTURE_BYTES // 4), 4, 2, 0, 0.0, number=number)
        start = Start(picture, LivePrompt(1, number))
        changes.append(Change("prompt", 1, Held(BALL, start), Held(BALL, start)))
        history.add(changes[-1])
    undone = []
    while history.undoable is not None:
        undone.append(history.undoable)
        history.undid()
    assert undone == changes[:1:-1], "one picture is counted once; the oldest changes are forgotten"
