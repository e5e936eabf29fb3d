"""A real browser at a real studio, with a real server and nano."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import browser, e2e
from tests.support.studio import RunningStudio, running_studio
from tests.support.workplace import Workplace


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    with browser.chromium() as running:
        yield running


@pytest.fixture
def studio(nano_server: str, tmp_path: Path) -> Iterator[RunningStudio]:
    """A studio with one short clip, in a project of its own."""
    (tmp_path / "clip.mkv").write_bytes(e2e.lossless())
    with running_studio(tmp_path / "work", tmp_path / "clip.mkv", server=nano_server) as running:
        yield running


@pytest.fixture
def tabs(chromium: Any) -> Iterator[list[Workplace]]:
    """Two tabs of one browser."""
    context = chromium.new_context(
        viewport={"width": browser.WIDTH, "height": browser.HEIGHT}, color_scheme="dark", accept_downloads=True
    )
    yield [Workplace(context.new_page()), Workplace(context.new_page())]
    context.close()


@pytest.fixture
def work(studio: RunningStudio, tabs: list[Workplace]) -> Iterator[Workplace]:
    """The clip, opened; at the end, the browser must have had nothing to complain of."""
    tabs[0].open(studio.url)
    yield tabs[0]
    assert tabs[0].complaints == []
