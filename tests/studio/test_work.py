"""A page's work on a video, over HTTP and WebSocket, with a real server and nano."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from masklet import rle
from masklet_server.metrics import Metrics
from tests.support import synthetic
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, center, frames, lossless, truth
from tests.support.studio import Page, RunningStudio, running_studio, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studio(nano_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    folder = tmp_path_factory.mktemp("studio")
    for name in ("clip.mkv", "other.mkv", "third.mkv", "watched.mkv"):
        (folder / name).write_bytes(lossless())
    with running_studio(folder / "work", folder, server=nano_server) as running:
        yield running


def test_the_frames_are_the_videos_own(studio: RunningStudio) -> None:
    video = studio.videos()[0]
    assert (video["width"], video["height"], video["frames"]) == (WIDTH, HEIGHT, NUM_FRAMES)
    for index in (7, 3, NUM_FRAMES - 1, 0):
        answer = studio.ask(f"/videos/{video['id']}/frames/{index}?width=full")
        assert "immutable" in answer.headers["cache-control"]
        shown = np.asarray(Image.open(io.BytesIO(answer.body))).astype(int)
        differences = [np.abs(shown - frame).mean() for frame in frames()]
        assert np.argmin(differences) == index
    assert Image.open(io.BytesIO(studio.ask(f"/videos/{video['id']}/thumbnail").body)).size == (WIDTH, HEIGHT)
    beyond = studio.ask(f"/videos/{video['id']}/frames/{NUM_FRAMES}")
    assert beyond.status == 404
    assert "so there is no frame 18" in beyond.json["error"]["message"]
    assert studio.ask(f"/videos/{video['id']}/frames/1?width=333").json["error"]["field"] == "width"
    assert len(studio.ask(video["times"]).json) == NUM_FRAMES


def test_click_track_correct_undo(studio: RunningStudio) -> None:
    video = studio.videos()[0]["id"]
    with studio.tab(video) as page:
        first = page.do("add_object", name="ball")["object"]
        second = page.do("add_object")["object"]
        seen = page.click(first, 0, (*center(0), 1))
        assert synthetic.iou(seen.mask, truth(0)) > 0.7
        page.click(second, 0, (*center(1), 1))
        page.track(0)
        assert {key for key in page.masks if key[0] == first} == {(first, n) for n in range(NUM_FRAMES)}
        before = dict(page.masks)
        page.click(first, 9, (*center(0, 9), 1))
        page.track(9, objects=[first])
        assert all(page.masks[second, n] == before[second, n] for n in range(NUM_FRAMES))
        assert page.masks[first, 8] == before[first, 8]
        assert page.masks[first, 12].revision > before[first, 12].revision
        assert page.do("undo")["did"] == "track"
        assert page.do("undo")["did"] == "prompt"
        page.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
        assert page.masks == before


def test_a_frame_that_is_looked_at_is_encoded_before_the_click(studio: RunningStudio) -> None:
    encoded: list[int] = []
    with (
        mock.patch.object(Metrics, "on_encode", lambda _self, count, _seconds: encoded.append(count)),
        studio.tab(studio.videos()[3]["id"]) as page,
    ):
        page.do("look", frame=11)  # perhaps before the session on the server is there
        wait_for(lambda: encoded == [1])
        one = page.do("add_object")["object"]
        page.click(one, 11, (*center(0, 11), 1))
        assert encoded == [1]
        page.click(one, 4, (*center(0, 4), 1))
        assert encoded == [1, 1]
        refused = page.ask("look", frame=NUM_FRAMES)
        assert refused["error"]["field"] == "frame"


@pytest.fixture
def page(studio: RunningStudio) -> Iterator[Page]:
    """A tab of a video on which nothing was done yet, at least nothing that still counts."""
    with studio.tab(studio.videos()[1]["id"]) as page:
        while page.state["can_undo"]:
            page.do("undo")
        yield page


def test_answers_do_not_wait_for_one_another(page: Page) -> None:
    """As they do without TCP_NODELAY, 40 ms each."""
    seconds = []
    for _ in range(40):
        begun = time.perf_counter()
        page.do("add_object")
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.02


def test_backward_both_and_marks(page: Page) -> None:
    one = page.do("add_object")["object"]
    page.click(one, 9, (*center(0, 9), 1))
    page.do("marks", **{"in": 4, "out": 12})
    page.track(9, "backward")
    assert {frame for _, frame in page.masks} == set(range(4, 10))
    page.track(9, "both")
    assert {frame for _, frame in page.masks} == set(range(4, 13))
    assert all(synthetic.iou(page.masks[one, n].mask, truth(0, n)) > 0.6 for n in range(4, 13))
    page.do("marks", **{"in": None, "out": None})
    page.track(4, "backward")
    assert {frame for _, frame in page.masks} == set(range(13))
    lanes = page.wait("lanes", lambda told: told["lanes"][0]["runs"] == [[0, 12, 1]])["lanes"]
    assert [lane["object"] for lane in lanes] == [one]
    refused = page.ask("track", direction="forward", objects=None, **{"from": NUM_FRAMES})
    assert refused["error"]["field"] == "from"
    page.do("marks", **{"in": 0, "out": 5})
    refused = page.ask("track", direction="forward", objects=None, **{"from": 9})
    assert "the marks allow 0 to 5" in refused["error"]["message"]


def test_masks_drawn_copied_exchanged_and_deleted(page: Page) -> None:
    one, two = page.do("add_object")["object"], page.do("add_object")["object"]
    drawn = rle.encode(truth(0))["counts"]
    page.do("edit_mask", object=one, frame=0, mask=drawn)
    assert page.masks[one, 0].flags == 1 | 2 | 4
    assert (page.masks[one, 0].mask == truth(0)).all()
    page.click(two, 0, (*center(1), 1))
    page.track(0)
    assert (page.masks[one, 0].mask == truth(0)).all(), "what a person draws stays as it is"
    assert synthetic.iou(page.masks[one, 6].mask, truth(0, 6)) > 0.7, "and is tracked"
    tracked = dict(page.masks)

    assert page.do("exchange", a=one, b=two, **{"from": 4})["masks"] == 2 * (NUM_FRAMES - 4)
    page.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
    for frame in range(NUM_FRAMES):
        taken = {one: two, two: one} if frame >= 4 else {one: one, two: two}
        for object_id, other in taken.items():
            assert page.masks[object_id, frame].counts == tracked[other, frame].counts
    page.do("marks", **{"in": 0, "out": 8})  # where the balls do not touch
    for start, direction in ((4, "forward"), (0, "forward"), (8, "backward")):
        page.track(start, direction)
        for object_id, blob in ((one, 1), (two, 0)):
            for frame, own in ((7, blob), (2, 1 - blob)):
                mask = page.masks[object_id, frame].mask
                assert synthetic.iou(mask, truth(own, frame)) > 0.4, (start, direction)
                assert synthetic.iou(mask, truth(1 - own, frame)) < 0.1, (start, direction)

    assert page.do("delete_masks", object=two, **{"from": 3}, to=5)["masks"] == 3
    page.do("masks", **{"from": 0, "to": 9})
    assert {frame for object_id, frame in page.masks if object_id == two and frame < 10} == {0, 1, 2, 6, 7, 8, 9}
    page.do("copy_mask", object=two, **{"from": 2}, to=3)
    assert page.masks[two, 3].counts == page.masks[two, 2].counts
    page.do("edit_mask", object=one, frame=1, mask="")
    assert (page.masks[one, 1].flags, page.masks[one, 1].area) == (4, 0)
    page.do("remove_object", object=one)
    assert {object_id for object_id, _ in page.masks} == {two}
    assert page.ask("prompt", object=one, frame=0, points=[[1, 1, 1]])["error"]["field"] == "object"
    undone = [page.do("undo")["did"] for _ in range(10)]
    assert undone == [
        "remove_object",
        "edit_mask",
        "copy_mask",
        "delete_masks",
        *["track"] * 3,
        "marks",
        "exchange",
        "track",
    ]
    page.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
    assert page.masks == {key: record for key, record in tracked.items() if key[1] == 0}


def test_clicks_are_taken_back(page: Page) -> None:
    one = page.do("add_object")["object"]
    first = page.click(one, 0, (*center(0), 1))
    page.track(0)
    tracked = page.masks[one, 8]
    corrected = page.click(one, 8, (*center(0, 8), 1), (2.0, 2.0, 0))
    assert corrected.flags & 2
    page.do("prompt", object=one, frame=8, points=[], box=None, mask=None)
    page.do("masks", **{"from": 8, "to": 8})
    assert page.masks[one, 8].counts == tracked.counts, "the mask as it was tracked"
    page.do("prompt", object=one, frame=0, points=[], box=None, mask=None)
    page.do("masks", **{"from": 0, "to": 0})
    assert (one, 0) not in page.masks
    assert page.state["event"] == "state"
    refused = page.ask("track", direction="forward", objects=[one], **{"from": 0})
    assert "has no prompt" in refused["error"]["message"]
    assert page.click(one, 0, (*center(0), 1)).area == pytest.approx(first.area, rel=0.1)


def test_tracking_makes_way_for_clicks_and_stops(page: Page) -> None:
    one = page.do("add_object")["object"]
    page.click(one, 0, (*center(0), 1))
    page.do("track", direction="forward", objects=None, **{"from": 0})
    two = page.do("add_object")["object"]
    page.click(two, NUM_FRAMES - 1, (*center(1, NUM_FRAMES - 1), 1))
    assert page.ask("undo")["ok"]
    assert not page.state["tracking"]["running"]
    before = len(page.masks)
    page.track(0, objects=[one])
    assert len(page.masks) >= before
    page.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
    assert {frame for object_id, frame in page.masks if object_id == one} == set(range(NUM_FRAMES))
    page.do("track", direction="forward", objects=None, **{"from": 0})
    page.do("stop")
    page.do("ping")
    told = [event for event in page.events if event["event"] == "tracking"]
    assert not told[-1]["running"]
    assert told[-1]["error"] is None


def test_the_review_names_what_is_worth_a_look(page: Page) -> None:
    one = page.do("add_object")["object"]
    page.do("edit_mask", object=one, frame=0, mask=rle.encode(truth(0))["counts"])
    page.track(0)
    page.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
    quiet = {doubt["frame"] for doubt in page.do("review")["frames"]}
    page.do("edit_mask", object=one, frame=5, mask=rle.encode(truth(1, 5))["counts"])
    page.do("edit_mask", object=one, frame=12, mask="")
    found = page.do("review")["frames"]
    assert {6, 12, 13} & {doubt["frame"] for doubt in found} - quiet
    assert [doubt["score"] for doubt in found] == sorted((doubt["score"] for doubt in found), reverse=True)
    first = page.do("doubtful", after=-1)
    assert first["frame"] == found[0]["frame"]
    visited, at = [], -1
    while (at := page.do("doubtful", after=at)["frame"]) is not None:
        visited.append(at)
    assert visited == list(dict.fromkeys(doubt["frame"] for doubt in found))


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"do": "fly"}, "do"),
        ({"do": "prompt", "object": 1, "frame": 99, "points": [[1, 1, 1]]}, "frame"),
        ({"do": "prompt", "object": 1, "frame": 0, "points": [[1, 1, 7]]}, "points[0]"),
        ({"do": "prompt", "object": 1, "frame": 0, "points": [[9999, 1, 1]]}, "points[0]"),
        ({"do": "prompt", "object": 1, "frame": 0, "box": [5, 5, 5, 5]}, "box"),
        ({"do": "prompt", "object": 1, "frame": 0, "mask": "zz"}, "mask"),
        ({"do": "edit_mask", "object": 1, "frame": 0, "mask": None}, "mask"),
        ({"do": "add_object", "name": "a\nb"}, "name"),
        ({"do": "change_object", "object": 1, "colour": "red"}, "colour"),
        ({"do": "track", "direction": "up", "from": 0}, "direction"),
        ({"do": "track", "direction": "forward", "from": 0, "objects": [7000]}, "objects"),
        ({"do": "marks", "in": 5, "out": 2}, "out"),
        ({"do": "exchange", "a": 1, "b": 1, "from": 0}, "b"),
        ({"do": "delete_masks", "object": 1, "from": 5, "to": 4}, "to"),
        ({"do": "masks", "from": 0, "to": 7000}, "to"),
        ({"do": "doubtful", "after": "x"}, "after"),
    ],
)
def test_what_is_wrong_is_named_and_changes_nothing(
    studio: RunningStudio, request_fields: dict[str, object], field: str
) -> None:
    with studio.tab(studio.videos()[2]["id"]) as page:
        if not page.state["objects"]:
            assert page.do("add_object")["object"] == 1
        verb = str(request_fields["do"])
        reply = page.ask(verb, **{name: value for name, value in request_fields.items() if name != "do"})
        assert (reply["ok"], reply["error"]["field"]) == (False, field)
        assert page.do("undo")["did"] == "add_object"
        page.do("redo")
