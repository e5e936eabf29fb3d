"""The architecture, read from the code: imports run one way, rooms are small, and public things say what they are."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = "masklet_server"

MAX_FILES_IN_A_FOLDER = 14
MAX_LINES_OF_A_MODULE = 400
MIN_WORDS_OF_A_DOCSTRING = 5

# The folders of the server and of the client, and the ones that each may import from; a folder's own folders belong to
# it. Modules at the top (settings, metrics, assembly; errors, prompts, rle) are in none, and free.
SERVER_FOLDERS = {
    "rpc": {"session", "video", "engine", "masks", "models", "fetching", "settings", "budgets", "snapshots"},
    "settings": {"session", "video", "fetching", "budgets"},
    "session": {"video", "engine", "masks", "models", "budgets", "snapshots"},
    "snapshots": set[str](),
    "video": {"fetching", "budgets"},
    "engine": {"masks", "models", "budgets"},
    "masks": {"budgets"},
    "budgets": set[str](),
    "models": {"fetching"},
    "fetching": set[str](),
}
CLIENT_FOLDERS = {
    "_protocol": set[str](),
    "_media": {"_protocol"},
    "_transport": {"_media", "_protocol"},
    "_sync": {"_transport", "_media", "_protocol"},
    "_aio": {"_sync", "_transport", "_media", "_protocol"},
    "compat": {"_sync", "_media", "_protocol"},
    "export": {"_media", "_protocol"},
    "importing": {"export", "_media", "_protocol"},
    "integrations": {"batch", "importing", "compat", "export", "_media", "_protocol"},
    "batch": {"importing", "export", "_sync", "_media", "_protocol"},
    "cli": {"batch", "integrations", "importing", "export", "_sync", "_media", "_protocol"},
}
# The studio's: a client like any other program, which imports what programs may, and of the client's folders these.
STUDIO = "masklet_studio"
STUDIO_FOLDERS = {
    "session": {"project", "frames"},
    "live": {"session", "project", "frames"},
    "exporting": {"project", "frames"},
    "project": set[str](),
    "frames": set[str](),
}
STUDIO_IMPORTS_OF_CLIENT = {"cli", "export", "_aio", "_media", "_protocol"}
# The cluster's: it uses what the server has around calls, and nothing of what computes; a worker is a whole server.
CLUSTER = "masklet_cluster"
CLUSTER_FOLDERS = {
    "cli": {"gateway", "worker", "placement"},
    "gateway": {"placement"},
    "worker": {"placement"},
    "placement": set[str](),
}
CLUSTER_IMPORTS_OF_SERVER = {"rpc", "settings", "session", "budgets", "cli"}
# The same among the folders of a folder, whose own name stands for the modules at its top.
WITHIN = {
    "engine.serving": {"engine.network", "engine.memory"},
    "engine.network": set[str](),
    "engine.memory": set[str](),
    "rpc.receiving": set[str](),
    "video.sources": {"video.sandbox", "video"},
    "video.sandbox": {"video"},
    "video.worker": {"video"},
    "session.automatic": {"session", "session.restoring"},
    "session.on_request": {"session"},
    "session.resuming": {"session", "session.restoring"},
    "session.restoring": {"session"},
}
# What a decoding process loads of the server: these two and what they import, which is nothing of another folder.
WORKER_IMPORTS = {"masklet_server.video.messages", "masklet_server.video.formats"}
# What server and client read files with. It imports these packages, and nothing of either.
MEDIA = "masklet_media"
MEDIA_IMPORTS = {"av", "PIL"}
# Its folder for what a decoding process gives up, which imports neither.
CONFINEMENT = "confinement"
# What is said on a stream is worked out without saying it.
INPUT_AND_OUTPUT = {"asyncio", "av", "grpc", "os", "pathlib", "queue", "socket", "subprocess", "threading"}


@cache
def modules() -> dict[str, Path]:
    """The file of every module of the client and the server by its dotted name; generated ones are left out."""
    found = {}
    for folder in ("client", "server"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if parts[:2] != ("masklet", "v1"):
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def imported(name: str) -> Iterator[str]:
    """What a module imports, wherever it does so: at its top, within functions, for type checkers only."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                yield within if within in modules() else node.module


@cache
def imports() -> dict[str, set[str]]:
    """Which modules of this repository each one imports."""
    return {name: {other for other in imported(name) if other in modules()} for name in modules()}


def folder_of(name: str, depth: int = 1) -> str:
    """The folder of a module from its package on, at most so deep: ``video`` or ``video.sources``, "" at the top."""
    package = modules()[name].relative_to(ROOT).parts[1]
    folders = modules()[name].parent.relative_to(ROOT).parts[2:]
    assert package == name.partition(".")[0]
    return ".".join(folders[:depth])


def arrows(package: str, depth: int = 1) -> Iterator[tuple[str, str, str]]:
    """Every import within a package from one folder to another: both folders, and what to say of it."""
    for name, others in imports().items():
        for other in others:
            if name.partition(".")[0] == other.partition(".")[0] == package:
                folder, other_folder = folder_of(name, depth), folder_of(other, depth)
                if folder != other_folder:
                    yield folder, other_folder, f"{name} imports {other}"


def below(folder: str) -> set[str]:
    """The modules of a folder of the server."""
    return {name for name in modules() if name.startswith(f"{SERVER}.{folder}.")}


def test_the_reader_of_imports_sees_them() -> None:
    """Every other test here would pass if it saw none."""
    assert "masklet_server.settings" in imports()["masklet_server.assembly"]
    assert "masklet.errors" in imports()["masklet_server.settings.settings"]
    assert len(list(arrows(SERVER, depth=2))) > 100
    assert len(list(arrows("masklet"))) > 50


