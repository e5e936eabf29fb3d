"""The examples in TypeScript and C++, built and run as their readers do it, where Node.js and gRPC for C++ are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import masklet

ROOT = Path(__file__).parents[2]
# What npm says where its registry cannot be reached.
NO_REGISTRY = re.compile(r"E(AI_AGAIN|NOTFOUND|CONNREFUSED|CONNRESET|TIMEDOUT)|network")
# Installing and compiling take minutes, and need npm's registry: `scripts/test -m soak` runs them.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.soak]


def run(*command: object, folder: Path) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


def missing(programs: Sequence[str]) -> str:
    return ", ".join(program for program in programs if shutil.which(program) is None)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What of the repository the examples need, so that nothing is built in the repository itself."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "protos", folder / "protos")
    ignored = shutil.ignore_patterns("node_modules", "build", "gen")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def expected(nano_server: str) -> list[str]:
    """What each example prints, by the Python client."""
    lines = []
    with masklet.Client(nano_server) as client:
        click = masklet.Prompt(object_id=1, point_coords=[[345, 400]])
        for frame in client.track(ROOT / "examples/bunny.mp4", click):
            found = frame.objects[1]
            where = "not in the picture"
            if found.box is not None:
                where = f"{found.area} pixels in {','.join(str(round(side)) for side in found.box)}"
            lines.append(f"frame {frame.frame_index}, object 1: {where}")
    assert sum("pixels" in line for line in lines) > len(lines) / 2
    return [*lines, f"done after {len(lines)} frames"]


@pytest.fixture(scope="module")
def node(clone: Path) -> Path:
    """The folder of the TypeScript examples, installed and compiled."""
    if absent := missing(["node", "npm"]):
        pytest.skip(f"not installed: {absent}")
    folder = clone / "examples/node"
    installed = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    if installed.returncode and NO_REGISTRY.search(installed.stderr):
        pytest.skip("npm cannot reach its registry")
    assert installed.returncode == 0, installed.stderr
    run("npm", "run", "--silent", "build", folder=folder)
    return folder


@pytest.mark.parametrize("client", ["grpc-js", "connect"])
def test_typescript(client: str, node: Path, nano_server: str, expected: list[str]) -> None:
    printed = run("npm", "run", "--silent", client, "--", nano_server, folder=node)
    assert printed.splitlines() == expected


def test_cpp(clone: Path, nano_server: str, expected: list[str]) -> None:
    if absent := missing(["cmake", "g++", "protoc", "grpc_cpp_plugin", "pkg-config"]):
        pytest.skip(f"not installed: {absent}")
    if subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:
        pytest.skip("not installed: libgrpc++-dev, libprotobuf-dev")
    folder = clone / "examples/cpp"
    run("cmake", "-S", ".", "-B", "build", folder=folder)
    run("cmake", "--build", "build", "-j2", folder=folder)
    assert run("build/track", nano_server, "../bunny.mp4", folder=folder).splitlines() == expected
