"""Ray clusters of tests, apart from any other one on this machine, and `masklet cluster` as a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import masklet
from tests.support.streams import free_port

PROGRAM = [sys.executable, "-c", "from masklet_cluster.cli import cluster; cluster()"]
TOKEN = "ab" * 32
_SECONDS = 240.0


def environment(**more: str) -> dict[str, str]:
    """This process's, without settings of masklet and of Ray."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MASKLET_", "RAY_"))}
    cache = os.environ.get("MASKLET_CACHE")
    return {**clean, "OMP_NUM_THREADS": "1", **({"MASKLET_CACHE": cache} if cache else {}), **more}


def cluster_command(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `masklet cluster` to its end.

    Args:
        words: Its arguments.
        more: Of the environment.
    """
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, timeout=_SECONDS, check=False, env=environment(**more)
    )


class RayCluster:
    """`ray start --head`, and further nodes on this machine, with a token. Use it as a context manager.

    Args:
        cpus: Of the head.

    Attributes:
        address: HOST:PORT, as Ray names it.
    """

    def __init__(self, cpus: int) -> None:
        self.address = ""
        self._cpus = cpus
        self._folder = tempfile.mkdtemp(prefix="mr-")  # Ray's sockets are in it, whose paths must be short
        self._sessions: list[int] = []

    def __enter__(self) -> RayCluster:
        port, client = free_port(), free_port()
        try:
            told = self._start(
                "--head", f"--port={port}", "--include-dashboard=false", f"--ray-client-server-port={client}",
                f"--temp-dir={self._folder}", f"--num-cpus={self._cpus}",
            )  # fmt: skip
            (self.address,) = {
                line.partition("--address='")[2].partition("'")[0]
                for line in told.splitlines()
                if "--address='" in line
            }
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pid in self.processes(""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(self, cpus: int) -> int:
        """Start one more node; returns the id of its raylet."""
        before = set(self.processes("raylet/raylet"))
        self._start(f"--address={self.address}", f"--num-cpus={cpus}")
        (raylet,) = set(self.processes("raylet/raylet")) - before
        return raylet

    def processes(self, word: str) -> list[int]:
        """Ids of the processes whose command line has a word, such as gcs_server."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                is_ours = os.getsid(int(folder.name)) in self._sessions
                if is_ours and word.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def _start(self, *options: str) -> str:
        program = "from ray.scripts.scripts import main; main()"
        memory = f"--object-store-memory={80 * 1024**2}"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "start", "--disable-usage-stats", memory, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN),
            start_new_session=True,
            text=True,
        )
        self._sessions.append(process.pid)
        told, _ = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0, told
        return told


class ClusterUp:
    """`masklet cluster up` as a process. Use it as a context manager.

    Args:
        log: Where it prints to.
        name: The cluster's name.
        arguments: Further ones.
        environment: What it has beyond this process's.

    Attributes:
        address: The gateway's.
        process: The process.
        name: The cluster's name.
    """

    def __init__(self, log: Path, name: str, *arguments: str, **more: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.name = name
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*PROGRAM, "up", "--name", name, "--address", self.address, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(**more),
                start_new_session=True,
            )

    def __enter__(self) -> ClusterUp:
        try:
            self.until(lambda: "listening on" in self.log(), _SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise

    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def until(self, holds: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def states(self) -> list[str]:
        """The states of all workers."""
        with masklet.Client(self.address) as client:
            return [one.state for one in client.info().workers]

    def replicas(self) -> list[int]:
        """The processes of the workers."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if f"ServeReplica:{self.name}:".encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found
