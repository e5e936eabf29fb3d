"""The page's modules, in a browser and without a studio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import browser


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An empty page that can import the studio's modules under ``/page/``."""
    root: Path = tmp_path_factory.mktemp("page")
    (root / "page").symlink_to(browser.PAGE)
    (root / "empty.html").write_text("<!doctype html><title>empty</title>")
    with browser.served_files(root) as address, browser.chromium() as chromium:
        page = chromium.new_page()
        page.goto(f"{address}/empty.html")
        yield page
