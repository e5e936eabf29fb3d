"""Every state of the page, at four sizes and in both themes: names, contrast, and nothing that is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import access, e2e, streams
from tests.support.live import LOOP
from tests.support.studio import RunningStudio
from tests.support.workplace import LiveWorkplace, Workplace

pytestmark = pytest.mark.slow

SIZES = ((1280, 800), (1024, 768), (800, 600), (3840, 2160))
THEMES = ("dark", "light")
Check = Callable[[str], None]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """The source of axe-core; None where npm does not have it in its cache."""
    return access.axe(tmp_path_factory.mktemp("axe"))


@pytest.fixture
def check(tabs: list[Workplace], axe: str | None) -> Iterator[Check]:
    """Looks at the page as it is, at all sizes and in both themes; all findings are told at the end."""
    found: dict[str, None] = {}
    page = tabs[0].page

    def look(state: str) -> None:
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            for width, height in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                page.mouse.move(width / 2, height - 1)
                page.wait_for_timeout(200)
                told = [*access.poor_contrast(page), *access.nameless(page), *access.cut(page)]
                if axe is not None and width == SIZES[0][0]:
                    told += access.violations(page, axe)
                found.update({f"{state}, {width} pixels, {theme}: {one}": None for one in told})
        page.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})
        page.wait_for_timeout(200)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    yield look
    assert list(found) == [], "\n".join(found)


def test_the_first_page(studio: RunningStudio, clip: str, tabs: list[Workplace], tmp_path: Path, check: Check) -> None:
    page = tabs[0].page
    page.goto(f"{studio.url}/#/")
    page.locator(".card-open img").wait_for()
    check("a video")
    (tmp_path / "notes.mp4").write_text("this is text")
    page.get_by_label("Choose videos").set_input_files(tmp_path / "notes.mp4")
    page.locator(".upload-error, .card-error").first.wait_for()
    page.get_by_label("Address of a stream").fill("/etc/passwd")
    page.get_by_label("Address of a stream").press("Enter")
    page.locator(".live-start .problem").wait_for()
    check("errors")


def test_the_workplace(work: Workplace, check: Check) -> None:
    check("nothing yet")
    work.click(*e2e.center(0))
    work.press("a")
    work.click(*e2e.center(1))
    check("two objects")
    work.go(4)
    work.press("i")
    work.go(12)
    work.press("o")
    work.go(4)
    check("marks")
    work.press("u")
    work.go(0)
    work.track("t")
    work.until("s.framesTracked.value === s.frames.value")
    work.page.get_by_text("To check").wait_for()
    check("tracked")
    work.go(9)
    work.click(5, 5)
    check("a correction")
    work.press("p")
    check("the brush")


def test_the_dialogs(work: Workplace, check: Check) -> None:
    work.press("Control+e")
    work.page.get_by_text("There are no masks yet").wait_for()
    check("nothing to export")
    work.press("Escape")
    work.click(*e2e.center(0))
    work.press("Control+e")
    work.page.get_by_text("Export COCO").wait_for()
    check("export")
    work.do("Export COCO")
    work.page.get_by_role("link", name="Download").wait_for()
    check("exported")
    work.press("Escape")
    work.press("?")
    work.page.get_by_role("heading", name="Keys").wait_for()
    check("keys")


def test_live(studio: RunningStudio, tabs: list[Workplace], check: Check) -> None:
    tab = LiveWorkplace(tabs[0].page)
    with streams.mjpeg([LOOP[8]] * 4, endless=True) as camera:
        tab.page.goto(f"{studio.url}/#/")
        tab.page.get_by_label("Address of a stream").fill(camera)
        tab.do("Open")
        tab.wait_for_live()
        check("nothing yet")
        tab.click(*e2e.center(0, 8))
        tab.wait_for_masks(1)
        check("an object")
        tab.press("r")
        tab.until("s.recording.value.on && s.recording.value.frames >= 2")
        check("recording")
        tab.press("r")
        tab.page.get_by_text("Open the recording").wait_for()
        check("recorded")
        tab.do("End")
        tab.page.get_by_role("heading", name="Drop a video here").wait_for()


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (access.poor_contrast, "<p style='color: #999; background: #fff'>hardly read</p>"),
        (access.poor_contrast, "<p style='color: rgb(0 0 0 / 40%); background: #fff'>hardly read</p>"),
        (access.nameless, "<button><svg></svg></button>"),
        (access.nameless, "<button aria-label='Send'>Go</button>"),
        (access.nameless, "<input>"),
        (access.cut, "<button style='width: 40px; overflow: hidden; white-space: nowrap'>a long text</button>"),
        (
            access.cut,
            "<button><span style='display: block; width: 9px; overflow: hidden'>too_long</span></button>",
        ),
        (access.cut, "<div class='bottom'><button style='position: fixed; left: 3000px'>gone</button></div>"),
    ],
)
def test_the_checks_find_what_they_are_for(chromium: Any, found: Callable[[Any], list[str]], fault: str) -> None:
    page = chromium.new_page()
    page.set_content(
        "<!doctype html><body><p style='color: #000; background: #fff'>read</p><button>fine</button></body>"
    )
    assert found(page) == []
    page.set_content(f"<!doctype html><body>{fault}")
    assert len(found(page)) == 1
    page.close()