def test_no_import_circles() -> None:
    try:
        graphlib.TopologicalSorter(imports()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_client_imports_nothing_of_the_server() -> None:
    for name in modules():
        if not name.startswith((SERVER, CLUSTER)):
            assert [other for other in imported(name) if other.partition(".")[0] == SERVER] == [], name


@pytest.mark.parametrize(
    ("package", "allowed"),
    [(SERVER, SERVER_FOLDERS), ("masklet", CLIENT_FOLDERS), (STUDIO, STUDIO_FOLDERS), (CLUSTER, CLUSTER_FOLDERS)],
)
def test_imports_between_folders_run_one_way(package: str, allowed: dict[str, set[str]]) -> None:
    wrong = [
        what
        for folder, other, what in arrows(package)
        if folder in allowed and other in allowed and other not in allowed[folder]
    ]
    assert wrong == []
    graphlib.TopologicalSorter(allowed).prepare()


def test_imports_within_a_folder_run_one_way() -> None:
    wrong = [
        what
        for folder, other, what in arrows(SERVER, depth=2)
        if folder in WITHIN and folder.partition(".")[0] == other.partition(".")[0] and other not in WITHIN[folder]
    ]
    assert wrong == []


def test_no_folder_escapes_the_rules() -> None:
    """As one would that gets another name."""
    folders = {folder_of(name) for name in modules() if name.startswith(SERVER)}
    assert folders - {"", "cli"} == SERVER_FOLDERS.keys()
    inner = {folder_of(name, 2) for name in modules() if name.startswith(SERVER)}
    assert {folder for folder in inner if "." in folder} == WITHIN.keys()
    client = [name for name in modules() if not name.startswith((SERVER, STUDIO, MEDIA, CLUSTER))]
    assert {folder_of(name) for name in client} - {""} == CLIENT_FOLDERS.keys()
    assert {folder_of(name) for name in modules() if name.startswith(STUDIO)} - {""} == STUDIO_FOLDERS.keys()
    assert {folder_of(name) for name in modules() if name.startswith(CLUSTER)} - {""} <= CLUSTER_FOLDERS.keys()
    assert {folder_of(name) for name in modules() if name.startswith(MEDIA)} - {""} == {CONFINEMENT}


def test_the_studio_is_a_program_that_uses_the_client() -> None:
    taken = {
        folder_of(other)
        for name, others in imports().items()
        if name.partition(".")[0] == STUDIO
        for other in others
        if other.partition(".")[0] == "masklet"
    }
    assert taken - {""} <= STUDIO_IMPORTS_OF_CLIENT
    users = {name for name, others in imports().items() if any(other.startswith(STUDIO) for other in others)}
    assert users, "the reader of imports sees none"
    assert {name for name in users if not name.startswith(STUDIO)} == set()


def test_nothing_needs_the_cluster_and_the_cluster_needs_little_of_the_server() -> None:
    users = {name for name, others in imports().items() if any(other.startswith(CLUSTER) for other in others)}
    assert users, "the reader of imports sees none"
    assert {name for name in users if not name.startswith(CLUSTER)} == set()
    taken = {folder_of(other) for name in users for other in imports()[name] if other.partition(".")[0] == SERVER}
    assert taken - {""} <= CLUSTER_IMPORTS_OF_SERVER


def test_the_decoding_process_loads_little_of_the_server() -> None:
    known, found = set[str](), set(WORKER_IMPORTS)
    while found != known:
        known, found = found, found.union(*(imports()[name] for name in found))
    assert {folder_of(name, 2) for name in found} == {"video"}
    for name in below("video.worker"):
        media = {other for other in imports()[name] if other.partition(".")[0] == MEDIA}
        assert imports()[name] - below("video.worker") - media <= found, name


def test_what_reads_files_imports_neither_the_client_nor_the_server() -> None:
    names = [name for name in modules() if name.partition(".")[0] == MEDIA]
    assert len(names) > 4
    for name in names:
        roots = {other.partition(".")[0] for other in imported(name)}
        assert roots - sys.stdlib_module_names <= MEDIA_IMPORTS | {MEDIA}, name


def test_what_confines_a_process_needs_no_library() -> None:
    names = [name for name in modules() if name.startswith(f"{MEDIA}.{CONFINEMENT}.")]
    assert len(names) > 3
    for name in names:
        others = {other for other in imported(name) if other.partition(".")[0] not in sys.stdlib_module_names}
        assert {other for other in others if not other.startswith(f"{MEDIA}.{CONFINEMENT}")} == set(), name


def test_the_clients_protocol_does_no_input_or_output() -> None:
    names = [name for name in modules() if name.startswith("masklet._protocol.")]
    assert len(names) > 5
    for name in names:
        assert {other.partition(".")[0] for other in imported(name)} & INPUT_AND_OUTPUT == set(), name


def test_no_folder_has_many_files() -> None:
    files = defaultdict(list)
    for path in modules().values():
        files[path.parent.relative_to(ROOT)].append(path.name)
    crowded = {str(folder): len(names) for folder, names in files.items() if len(names) > MAX_FILES_IN_A_FOLDER}
    assert crowded == {}


def test_no_module_is_long() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES_OF_A_MODULE} == {}


def public(node: ast.AST, where: str) -> Iterator[tuple[str, str | None]]:
    """Every public class, function and method under a node, with its docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield f"{where}.{child.name}", ast.get_docstring(child)
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{where}.{child.name}")


def test_docstrings_say_something() -> None:
    """A public thing without one is ruff's to find."""
    short = []
    for name in modules():
        described = [(name, ast.get_docstring(tree(name))), *public(tree(name), name)]
        short += [
            f"{where}: {text}" for where, text in described if text and len(text.split()) < MIN_WORDS_OF_A_DOCSTRING
        ]
    assert short == []
