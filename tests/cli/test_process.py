"""What `masklet serve` sets for its own process."""

from __future__ import annotations

import subprocess
import sys

# The server is replaced by one that says what its process looks like, and ends.
PROGRAM = """
import contextlib, ctypes, gc, resource
from masklet_server import assembly

@contextlib.asynccontextmanager
async def running_server(settings):
    print("dumpable", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "descriptors", resource.getrlimit(7)[0])
    raise SystemExit(0)
    yield

assembly.running_server = running_server
resource.setrlimit(7, (256, 4096))
from masklet.cli import main
import sys
sys.argv = ["masklet", "serve"]
main()
"""


def test_memory_is_hidden_and_descriptors_are_many() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "dumpable 0 descriptors 4096\n", done.stderr


def test_what_was_loaded_is_not_collected_again() -> None:
    program = (
        "import gc; from masklet_server.cli.process import collect_less; collect_less(); print(gc.get_freeze_count())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 1000
