"""`scripts/install`, with a Python that notes what it is asked and installs nothing."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PYTHON = """#!/bin/bash
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; touch "$3/new" ;;
    "-m pip") echo "${{@:3}}" >>"{log}" ;;
    *) exec {python} "$@" ;;
esac
"""
OTHER_VERSION = '#!/bin/bash\necho "3 9 cpython"\n'


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the script needs."""
    tree = tmp_path / "masklet"
    (tree / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/install"):
        shutil.copy(REPOSITORY / name, tree / name)
    return tree


def install(tree: Path) -> str:
    """Run the script with the Python that only takes notes; what it printed."""
    python = executable(tree.parent / "python", PYTHON.format(log=tree.parent / "log", python=sys.executable))
    environment = {**os.environ, "PYTHON": str(python)}
    done = subprocess.run([tree / "scripts" / "install"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("old", [OTHER_VERSION, "#!/no/such/python\n"])
def test_a_venv_of_another_python_is_made_anew(tree: Path, old: str) -> None:
    executable(tree / ".venv" / "bin" / "python", old)
    (tree / ".venv" / "old").touch()
    assert "making .venv anew" in install(tree)
    assert (tree / ".venv" / "new").exists()
    assert not (tree / ".venv" / "old").exists()


def test_a_venv_of_the_same_python_is_kept(tree: Path) -> None:
    install(tree)
    (tree / ".venv" / "old").touch()
    assert "anew" not in install(tree)
    assert (tree / ".venv" / "old").exists()


def test_it_says_what_it_does_before_what_takes_long(tree: Path) -> None:
    shown = install(tree)
    assert [part in shown for part in ("1 of 4: pip", "2 of 4: torch", "3 of 4: masklet", "4 of 4: sam2")] == [True] * 4
    asked = (tree.parent / "log").read_text()
    (torch,) = [line for line in asked.splitlines() if line.endswith("install torch")]
    assert "--quiet" not in torch  # pip itself shows how far the largest download is
