"""`scripts/test --fast` says something about every package."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import SLOW_FOLDERS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", SLOW_FOLDERS)
def test_a_slow_folder_has_fast_tests(folder: str) -> None:
    files = sorted((ROOT / "tests" / folder).glob("test_*.py"))
    assert files
    assert [path.name for path in files if "pytest.mark.fast" in path.read_text()] != []


def test_the_script_explains_itself() -> None:
    shown = subprocess.run([ROOT / "scripts" / "test", "--help"], capture_output=True, text=True, check=True)
    assert "--fast" in shown.stdout
    assert shown.stderr == ""
