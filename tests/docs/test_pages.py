"""What the documentation points to exists: files, modules, names, links, anchors."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path

import pytest

from tests.docs import markdown
from tests.docs.markdown import ROOT, name_of

PAGES = markdown.pages()
# Made by others than git: they are mentioned, and appear when something is run.
MADE = {"demo/overlay.mp4", "demo/masks", "demo/result.json", "build/docs", "build/site", "build/site/index.html"}
_FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
_PATH = re.compile(rf"(?:(?:{'|'.join(map(re.escape, _FOLDERS))})/[\w./-]+|\.ci/\w+)")
_DOTTED = re.compile(r"(?:masklet|masklet_server|benchmarks|training)(?:\.\w+)+")
# Folders of the server and files in them, as the explanations shorten them.
_SHORT = re.compile(r"(?:rpc|session|video|engine|masks|models|fetching)/[\w./]+\.py|\b\w+\.py\b")
IDS = [name_of(page) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_and_anchors_resolve(page: Path) -> None:
    for link in markdown.links(page):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in markdown.anchors(target), f"{link}: {name_of(target)} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_paths_exist(page: Path) -> None:
    mentioned = {path for word in markdown.words_in_code(page) if (path := _path_in(word))}
    for block in markdown.blocks(page):
        mentioned |= {path for word in block.text.split() if (path := _path_in(word.strip("\"'();,")))}
    missing = {path for path in mentioned if not (ROOT / path).exists()} - MADE
    assert not missing


def _path_in(word: str) -> str:
    """The path that the word is, or begins with; empty if it is none."""
    match = _PATH.match(word)
    return match[0].rstrip(".") if match else ""


@functools.cache
def _python_files() -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/**/*.py") if ".venv" not in path.parts]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_prose_fits_into_120_columns(page: Path) -> None:
    in_code, too_long = False, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.lstrip().startswith("|") and len(line) > 120:
            too_long.append(f"line {number}: {len(line)} characters")
    assert not too_long


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_names_of_files_exist(page: Path) -> None:
    for word in markdown.words_in_code(page) | set(re.findall(r"\[([\w/.\\]+\.py)\]", markdown.prose(page))):
        name = word.replace("\\", "")
        if _SHORT.fullmatch(name):
            assert any(file == name or file.endswith(f"/{name}") for file in _python_files()), f"there is no {name}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_dotted_names_exist(page: Path) -> None:
    words = markdown.words_in_code(page) | {word for block in markdown.blocks(page) for word in block.text.split()}
    for word in words:
        for name in _DOTTED.findall(word):
            # `masklet.v1` is also the contract's package, and files begin so.
            if not re.search(r"\.(toml|safetensors|yaml|proto|md)$|^masklet\.v1", name):
                _resolve(name)


def _resolve(name: str) -> None:
    """Import as much of the name as are modules, and look the rest up."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            assert hasattr(value, part), f"{name} does not exist"
            value = getattr(value, part)
        return
    pytest.fail(f"{name} does not exist")


def test_the_readme_is_short() -> None:
    words = (ROOT / "README.md").read_text().split()
    assert len(words) <= 600


def test_the_picture_is_small() -> None:
    assert (ROOT / "docs" / "images" / "bunny-strip.jpg").stat().st_size < 300_000


def test_every_page_is_in_the_navigation() -> None:
    """The pages that are generated are named there, too."""
    from docs.generate.__main__ import GENERATED

    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    decisions = {name for name in written if name.startswith("explanation/decisions/")} - {
        "explanation/decisions/index.md"
    }
    assert named == (written - decisions) | set(GENERATED)
    index = (ROOT / "docs" / "explanation" / "decisions" / "index.md").read_text()
    listed = re.findall(r"\(([\w/-]+\.md)\)", index)
    assert {f"explanation/decisions/{name}" for name in listed} == decisions


def test_no_page_knows_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:root|work|home)/", page.read_text()), name_of(page)


@pytest.mark.parametrize("file", ["client/masklet/_embedded.py", "server/masklet_server/cli/doctor.py"])
def test_pages_that_messages_name_exist(file: str) -> None:
    named = re.findall(r"https://github.com/masklet/masklet/blob/main/([\w./-]+)#([\w-]+)", (ROOT / file).read_text())
    assert named
    assert all(anchor in markdown.anchors(ROOT / page) for page, anchor in named)
