"""The browser's own camera: Chromium takes a film for what its camera sees.

These tests have a browser of their own, and so a folder of their own: Playwright runs one at a time in a process.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.support import browser, e2e
from tests.support.live import LOOP
from tests.support.studio import children, running_studio, wait_for
from tests.support.workplace import LiveWorkplace

pytestmark = pytest.mark.slow
LAST = 8  # the only frame that the camera sees: what is clicked does not move


def film(path: Path) -> Path:
    """A film that the camera sees."""
    data = io.BytesIO()
    Image.fromarray(LOOP[LAST]).save(data, "JPEG", quality=92)
    path.write_bytes(data.getvalue() * 8)
    return path


def test_the_camera_of_the_browser_is_tracked_and_recorded(nano_server: str, tmp_path: Path) -> None:
    options = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film(tmp_path / 'camera.mjpeg')}",
    )
    with browser.chromium(*options) as chromium, running_studio(tmp_path / "work", server=nano_server) as studio:
        context = chromium.new_context(permissions=["camera"])
        tab = LiveWorkplace(context.new_page())
        tab.page.goto(studio.url)
        tab.do("Use this browser's camera")
        tab.wait_for_live()
        width, height = tab.store("[s.video.value.width, s.video.value.height]")
        assert width / height == pytest.approx(e2e.WIDTH / e2e.HEIGHT, rel=0.02)
        x, y = e2e.center(0, LAST)
        tab.click(x * width / e2e.WIDTH, y * height / e2e.HEIGHT)
        tab.wait_for_masks(1)
        tab.press("r")
        tab.until("s.recording.value.on && s.recording.value.frames >= 4")
        # After a reload it goes on: the same session, with the same object.
        tab.page.reload()
        tab.wait_for_live()
        tab.wait_for_masks(1)
        before = tab.store("s.recording.value.frames")
        tab.until(f"s.recording.value.on && s.recording.value.frames > {before}")
        tab.do("End")
        tab.page.get_by_role("button", name="Remove").first.wait_for(state="attached")
        (video,) = studio.videos()
        assert video["frames"] > 4
        assert tab.complaints == []
        context.close()
        assert children(studio, "camera_main") == []
        wait_for(lambda: not studio.ask("/api/state").json["live"]["sessions"], 30)


def test_a_browser_that_gives_no_camera_is_told_why(nano_server: str, tmp_path: Path) -> None:
    with browser.chromium() as chromium, running_studio(tmp_path / "work", server=nano_server) as studio:
        context = chromium.new_context()
        tab = LiveWorkplace(context.new_page())
        tab.page.goto(studio.url)
        tab.do("Use this browser's camera")
        tab.page.locator(".live-start .problem").filter(has_text="camera").wait_for()
        assert studio.ask("/api/state").json["live"]["sessions"] == []
        context.close()
