"""A camera in a real browser: typed, clicked, recorded, opened; and the browser's own camera."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import e2e, streams
from tests.support.live import LOOP
from tests.support.rtsp import RtspServer
from tests.support.studio import running_studio
from tests.support.workplace import LiveWorkplace

pytestmark = pytest.mark.slow


def test_a_camera_is_opened_tracked_recorded_and_the_recording_opened(
    nano_server: str, tmp_path: Path, live_tabs: list[LiveWorkplace]
) -> None:
    tab = live_tabs[0]
    with RtspServer([LOOP[8]] * 8) as camera, running_studio(tmp_path / "work", server=nano_server) as studio:
        tab.page.goto(studio.url)
        field = tab.page.get_by_label("Address of a stream")
        field.fill("/etc/passwd")
        field.press("Enter")
        tab.page.locator(".live-start .problem").filter(has_text="neither the address").wait_for()
        field.fill(camera.url)
        field.press("Enter")
        tab.wait_for_live()
        tab.page.get_by_text("Click an object").wait_for()
        tab.click(*e2e.center(0, 8))
        tab.wait_for_masks(1)
        tab.do("Undo")
        tab.wait_for_masks(0)
        tab.press("Control+Shift+Z")
        tab.wait_for_masks(1)
        tab.page.get_by_label("Name of object 1").fill("ball")
        tab.page.get_by_label("Name of object 1").press("Enter")
        tab.do("Another object")
        tab.page.get_by_text("Click on Object 2").wait_for()
        tab.click(*e2e.center(1, 8))
        tab.wait_for_masks(2)
        tab.page.locator(".going").filter(has_text="ms behind").wait_for()
        assert 0 < tab.store("s.status.value.latency") < 10_000
        tab.press("r")
        tab.until("s.recording.value.on && s.recording.value.frames >= 5")
        live_tabs[1].page.goto(tab.page.url)
        live_tabs[1].wait_for_live()
        live_tabs[1].wait_for_masks(2)
        assert live_tabs[1].names() == ["ball", "Object 2"]
        tab.page.bring_to_front()
        tab.press("r")
        tab.do("Open the recording")
        tab.wait_for_video()
        frames = tab.store("s.frames.value")
        assert frames >= 5
        tab.until("s.objects.value.length === 2")
        tab.has_runs([[0, frames - 1]])
        assert tab.names() == ["ball", "Object 2"]
        assert tab.area(1) > 0
        assert tab.page.get_by_text("is corrected on this frame").count() == 0, "nothing is to be done again"
        assert [one for one in tab.complaints if "400 (Bad Request)" not in one] == []
        assert tab.hosts() == {studio.host}


def test_an_unreachable_camera_is_told_and_can_be_opened_again(
    nano_server: str, tmp_path: Path, live_tabs: list[LiveWorkplace]
) -> None:
    tab = live_tabs[0]
    port = streams.free_port()
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        tab.page.goto(studio.url)
        tab.page.get_by_label("Address of a stream").fill(f"rtsp://127.0.0.1:{port}/stream")
        tab.do("Open")
        tab.page.locator(".banner").filter(has_text="Connection refused").wait_for()
        with RtspServer(LOOP, port=port):
            tab.do("Open it again")
            tab.wait_for_live()
            tab.do("End")
            tab.page.get_by_role("heading", name="Drop a video here").wait_for()
        assert tab.complaints == []


def test_a_named_camera_is_seen_at_once_and_a_restarted_studio_is_told(
    nano_server: str, tmp_path: Path, live_tabs: list[LiveWorkplace]
) -> None:
    tab = live_tabs[0]
    with streams.mjpeg([LOOP[8]] * 4, endless=True) as camera:
        options = (camera,)
        with running_studio(tmp_path / "work", server=nano_server, options=options) as studio:
            tab.page.goto(studio.url)
            tab.wait_for_live()
            tab.click(*e2e.center(0, 8))
            tab.wait_for_masks(1)
            studio.kill()
            tab.page.locator(".banner").filter(has_text="Not connected to the studio").wait_for()
        with running_studio(tmp_path / "work", server=nano_server, options=options, address=studio.host):
            tab.page.locator(".banner").filter(has_text="this live session is over").wait_for()
            tab.do("Open it again")
            tab.wait_for_live()
