"""The page's files: what is vendored is what npm has, nothing is inline, nothing is fetched from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import re

import pytest

from tests.support.browser import PAGE

MAX_LINES = 400
MAX_FILES_IN_A_FOLDER = 14
MAX_TRANSFERRED = 100_000
MAX_READ = 240_000
OWN = sorted(path for path in PAGE.rglob("*") if path.is_file() and path.parent.name != "vendor")
CODE = [path for path in OWN if path.suffix == ".js"]
LICENCES = {"MIT", "Apache-2.0"}


def test_vendored_files_are_those_of_their_packages() -> None:
    listed = json.loads((PAGE / "vendor" / "versions.json").read_text())
    assert {entry["package"] for entry in listed} == {"preact", "@preact/signals-core", "htm"}
    for entry in listed:
        content = (PAGE / "vendor" / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["file"]
        assert entry["licence"] in LICENCES
        assert re.fullmatch(r"\d+\.\d+\.\d+", entry["version"])
    # The types that the page wrote itself, because the package's need all of the package.
    own = {"versions.json", "preact.d.mts", "htm.d.mts"}
    assert {path.name for path in (PAGE / "vendor").iterdir()} == {entry["file"] for entry in listed} | own


def test_every_licence_is_there() -> None:
    for entry in json.loads((PAGE / "vendor" / "versions.json").read_text()):
        name = entry["file"].partition(".")[0]
        assert "Licen" in (PAGE / "vendor" / f"{name}.LICENSE").read_text() + "License"
        assert (PAGE / "vendor" / f"{name}.LICENSE").stat().st_size > 1000


def test_the_page_is_small() -> None:
    """As it is sent, compressed; its files hold their comments, because nothing is built."""
    loaded = [path for path in PAGE.rglob("*") if path.suffix in {".html", ".css", ".js", ".mjs", ".svg"}]
    assert len(loaded) > 30
    assert sum(len(gzip.compress(path.read_bytes())) for path in loaded) < MAX_TRANSFERRED
    assert sum(path.stat().st_size for path in loaded) < MAX_READ


def test_the_pictures_of_the_page_are_small() -> None:
    pictures = list((PAGE.parents[2] / "docs" / "images").glob("studio-*.webp"))
    assert len(pictures) == 3
    assert all(picture.stat().st_size < 150_000 for picture in pictures)


def test_nothing_is_inline() -> None:
    """The content security policy allows neither inline scripts nor inline styles."""
    html = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert "<style" not in html
    for path in [PAGE / "index.html", *CODE]:
        assert re.findall(r"\sstyle=|\son\w+=\"|javascript:", path.read_text()) == [], path.name


def test_no_other_host_is_named() -> None:
    for path in OWN:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"(?:https?:|wss?:)?//[\w-]+\.[\w.]+", text) == [], path.name


def test_no_module_is_long_and_no_folder_is_full() -> None:
    assert {
        path.name for path in OWN if path.suffix != ".css" and len(path.read_text().splitlines()) > MAX_LINES
    } == set()
    for folder in {path.parent for path in OWN}:
        assert len([path for path in folder.iterdir() if path.is_file()]) <= MAX_FILES_IN_A_FOLDER, folder.name


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PAGE)))
def test_every_import_exists(path: object) -> None:
    assert hasattr(path, "read_text")
    for name in re.findall(r"""(?:from|import) ["'](\.[^"']+)["']""", path.read_text()):
        assert (path.parent / name).resolve().is_file(), name  # type: ignore[attr-defined]


def test_no_module_imports_a_bare_name() -> None:
    """Without an import map, which would be an inline script, a browser finds only paths."""
    for path in [*CODE, *(PAGE / "vendor").glob("*.mjs")]:
        found = re.findall(
            r"""^\s*(?:import|export)\b[^;"'`]*?from\s*["']([^."'/][^"']*)["']""", path.read_text(), re.M
        )
        assert found == [], path.name
