"""Which part of `video` may import which: read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import masklet_server.video
from tests.support.processes import HEAVY_IMPORTS

VIDEO = Path(masklet_server.video.__file__).parent
PREFIX = "masklet_server.video"
# Modules that both sides of the sandbox import, and of which it is asked that they need nothing else of the server.
SHARED = {"formats", "info", "limits", "messages", "schema"}


def imports_of(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_module(node.module, alias.name))


def is_module(package: str, name: str) -> bool:
    place = VIDEO.parent.parent.joinpath(*package.split("."), name)
    return place.is_dir() or place.with_suffix(".py").is_file()


def ours(path: Path) -> set[str]:
    """Modules of masklet that a file imports, packages left out."""
    found = {name for name in imports_of(path) if name.split(".")[0] in ("masklet", "masklet_server")}
    return {name for name in found if not (VIDEO.parent.parent.joinpath(*name.split("."))).is_dir()}


def files(folder: str) -> list[Path]:
    return sorted((VIDEO / folder).glob("*.py"))


@pytest.mark.parametrize("path", files("worker"), ids=lambda path: path.stem)
def test_the_worker_imports_nothing_of_the_server_but_what_both_sides_share(path: Path) -> None:
    allowed = {f"{PREFIX}.{name}" for name in SHARED}
    others = {name for name in ours(path) if not name.startswith(f"{PREFIX}.worker.")}
    assert others <= allowed


@pytest.mark.parametrize("name", sorted(SHARED))
def test_what_both_sides_share_imports_nothing_else_of_the_server(name: str) -> None:
    assert ours(VIDEO / f"{name}.py") <= {f"{PREFIX}.{other}" for other in SHARED}
    assert not HEAVY_IMPORTS & {one.split(".")[0] for one in imports_of(VIDEO / f"{name}.py")}


@pytest.mark.parametrize("path", files("sandbox"), ids=lambda path: path.stem)
def test_the_sandbox_imports_neither_sources_nor_the_worker(path: Path) -> None:
    assert not [name for name in ours(path) if name.startswith((f"{PREFIX}.sources", f"{PREFIX}.worker"))]


@pytest.mark.parametrize("path", files("sources"), ids=lambda path: path.stem)
def test_sources_do_not_import_the_worker(path: Path) -> None:
    assert not [name for name in ours(path) if name.startswith(f"{PREFIX}.worker")]


@pytest.mark.parametrize("path", files("."), ids=lambda path: path.stem)
def test_values_import_none_of_the_folders(path: Path) -> None:
    folders = tuple(f"{PREFIX}.{folder}" for folder in ("sources", "sandbox", "worker"))
    assert not [name for name in ours(path) if name.startswith(folders)]


def test_what_the_fork_server_has_imported_is_all_of_masklet_that_it_may() -> None:
    """As the interpreter sees it, with all that imports bring along."""
    program = (
        "import sys, masklet_server.video.worker.fork_server_main\n"
        f"print(*sorted({HEAVY_IMPORTS} & set(sys.modules)))\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in ('masklet', 'masklet_server')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    heavy, _, modules = done.stdout.partition("\n")
    assert heavy == ""
    worker = {f"{PREFIX}.worker.{path.stem}" for path in files("worker")}
    packages = {"masklet_server", PREFIX, f"{PREFIX}.worker"}
    assert set(modules.split()) - worker - packages == {f"{PREFIX}.{name}" for name in SHARED}
