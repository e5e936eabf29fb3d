"""A process that has imported everything a server needs, and forks servers from itself, each in a moment.

Imports take most of the seconds in which a server starts. A run that starts servers by the hundred saves them. A forked
server is like any other one: it is a process in a session of its own, has its own log, and loads its own model.

`python -m tests.faults.template` reads requests from its standard input, and answers with process ids.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path


class ForkedServer:
    """A server's process, which is no child of this one. It has the methods of `subprocess.Popen` that are needed here.

    Attributes:
        pid: Its process id.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """None while it runs, 0 after it has ended, however it has."""
        return 0 if self._has_ended(0.0) else None

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self._handle, number)

    def wait(self, timeout: float) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It still runs after so many seconds.
        """
        if not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(f"server {self.pid}", timeout)
        os.close(self._handle)
        return 0

    def close_if_ended(self) -> bool:
        """Whether it has ended. If so, nothing can be asked any more."""
        has_ended = self._has_ended(0.0)
        if has_ended:
            os.close(self._handle)
        return has_ended

    def _has_ended(self, seconds: float) -> bool:
        return bool(select.select([self._handle], [], [], seconds)[0])


class ServerTemplate:
    """Forks servers. Use it as a context manager. Any thread may fork.

    When it is left, also because this process was killed, the servers that still run are killed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> ServerTemplate:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKLET_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.template"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**clean, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is not for it
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def fork(self, arguments: Sequence[str], log: Path) -> ForkedServer:
        """Start a server.

        Args:
            arguments: Of ``masklet serve``.
            log: The file to which its output is appended.
        """
        assert self._process is not None, "enter it first"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            print(json.dumps([list(arguments), str(log)]), file=self._process.stdin, flush=True)
            return ForkedServer(int(self._process.stdout.readline()))


def main() -> None:
    """Import, then answer each request with the id of a new process."""
    import typer

    import masklet_server.assembly  # noqa: F401 - the server imports it when it starts
    from masklet_server.cli import serve

    app = typer.Typer()
    app.command()(serve)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the servers, so the kernel buries them
    handles: list[ForkedServer] = []
    for line in sys.stdin:
        arguments, log = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become(Path(log))
            app(arguments)  # raises SystemExit at its end
        handles = [handle for handle in handles if not handle.close_if_ended()] + [ForkedServer(pid)]
        print(pid, flush=True)
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            handle.send_signal(signal.SIGKILL)


def _become(log: Path) -> None:
    """Take leave of the template: another session, other standard streams, and nothing read from its input."""
    os.setsid()
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for source, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, number)
    os.close(nothing)
    os.close(output)
    sys.stdin = open(0)  # noqa: SIM115 - the old one has read lines ahead


if __name__ == "__main__":
    main()
