"""A real browser for the studio's page, and a plain server for its files alone."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "client" / "masklet_studio" / "page"
WIDTH, HEIGHT = 1280, 800


def find_chromium() -> str | None:
    """The system's Chromium; MASKLET_CHROMIUM names another one."""
    return os.environ.get("MASKLET_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def chromium(*options: str) -> Iterator[Any]:
    """A browser without a window, with further options of its command line.

    The test is skipped where Playwright or Chromium is missing.
    """
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install 'masklet[studio-tests]'"
    )
    path = find_chromium()
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium, or set MASKLET_CHROMIUM to its path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *options])
        try:
            yield browser
        finally:
            browser.close()


class _Files(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012 - it is the base class's attribute
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".js": "text/javascript",
    }

    def log_message(self, *_args: Any) -> None:
        """Nothing is written: the output of tests tells of failures."""


@contextlib.contextmanager
def served_files(folder: Path) -> Iterator[str]:
    """The address of a server that gives the files of a folder, and nothing else."""
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
