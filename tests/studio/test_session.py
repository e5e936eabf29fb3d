"""A page's work on a video, over HTTP and WebSocket, with a real server and nano."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.support import synthetic
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, center, frames, lossless, truth
from tests.support.studio import RunningStudio, running_studio

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studio(nano_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    folder = tmp_path_factory.mktemp("studio")
    for name in ("clip.mkv", "other.mkv", "third.mkv"):
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
