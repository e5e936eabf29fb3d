"""Gateways and workers in processes of their own."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import masklet
from tests.support.gateway import GatewayThread
from tests.support.streams import free_port

# What takes two seconds to load. Workers that start are copies of a process that has it.
_PRELOADED = ["masklet_server.cli", "masklet_server.assembly", "cv2", "benchmarks.gateway.failover"]
_SECONDS_TO_START = 120.0
_PR_SET_PDEATHSIG = 1


def gateway_process(pipe: Pipe, servers: Sequence[str]) -> None:
    """Run a gateway; says its address, and then its processor time whenever it is asked."""
    with GatewayThread(servers) as gateway:
        pipe.send(gateway.address)
        while pipe.recv():
            used = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(used.ru_utime + used.ru_stime)


class Child:
    """A process that says its address first.

    Args:
        target: What it does. It gets a pipe, and the arguments.
        arguments: The arguments.

    Attributes:
        address: What it has said.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        self.address: str = self.pipe.recv()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    def asked(self) -> float:
        """What it answers."""
        self.pipe.send(True)
        answer: float = self.pipe.recv()
        return answer

    def close(self) -> None:
        """Let it end."""
        self.pipe.send(False)
        self._process.join(30)


def workers_context() -> ForkServerContext:
    """Starts workers in tenths of a second: as copies of one process, which has loaded everything, without threads."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _serve(arguments: Sequence[str], log: str) -> None:
    """What a worker does: `masklet serve`."""
    import typer

    from masklet_server.cli import serve

    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no worker outlives a benchmark that was killed
    for name in [name for name in os.environ if name.startswith("MASKLET_")]:
        del os.environ[name]
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = ["masklet"]
    app = typer.Typer()
    app.command()(serve)
    app(list(arguments))


class Worker:
    """A real `masklet serve` on a CPU, always at the same address. Use it as a context manager.

    Args:
        context: Starts it.
        arguments: Of `masklet serve`.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, context: ForkServerContext, *arguments: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._context = context
        self._arguments = ("--address", self.address, "--device", "cpu", "--dtype", "float32", *arguments)
        self._log = tempfile.NamedTemporaryFile("w+", prefix="masklet-worker-", suffix=".log")  # noqa: SIM115
        self._process: ForkServerProcess | None = None

    def __enter__(self) -> Worker:
        self.start()
        self.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._log.close()

    @property
    def pid(self) -> int:
        """Id of its process."""
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and do not wait."""
        self._process = self._context.Process(target=_serve, args=(self._arguments, self._log.name), daemon=True)
        self._process.start()

    def wait(self) -> None:
        """Wait until it serves."""
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.is_alive(), f"the worker ended:\n{self.log()}"
            with suppress(masklet.MaskletError), masklet.Client(self.address, connect_timeout=0) as client:
                if client.health():
                    return
            time.sleep(0.05)
        raise AssertionError(f"the worker did not start:\n{self.log()}")

    def kill(self) -> None:
        """End it without a warning (SIGKILL)."""
        if self._process is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._process.join(30)
            self._process = None

    def log(self) -> str:
        """What it has logged."""
        return Path(self._log.name).read_text()
