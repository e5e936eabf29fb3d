"""Look for bytes that break a parser, guided by coverage: ``python -m tests.hostile.fuzz run_lengths -runs=100000``.

Needs atheris (``pip install atheris``), which ``scripts/install`` leaves out. Further arguments are libFuzzer's.
What it finds goes into `tests.hostile.parsers.SEEDS`.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Fuzz the parser that is named first."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["masklet", "masklet_server"]):
        parsers = importlib.import_module("tests.hostile.parsers")
    if len(sys.argv) < 2 or sys.argv[1] not in parsers.PARSERS:
        sys.exit(f"name one of {', '.join(parsers.PARSERS)}")
    name = sys.argv.pop(1)
    corpus = Path(tempfile.mkdtemp())
    for number, seed in enumerate(parsers.SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], parsers.PARSERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
