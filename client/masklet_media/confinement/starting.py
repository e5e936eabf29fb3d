"""How a Python process is started that will confine itself: with what Python needs, and nothing of its starter's."""

from __future__ import annotations

import os
import sys

_PASSED_ON = ("PYTHONHOME", "LD_LIBRARY_PATH")


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module. The site module is left out, because `environment` says where packages are."""
    return [sys.executable, "-s", "-S", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment of decoding processes."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **passed,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONSAFEPATH": "1",
        "LC_ALL": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",  # each thread's arena would count against the address space
        # NumPy's libraries start no threads, which would keep the rights that the process gives up.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
