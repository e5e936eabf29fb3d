"""Examples run as they stand, on few frames."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_refine_shows_areas_before_and_after(nano_server: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "refine.py"), nano_server, "5"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [re.fullmatch(r"frame (\d+): (\d+) pixels(?:, then (\d+))?", line) for line in done.stdout.splitlines()]
    found = [line.groups() for line in lines if line is not None]
    assert [int(index) for index, _, _ in found] == [0, 1, 2, 3, 4]
    assert [after is not None for _, _, after in found] == [False, True, True, True, True]
    assert any(before != after for _, before, after in found[1:]), "the clicks changed nothing"
