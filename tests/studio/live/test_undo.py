"""Undo and redo in a live session, over WebSocket, with a real server and nano."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.studio.live.test_live_session import lies_on, with_objects
from tests.support import e2e
from tests.support.live import LOOP, LivePage, Shown, begin, look_at
from tests.support.rtsp import RtspServer
from tests.support.studio import RunningStudio, running_studio
from tests.support.synthetic import iou

pytestmark = pytest.mark.slow

LONG_AGO = 20
"""Pictures after which the server remembers a picture no longer."""


@pytest.fixture(scope="module")
def studio(nano_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio for all tests of a module."""
    with running_studio(tmp_path_factory.mktemp("undo") / "work", server=nano_server) as running:
        yield running


@pytest.fixture
def page(studio: RunningStudio) -> Iterator[LivePage]:
    """A tab that looks at a camera that nobody has clicked; it shows one picture again and again."""
    with RtspServer([LOOP[8]] * 8, rate=12) as camera, look_at(studio, begin(studio, source=camera.url)) as tab:
        yield tab


def has(object_id: int) -> Any:
    """Whether a picture has a mask of an object."""
    return lambda shown: object_id in shown.masks and shown.masks[object_id].area > 0


def lacks(object_id: int) -> Any:
    """Whether a picture has no mask of an object."""
    return lambda shown: object_id not in shown.masks


def history(page: LivePage) -> tuple[bool, bool]:
    """Whether something can be undone, and done again."""
    told = page.last("history")
    return told["can_undo"], told["can_redo"]


def test_all_that_was_done_to_an_object_is_undone_and_done_again(page: LivePage) -> None:
    assert (page.state["can_undo"], page.state["can_redo"]) == (False, False)
    with_objects(page, 0)
    page.do("change_object", object=1, name="ball")
    page.look(LONG_AGO)
    before = page.shown[-1].masks[1]
    page.do("remove_object", object=1)
    page.until(lacks(1))
    assert page.do("undo")["did"] == "remove_object"
    back = page.until(has(1)).masks[1]
    assert iou(back.mask, before.mask) > 0.8
    assert page.last("objects")["objects"][0]["name"] == "ball"
    assert page.do("undo")["did"] == "change_object"
    assert page.last("objects")["objects"][0]["name"] == "blob 0"
    assert has(1)(page.look()[-1]), "a name that is undone ends no tracking"
    assert page.do("undo")["did"] == "prompt"
    page.until(lacks(1))
    assert lacks(1)(page.look(3)[-1])
    assert len(page.last("objects")["objects"]) == 1
    assert page.do("undo")["did"] == "add_object"
    assert page.last("objects")["objects"] == []
    assert history(page) == (False, True)
    assert "nothing to undo" in page.ask("undo")["error"]["message"]
    page.do("redo")
    assert page.last("objects")["objects"][0]["name"] == "blob 0"
    page.do("redo")
    again = page.until(has(1)).masks[1]
    assert iou(again.mask, before.mask) > 0.8
    page.do("redo")
    page.do("redo")
    page.until(lacks(1))
    assert page.last("objects")["objects"] == []
    assert history(page) == (True, False)
    assert "nothing to do again" in page.ask("redo")["error"]["message"]


@pytest.mark.parametrize("pictures", [1, LONG_AGO])
def test_a_wrong_click_is_undone_and_the_other_object_stays(page: LivePage, pictures: int) -> None:
    with_objects(page, 0, 1)
    page.look(LONG_AGO)
    before = dict(page.shown[-1].masks)  # the click changes those of the picture
    # The object is said to be where the other one is, and not where it is.
    x, y = e2e.center(1, 8)
    rows, columns = np.nonzero(before[2].mask)
    box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    page.do("prompt", object=1, frame=page.shown[-1].number, points=[[x, y, 1]], box=box)
    page.until(lambda shown: has(1)(shown) and bool(shown.masks[1].mask[int(y), int(x)]))
    seen = page.look(pictures)
    page.do("undo")
    page.until(lambda shown: has(1)(shown) and not shown.masks[1].mask[int(y), int(x)])
    seen += page.look(LONG_AGO)
    assert iou(seen[-1].masks[1].mask, before[1].mask) > 0.8
    assert all(iou(shown.masks[2].mask, before[2].mask) > 0.8 for shown in seen), "the other object is not touched"
    numbers = [shown.number for shown in page.shown]
    assert numbers == sorted(set(numbers)), "no picture is shown a second time"


def test_something_new_ends_what_can_be_done_again(page: LivePage) -> None:
    with_objects(page, 0)
    page.do("undo")
    assert history(page) == (True, True)
    page.do("change_object", object=1, name="other")
    assert history(page) == (True, False)


def test_all_tabs_are_told(studio: RunningStudio, page: LivePage) -> None:
    with look_at(studio, page.state["video"]["id"]) as other:
        page.do("add_object", name="one")
        assert other.wait("history")["can_undo"]
        other.do("undo")
        assert page.wait("objects", lambda event: not event["objects"])


def test_a_recording_lacks_what_was_undone(studio: RunningStudio, page: LivePage) -> None:
    page.wait("status", lambda status: bool(status["server"]))
    page.do("record", on=True)
    page.wait("recording", lambda event: event["on"] and event["frames"] >= 2)
    for blob in (0, 1):
        page.do("add_object", name=f"blob {blob}")
        page.click(blob)
        page.until(has(blob + 1))
    page.look(3)
    page.do("undo")
    page.until(lacks(2))
    page.do("record", on=False)
    video = page.last("recording")["video"]
    studio.videos()
    with studio.tab(video["id"]) as tab:
        assert {one["object"] for one in tab.state["prompts"]} == {1}
        assert {one["object"] for one in tab.state["objects"]} == {1, 2}
    studio.remove(video["id"])


def test_an_object_that_moved_is_found_again(studio: RunningStudio) -> None:
    """The camera does not run backward: what is undone begins at an old picture, and goes on at the newest one."""

    def lies_right(shown: Shown) -> bool:
        return has(1)(shown) and lies_on(shown.masks[1].mask, 0, shown.index)

    with RtspServer(LOOP, rate=8) as camera, look_at(studio, begin(studio, source=camera.url)) as page:
        with_objects(page, 0)
        page.look(LONG_AGO)
        page.do("remove_object", object=1)
        page.look(8)
        page.do("undo")
        page.until(lies_right)
        assert sum(lies_right(shown) for shown in page.look(12)) >= 8
