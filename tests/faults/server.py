"""A server in a process of its own, always at the same address, that a test kills, stops and starts again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import masklet
from tests.faults.template import ForkedServer, ServerTemplate
from tests.support.streams import free_port

_PROGRAM = "import typer\nfrom masklet_server.cli import serve\napp = typer.Typer()\napp.command()(serve)\napp()"
_SECONDS_TO_START = 120.0


class ServerProcess:
    """A real ``masklet serve`` with nano on a CPU. Use it as a context manager.

    Args:
        arguments: Further arguments of ``masklet serve``.
        model: Of nano, another size of the input costs less.
        template: Forks the server, so that it starts sooner.

    Attributes:
        address: Where it listens, before and after a restart.
        starts: How often it was started.
    """

    def __init__(self, *arguments: str, model: str = "nano", template: ServerTemplate | None = None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.starts = 0
        self._arguments = (
            *("--address", self.address, "--model", model, "--device", "cpu", "--dtype", "float32"),
            *arguments,
        )
        self._template = template
        self._log = tempfile.NamedTemporaryFile("w+", prefix="masklet-faults-", suffix=".log")  # noqa: SIM115
        self._process: subprocess.Popen[str] | ForkedServer | None = None

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._log.close()

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._process is not None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        if self._template is None:
            self._process = self._started()
        else:
            self._process = self._template.fork(self._arguments, Path(self._log.name))
        self.starts += 1
        self._wait()

    def _started(self) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKLET_")}
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *self._arguments],
            stdout=self._log,
            stderr=self._log,
            text=True,
            env={**clean, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, f"the server ended:\n{self.log()}"
            with contextlib.suppress(masklet.MaskletError), masklet.Client(self.address, connect_timeout=0) as client:
                if client.health():
                    return
            time.sleep(0.1)
        raise AssertionError(f"the server did not start:\n{self.log()}")

    def kill(self) -> None:
        """End it without a warning (SIGKILL)."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), and wait until it has."""
        self._end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """Id of its process while it runs."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def freeze(self, seconds: float) -> None:
        """Stop it for a while (SIGSTOP, SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def log(self) -> str:
        """What it has logged."""
        return Path(self._log.name).read_text()
