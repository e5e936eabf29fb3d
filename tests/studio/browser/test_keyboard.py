"""Without a mouse: from a file to COCO masks of two objects, and a camera; and where Tab leads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from masklet import rle
from tests.support import access, e2e, streams, synthetic
from tests.support.live import LOOP
from tests.support.studio import running_studio
from tests.support.workplace import LiveWorkplace, Workplace

pytestmark = pytest.mark.slow

MOST_STOPS = 80


class Keyboard:
    """A person who has a keyboard alone: presses Tab until the wanted control has the focus, and looks where it is."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, name: str) -> None:
        """Press Tab until a control has the focus; each stop on the way has a name, and is seen."""
        for _ in range(MOST_STOPS):
            self.page.keyboard.press("Tab")
            found = access.focused(self.page)
            if found is not None:
                assert found["name"], found
                assert found["outlined"], f"the focus is not seen: {found}"
                if re.fullmatch(name, found["name"]):
                    return
        raise AssertionError(f"Tab does not lead to {name!r}")

    def stops(self) -> list[tuple[str, str]]:
        """The area and the name of each stop of Tab, from the page's beginning to its end."""
        found: list[tuple[str, str]] = []
        for _ in range(MOST_STOPS):
            self.page.keyboard.press("Tab")
            stop = access.focused(self.page)
            if stop is None:
                return found
            assert stop["outlined"], f"the focus is not seen: {stop}"
            assert min(stop["size"]) > 0, stop
            found.append((stop["area"], stop["name"]))
        raise AssertionError(f"Tab comes to no end: {found[-3:]}")

    def cross_to(self, x: float, y: float) -> None:
        """Move the crosshair to a place of the video, by what a screen reader says of where it is."""
        said = self.page.locator("span.unseen[role=status]")
        scale = int(self.page.locator(".zoom").inner_text().strip().rstrip("%")) / 100
        for _ in range(40):
            now = [float(one) for one in said.inner_text().split(",")]
            left = [(x - now[0]) * scale, (y - now[1]) * scale]
            if max(map(abs, left)) < 3:
                return
            for far, keys in zip(left, (("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown")), strict=True):
                step, modifier = (72, "Shift+") if abs(far) > 60 else (12, "") if abs(far) > 8 else (1, "Control+")
                for _ in range(round(abs(far) / step)):
                    self.press(modifier + keys[far > 0])
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the crosshair does not come to {x}, {y}: {said.inner_text()}")


def test_from_a_file_to_coco(nano_server: str, tmp_path: Path, tabs: list[Workplace]) -> None:
    (tmp_path / "balls.mp4").write_bytes(e2e.h264())
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        tab = tabs[0]
        keyboard = Keyboard(tab.page)
        tab.page.goto(studio.url)
        tab.page.get_by_role("heading", name="Drop a video here").wait_for()
        keyboard.tab_to("Choose a video")
        with tab.page.expect_file_chooser() as chooser:
            keyboard.press("Enter")
        chooser.value.set_files(tmp_path / "balls.mp4")
        tab.wait_for_video()
        keyboard.press("k")
        keyboard.cross_to(*e2e.center(0))
        keyboard.press("Enter")
        tab.settle()
        assert tab.area(1) > 0
        keyboard.press("a")
        tab.page.get_by_text("Click on Object 2").wait_for()
        keyboard.cross_to(*e2e.center(1))
        keyboard.press("Enter")
        tab.settle()
        assert tab.area(2) > 0
        keyboard.tab_to("Name of object 2")
        tab.page.keyboard.type("blue")
        keyboard.press("Enter")
        keyboard.tab_to("Track forward")
        keyboard.press("Enter")
        tab.until("s.tracking.value.running || s.framesTracked.value > 1")
        tab.wait_tracked()
        keyboard.press("Control+e")
        keyboard.tab_to("Export COCO")
        keyboard.press("Enter")
        tab.page.get_by_role("link", name="Download").wait_for()
        keyboard.tab_to("Download")
        with tab.page.expect_download() as download:
            keyboard.press("Enter")
        download.value.save_as(tmp_path / "coco.json")
        keyboard.press("Escape")
        assert tab.page.locator("dialog").count() == 0
        assert tab.complaints == []
    written = json.loads((tmp_path / "coco.json").read_text())
    for blob in (0, 1):
        first = next(one for one in written["annotations"] if one["track_id"] == blob + 1)
        assert synthetic.iou(rle.decode(first["segmentation"]), e2e.truth(blob)) > 0.7
    assert "blue" in json.dumps(written)


