"""A person who never saw the studio: from a file to COCO masks of two objects, by what the page itself offers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from masklet import rle
from tests.support import e2e, synthetic
from tests.support.studio import running_studio
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow
SECONDS = 120


def test_from_upload_to_coco(nano_server: str, tmp_path: Path, tabs: list[Workplace]) -> None:
    (tmp_path / "balls.mp4").write_bytes(e2e.h264())
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        tab = tabs[0]
        begun = time.monotonic()
        tab.page.goto(studio.url)
        tab.page.get_by_role("heading", name="Drop a video here").wait_for()
        tab.page.get_by_label("Choose videos").set_input_files(tmp_path / "balls.mp4")
        tab.wait_for_video()
        assert tab.page.get_by_text("Click the object that you want to track").is_visible()
        tab.click(*e2e.center(0))
        tab.page.get_by_label("Name of object 1").fill("ball")
        tab.page.get_by_label("Name of object 1").press("Enter")
        tab.do("Add")
        tab.page.get_by_text("Click on Object 2, or drag a box round it").wait_for()
        tab.click(*e2e.center(1))
        assert tab.area(2) > 0
        tab.page.locator(".hint").get_by_role("button", name="Track forward").click()
        tab.until(f"s.framesTracked.value === {e2e.NUM_FRAMES}")
        tab.wait_tracked()
        tab.do("Export")
        tab.do("Export COCO")
        with tab.page.expect_download() as download:
            tab.page.get_by_role("link", name="Download").click()
        assert time.monotonic() - begun < SECONDS
        download.value.save_as(tmp_path / "coco.json")
        assert tab.complaints == []
        assert tab.hosts() == {studio.host}, "the page asks nobody but its own studio"

    assert len(COCO(str(tmp_path / "coco.json")).getAnnIds()) > 0
    written = json.loads((tmp_path / "coco.json").read_text())
    assert len(written["images"]) == e2e.NUM_FRAMES
    tracks = {one["track_id"] for one in written["annotations"]}
    assert len(tracks) == 2
    for blob, track in enumerate(sorted(tracks)):
        first = next(one for one in written["annotations"] if one["track_id"] == track)
        assert synthetic.iou(rle.decode(first["segmentation"]), e2e.truth(blob)) > 0.7


def test_what_is_no_video_is_told_at_its_upload(nano_server: str, tmp_path: Path, tabs: list[Workplace]) -> None:
    (tmp_path / "notes.mp4").write_text("this is text")
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        tab = tabs[0]
        tab.page.goto(studio.url)
        tab.page.get_by_label("Choose videos").set_input_files(tmp_path / "notes.mp4")
        told = tab.page.locator(".upload-error, .card-error").first
        told.wait_for()
        assert "video" in told.inner_text()
        assert tab.page.locator(".stage-canvas").count() == 0


def test_an_upload_goes_on_where_it_was_cut_off(nano_server: str, tmp_path: Path, tabs: list[Workplace]) -> None:
    """The first piece arrives, the connection breaks for a while, and the page sends the rest by itself."""
    content = e2e.h264()
    (tmp_path / "large.mp4").write_bytes(content + bytes(9 << 20))  # zeros after the end do not harm an MP4
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        tab = tabs[0]
        tab.page.goto(studio.url)
        pieces: list[str] = []

        def answer(route: object) -> None:
            request = route.request  # type: ignore[attr-defined]
            pieces.append(request.url.partition("offset=")[2])
            if len(pieces) == 2:
                route.abort()  # type: ignore[attr-defined]
            else:
                route.continue_()  # type: ignore[attr-defined]

        tab.page.route("**/api/uploads/*offset=*", answer)
        tab.page.get_by_label("Choose videos").set_input_files(tmp_path / "large.mp4")
        tab.wait_for_video()
        assert pieces[:3] == ["0", str(4 << 20), str(4 << 20)], "what had arrived is not sent again"
