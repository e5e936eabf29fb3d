"""A real browser at a real studio, with a real server and nano."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import browser, e2e
from tests.support.studio import RunningStudio, running_studio
from tests.support.workplace import LiveWorkplace, Workplace


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A browser. While it runs, Playwright has an event loop running, so no asynchronous test may run."""
    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def studio(nano_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio for all tests of a module."""
    with running_studio(tmp_path_factory.mktemp("studio") / "work", server=nano_server) as running:
        yield running


@pytest.fixture
def clip(studio: RunningStudio) -> Iterator[str]:
    """The address of a short clip that nobody has worked on."""
    video = studio.upload("clip.mkv", e2e.lossless())
    yield f"{studio.url}/#/video/{video}"
    studio.remove(video)


@pytest.fixture
def tabs(chromium: Any) -> Iterator[list[Workplace]]:
    """Two tabs of one browser."""
    context = chromium.new_context(
        viewport={"width": browser.WIDTH, "height": browser.HEIGHT}, color_scheme="dark", accept_downloads=True
    )
    yield [Workplace(context.new_page()), Workplace(context.new_page())]
    context.close()


@pytest.fixture
def live_tabs(chromium: Any) -> Iterator[list[LiveWorkplace]]:
    """Two tabs of one browser, for live videos."""
    context = chromium.new_context(viewport={"width": browser.WIDTH, "height": browser.HEIGHT}, color_scheme="dark")
    yield [LiveWorkplace(context.new_page()), LiveWorkplace(context.new_page())]
    context.close()


@pytest.fixture
def work(clip: str, tabs: list[Workplace]) -> Iterator[Workplace]:
    """The clip, opened; at the end, the browser must have had nothing to complain of."""
    tabs[0].open(clip)
    yield tabs[0]
    assert tabs[0].complaints == []