def test_a_box_a_stroke_and_the_keys_beside_them(work: Workplace) -> None:
    keyboard = Keyboard(work.page)
    x0, y0, x1, y1 = e2e.box(0)
    keyboard.press("b", "k")
    keyboard.cross_to(x0, y0)
    keyboard.press("Enter")
    keyboard.cross_to(x1, y1)
    keyboard.press("Escape", "Enter")  # the corner is given up, and another one set
    keyboard.cross_to(x0, y0)
    keyboard.press("Enter")
    work.settle()
    area = work.area()
    assert area == pytest.approx(e2e.truth(0).sum(), rel=0.35)
    assert work.store("[...s.prompts.value.values()][0].box") == pytest.approx([x0, y0, x1, y1], abs=4)
    keyboard.press("p")
    keyboard.cross_to(20, 20)
    keyboard.press("Enter", "ArrowRight", "ArrowRight", "Enter")
    work.settle()
    assert work.area() > area + 100
    keyboard.press(".")
    assert work.store("s.frame.value") == 1, "frames change while arrows move the crosshair"
    keyboard.press(",")
    assert work.store("s.frame.value") == 0
    keyboard.press("v")
    keyboard.cross_to(*e2e.center(0))
    keyboard.press("Shift+Enter")
    work.settle()
    assert work.store("[...s.prompts.value.values()][0].points.at(-1)[2]") == 0, "it takes away"
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    assert work.store("s.frame.value") == 1, "elsewhere, arrows change the frame"


def test_arrows_change_the_frame_after_a_click_with_the_mouse(work: Workplace) -> None:
    work.click(*e2e.center(0))
    work.press("ArrowRight", "ArrowRight")
    assert work.store("s.frame.value") == 2
    assert access.focused(work.page) is None


def test_tab_leads_through_the_page_in_its_order_and_out_of_it(work: Workplace) -> None:
    work.click(*e2e.center(0))
    work.track("t")
    work.page.reload()
    work.wait_for_video()
    keyboard = Keyboard(work.page)
    stops = keyboard.stops()
    areas = [area for area, _ in stops]
    order = ["top", "tools", "stage", "panel", "bottom"]
    assert list(dict.fromkeys(areas)) == order
    assert sorted(areas, key=order.index) == areas, "no area is left and entered again"
    names = [name for _, name in stops]
    for name in (
        "Undo",
        "Brush: paint the mask",
        "Name of object 1",
        "Delete Object 1",
        "Opacity",
        "Play",
        "Track both ways",
    ):
        assert any(name in one for one in names), f"{name} is not reached: {names}"
    work.press("?")
    for _ in range(6):
        work.press("Tab")
        found = access.focused(work.page)
        assert found is None or found["area"] == "dialog", "the focus stays in the dialog"
    work.press("Escape")
    assert work.page.locator("dialog").count() == 0


def test_a_camera(nano_server: str, tmp_path: Path, live_tabs: list[LiveWorkplace]) -> None:
    tab = live_tabs[0]
    keyboard = Keyboard(tab.page)
    with (
        streams.mjpeg([LOOP[8]] * 4, endless=True) as camera,
        running_studio(tmp_path / "work", server=nano_server) as studio,
    ):
        tab.page.goto(studio.url)
        tab.page.get_by_label("Address of a stream").wait_for()
        keyboard.tab_to("Address of a stream.*")
        tab.page.keyboard.type(camera)
        keyboard.press("Enter")
        tab.wait_for_live()
        keyboard.press("k")
        keyboard.cross_to(*e2e.center(0, 8))
        keyboard.press("Enter")
        tab.wait_for_masks(1)
        keyboard.press("a")
        tab.page.get_by_text("Click on Object 2").wait_for()
        keyboard.cross_to(*e2e.center(1, 8))
        keyboard.press("Enter")
        tab.wait_for_masks(2)
        keyboard.press("Control+z")
        tab.wait_for_masks(1)
        keyboard.press("Control+Shift+Z")
        tab.wait_for_masks(2)
        keyboard.press("r")
        tab.until("s.recording.value.on && s.recording.value.frames >= 3")
        keyboard.press("r")
        tab.page.get_by_text("Open the recording").wait_for()
        keyboard.tab_to("Open the recording")
        keyboard.press("Enter")
        tab.wait_for_video()
        keyboard.press("Control+e")
        keyboard.tab_to("Export COCO")
        keyboard.press("Enter")
        tab.page.get_by_role("link", name="Download").wait_for()
        keyboard.tab_to("Download")
        with tab.page.expect_download() as download:
            keyboard.press("Enter")
        download.value.save_as(tmp_path / "coco.json")
        assert tab.complaints == []
    assert {one["track_id"] for one in json.loads((tmp_path / "coco.json").read_text())["annotations"]} == {1, 2}
