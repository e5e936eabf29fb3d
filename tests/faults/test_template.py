"""Servers that are forked from a template are servers as any other, and do not outlive their test."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.history import violations
from tests.faults.server import ServerProcess
from tests.faults.streams import run
from tests.faults.template import ServerTemplate

pytestmark = pytest.mark.slow
# A program that is killed while its servers run.
PROGRAM = """
import time
from tests.faults.server import ServerProcess
from tests.faults.template import ServerTemplate
with ServerTemplate() as template, ServerProcess(model="nano@64", template=template) as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


def test_a_forked_server_serves_is_killed_and_starts_again() -> None:
    with ServerTemplate() as template, ServerProcess(model="nano@64", template=template) as server:
        first = server.pid
        assert violations(run("packets", server.address)[0]) == []
        server.kill()
        assert not Path(f"/proc/{first}").exists()
        server.start()
        assert server.pid != first
        assert violations(run("packets", server.address)[0]) == []
        server.terminate()
        assert "stopping; running requests have" in server.log()


def test_a_killed_test_leaves_no_server() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        server = Path(f"/proc/{int(program.stdout.readline())}")
        assert server.exists()
        program.kill()
    deadline = time.monotonic() + 30
    while server.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not server.exists()
