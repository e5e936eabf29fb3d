"""Every block of code that a reader may copy is run as it stands, against a real server with nano.

A block that cannot be run here has a comment before it, `<!-- not run: it needs a camera -->`. Such blocks are checked
as far as they can be: Python is compiled, and every `masklet ...` command must be one that the command line takes.
Blocks of one page run in order.

Two things differ from a reader's machine, so that this takes seconds: `examples/bunny.mp4` is the clip's first frames,
and the server is one that runs already. So commands find it without `--server`, and `masklet serve` only prints its
settings.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from docs.generate.command_line import commands, options
from tests.docs import markdown
from tests.docs.markdown import ROOT, Block
from tests.support import clips

FRAMES = 8
ADDRESS = "127.0.0.1:50051"
BLOCKS = [block for page in markdown.pages() for block in markdown.blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language == "bash"]
LANGUAGES = {"xml", "yaml", "python", "bash", "text", "protobuf", ""}

# Stands in for the command `masklet`: adds the address of the tests' server where the reader starts one.
_SHIM = """#!{bash}
case "$1" in
    serve) exec {masklet} "$@" --print-config >/dev/null ;;
    track|batch|segment|info|bench) case "$*" in *--server*) ;; *) set -- "$@" --server {address} ;; esac ;;
esac
exec {masklet} "$@"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, nano_server: str) -> Path:
    """What lies in the reader's folder."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").mkdir()
    (folder / "examples" / "bunny.mp4").write_bytes(_first_frames())
    _picture().save(folder / "photo.jpg")
    (folder / "docs" / "images").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "images" / "bunny-strip.jpg", folder / "docs" / "images")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    (folder / "bin").mkdir()
    shim = folder / "bin" / "masklet"
    shim.write_text(
        _SHIM.format(bash="/bin/bash", masklet=f"{sys.executable} -m tests.docs.masklet", address=nano_server)
    )
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    return folder


def _picture() -> Image.Image:
    with av.open(str(ROOT / "examples" / "bunny.mp4")) as video:
        return Image.fromarray(next(video.decode(video=0)).to_ndarray(format="rgb24").astype(np.uint8))


def _first_frames() -> bytes:
    with av.open(str(ROOT / "examples" / "bunny.mp4")) as video:
        frames = [
            frame.to_ndarray(format="rgb24") for frame, _ in zip(video.decode(video=0), range(FRAMES), strict=False)
        ]
    height, width = frames[0].shape[:2]
    return clips.make_clip("mp4", "libx264", size=(width, height), pictures=[f.astype(np.uint8) for f in frames])


def pages_with(blocks: list[Block]) -> list[Any]:
    """The pages that have blocks of the kind which can be run; all but the first page that people read are slow."""
    pages = dict.fromkeys(block.page for block in blocks if block.why_not_run is None)
    return [pytest.param(page, marks=() if page == "README.md" else pytest.mark.slow, id=page) for page in pages]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(PYTHON))
def test_python_runs(page: str, folder: Path, nano_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for block in PYTHON:
        if block.page == page and block.why_not_run is None:
            code = block.text.replace(ADDRESS, nano_server)
            exec(compile(code, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(SHELL))
def test_shell_runs(page: str, folder: Path, nano_server: str) -> None:
    paths = [str(folder / "bin"), os.environ["PATH"]]
    sources = [str(ROOT), str(ROOT / "client"), str(ROOT / "server")]
    environment = {**os.environ, "PATH": os.pathsep.join(paths), "PYTHONPATH": os.pathsep.join(sources)}
    for block in SHELL:
        if block.page == page and block.why_not_run is None:
            script = "set -euo pipefail\n" + block.text.replace(ADDRESS, nano_server) + "\nwait\n"
            done = subprocess.run(
                ["/bin/bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block}:\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    ast.parse(block.text, str(block))


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_ones_that_the_command_line_takes(block: Block) -> None:
    subprocess.run(["/bin/bash", "-n", "-c", block.text], check=True)
    known = commands()
    for words in masklet_commands(block.text):
        name = max((name for name in known if words[: len(name.split())] == name.split()), key=len)
        assert name != "masklet" or set(words[1:]) <= {"--version", "--help"}, words
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options(known[name]), f"{block}: {name} {given - options(known[name])}"


def masklet_commands(script: str) -> list[list[str]]:
    """The words of each command of `masklet` in a script."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == "masklet" and (start == 0 or words[start - 1] in {"|", "&&"} or "=" in words[start - 1]):
                rest = words[start:]
                end = next((i for i, word in enumerate(rest) if word in {"|", "&&", "&", ">"}), len(rest))
                found.append(rest[:end])
    return found


def test_blocks_are_of_known_languages() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES


def test_yaml_can_be_read() -> None:
    blocks = [block for block in BLOCKS if block.language == "yaml"]
    assert blocks
    for block in blocks:
        assert isinstance(yaml.safe_load(block.text), dict)


def test_most_blocks_are_run() -> None:
    """A marker is the exception."""
    runnable = [block for block in (*PYTHON, *SHELL) if block.why_not_run is None]
    assert len(runnable) > 20
    assert all(re.match(r"(it|they) ", block.why_not_run) for block in BLOCKS if block.why_not_run is not None)
