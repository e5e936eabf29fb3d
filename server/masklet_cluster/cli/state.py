"""What is known on this machine of a cluster that runs: a small file, which its process keeps locked."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, Unavailable

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_STOP_SECONDS = 120.0
_WRITE_SECONDS = 1.0


@dataclass
class ClusterState:
    """A cluster that `masklet cluster up` runs.

    Attributes:
        name: The cluster's name.
        address: The gateway's.
        ray: The Ray cluster; empty for one of its own.
        pid: The process.
        workers: How many workers there are to be.
        phase: Whether the workers have started, and the gateway listens.
        max_workers: Serve decides how many there are, up to so many; 0: always `workers`.
    """

    name: str
    address: str
    ray: str
    pid: int
    workers: int = 1
    phase: Literal["starting", "up"] = "starting"
    max_workers: int = 0

    @classmethod
    @contextlib.contextmanager
    def held(cls, name: str, address: str, ray: str, workers: int) -> Iterator[ClusterState]:
        """Write down that this process runs a cluster, until the block ends.

        Raises:
            InvalidArgument: The name has other characters than letters, digits, - and _.
            FailedPrecondition: Another process runs a cluster of the name.
        """
        with _file(name).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FailedPrecondition(
                    f"a cluster {name} runs already; `masklet cluster down --name {name}` stops it, another --name "
                    "starts one more"
                ) from None
            state = cls(name, address, ray, os.getpid(), workers)
            state._write()
            try:
                yield state
            finally:
                _file(name).unlink(missing_ok=True)

    @classmethod
    def running(cls, name: str) -> ClusterState | None:
        """The cluster of the name that runs now; None if there is none.

        Raises:
            InvalidArgument: The name has other characters than letters, digits, - and _.
        """
        try:
            with _file(name).open() as file:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None  # its process is gone
                return cls(**_read(file))
        except FileNotFoundError:
            return None

    def are_up(self) -> None:
        """Write down that the workers have started, and that the gateway listens."""
        self.phase = "up"
        self._write()

    def scale(self, workers: int) -> None:
        """Ask the process for another number of workers."""
        self.workers = workers
        self._write()
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Ask the process to end, and wait until it has.

        Raises:
            Unavailable: It has not ended in time.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while ClusterState.running(self.name) is not None:
            if time.monotonic() > deadline:
                raise Unavailable(f"process {self.pid} has not ended in {_STOP_SECONDS:g} s; kill it yourself")
            time.sleep(0.1)

    def _write(self) -> None:
        _file(self.name).write_text(json.dumps(asdict(self)))


def _read(file: TextIO) -> Any:
    """What a file of a cluster says. It cannot be replaced, because of its lock, so it may be read half written."""
    deadline = time.monotonic() + _WRITE_SECONDS
    while True:
        file.seek(0)
        try:
            return json.load(file)
        except ValueError:
            if time.monotonic() > deadline:
                raise DataLoss(f"{file.name} is damaged; stop the process of the cluster, and remove it") from None
        time.sleep(0.02)


def _file(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InvalidArgument.of("name", f"{name!r} must be of letters, digits, - and _, at most 40 of them")
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"masklet-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InvalidArgument.of("XDG_RUNTIME_DIR", f"{folder} belongs to another user")
    return folder / f"cluster-{name}.json"
