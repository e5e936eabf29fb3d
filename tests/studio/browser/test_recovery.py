"""Nothing is lost: by a reload, in a second tab, and when the studio is killed under the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import e2e
from tests.support.e2e import NUM_FRAMES, center
from tests.support.studio import running_studio
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow
LAST = NUM_FRAMES - 1


def test_a_reload_shows_what_was_there(work: Workplace) -> None:
    work.click(*center(0))
    work.track("t")
    work.go(7)
    before = work.area()
    work.page.reload()
    work.wait_for_video()
    work.until("s.objects.value.length === 1")
    assert work.store("s.frame.value") == 7
    assert work.area() == before > 0
    work.has_runs([[0, LAST]])


def test_two_tabs_see_the_same(clip: str, tabs: list[Workplace]) -> None:
    one, two = tabs
    one.open(clip)
    two.open(clip)
    one.page.bring_to_front()
    one.click(*center(0))
    two.until("s.objects.value.length === 1 && s.prompts.value.size === 1")
    assert two.area() == one.area() > 0
    one.track("t")
    two.until("s.framesTracked.value === s.frames.value")
    two.page.bring_to_front()
    two.press("Control+z")
    one.until("s.framesTracked.value <= 1")
    assert one.complaints == two.complaints == []


def test_a_killed_studio_is_told_and_recovered_from(nano_server: str, tmp_path: Path, tabs: list[Workplace]) -> None:
    (tmp_path / "clip.mkv").write_bytes(e2e.lossless())
    project = tmp_path / "work"
    tab = tabs[0]
    with running_studio(project, tmp_path / "clip.mkv", server=nano_server) as studio:
        tab.open(studio.url)
        tab.click(*center(0))
        tab.track("t")
        mask = tab.area()
        studio.kill()
        tab.page.locator(".banner").filter(has_text="Not connected to the studio").wait_for()
        tab.page.keyboard.press("t")
        tab.page.locator(".transport .problem").wait_for()
    with running_studio(project, server=nano_server, address=studio.host) as again:
        tab.page.locator(".banner").wait_for(state="detached")
        tab.page.get_by_text("Saved").wait_for()
        assert again.host == studio.host
        tab.has_runs([[0, LAST]])
        assert tab.area() == mask
        tab.go(6)
        tab.click(*center(0, 6))
        tab.track("t")
        tab.has_runs([[0, LAST]])
        tab.press("Control+z")
        tab.until("s.history.value.can_redo")
