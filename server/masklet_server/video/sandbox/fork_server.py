"""The process from which decoding processes are forked, seen from the server. There is one for the whole server."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence

from masklet.errors import Unavailable
from masklet_media.confinement import environment, python
from masklet_server.video.messages import FORK
from masklet_server.video.sandbox.control_group import DecoderGroup

# Sending waits only when many requests wait already, which is so when the fork server hangs.
_SEND_SECONDS = 5.0


def command(socket_fd: int) -> list[str]:
    """The command line of the fork server."""
    return python("masklet_server.video.worker.fork_server_main", str(socket_fd))


logger = logging.getLogger(__name__)

_used: dict[int, float] = {}  # processor seconds, by the fork server's process id


class Forked:
    """Pipes to a process that was forked or will be in a moment; the caller of `fork` closes them.

    Attributes:
        stdin: To write messages to.
        stdout: To read messages from.
        status: To read two lines from: the process's id (see `process_id`), and how it ended (see `exit_code`).
        server_id: The fork server's process id.
    """

    def __init__(self, stdin: io.FileIO, stdout: io.FileIO, status: io.FileIO, *, server_id: int = 0) -> None:
        self.server_id = server_id
        self.stdin = stdin
        self.stdout = stdout
        self.status = status

    def close(self) -> None:
        """Close all three pipes; the process ends once it reads."""
        for pipe in (self.stdin, self.stdout, self.status):
            pipe.close()


def process_id(line: bytes) -> int:
    """The process id, from the first line of the status pipe.

    Raises:
        Unavailable: There is no such line.
    """
    if not line.endswith(b"\n"):
        raise Unavailable(
            "no decoding process could be started: the process that forks them has died, or the machine has too many "
            "processes; try again",
            retry_after_seconds=1.0,
        )
    return int(line)


def exit_code(line: bytes) -> int | None:
    """The exit code, from the second line of the status pipe.

    Returns:
        The exit status, or the signal that ended the process, negative. None if there is no such line, which is so when
        the fork server has ended, and with it all processes that it forked.
    """
    if not line.endswith(b"\n"):
        return None
    code, server, seconds = line.split()
    _used[int(server)] = float(seconds)
    return int(code)


def processor_seconds() -> float:
    """Processor time used so far by fork servers and by those decoding processes that have ended."""
    return sum(_used.values())


class ProcessHandle:
    """Kills a forked process, and never another one that has its id later. Any thread may use it.

    Args:
        pid: The process's id.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._is_closed = False
        self._lock = threading.Lock()  # one thread may close the descriptor while another one is about to use it
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:  # the kernel has no such thing
            self._descriptor = -1

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._is_closed:
                return
            if self._descriptor >= 0:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            else:
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """The process has ended and left no zombie; may be called twice."""
        with self._lock:
            if not self._is_closed and self._descriptor >= 0:
                os.close(self._descriptor)
            self._is_closed = True


class _Server:
    """The fork server. It is started when it is first needed, and started again if it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._group: DecoderGroup | None = None
        atexit.register(self.close)

    def put_into(self, group: DecoderGroup | None) -> None:
        with self._lock:
            self._group = group
            if self._process is not None and self._process.poll() is None:
                self._enter_group(self._process.pid)

    def _enter_group(self, process_id: int) -> None:
        if self._group is None:
            return
        try:
            self._group.add(process_id)
        except OSError as error:
            logger.warning("decoding processes are not in their control group: %s", error)

    def start(self) -> int:
        with self._lock:
            self._ensure()
            assert self._process is not None
            return self._process.pid

    def send(self, descriptors: Sequence[int]) -> int:
        """Ask for a process; returns the fork server's process id."""
        with self._lock:
            try:
                socket.send_fds(self._ensure(), [FORK], descriptors)
            except (ConnectionError, TimeoutError):
                self._close()
                socket.send_fds(self._ensure(), [FORK], descriptors)
            assert self._process is not None
            return self._process.pid

    def close(self, process_id: int = 0) -> None:
        """End the fork server; if an id is given, only the one that has it."""
        with self._lock:
            if not process_id or (self._process is not None and self._process.pid == process_id):
                self._close()

    def _ensure(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._close()
        server_end, process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with process_end:
            try:
                self._process = subprocess.Popen(
                    command(process_end.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment(),
                    cwd="/",
                    start_new_session=True,
                    pass_fds=[process_end.fileno()],
                )
            except BaseException:
                server_end.close()
                raise
        self._enter_group(self._process.pid)
        server_end.settimeout(_SEND_SECONDS)
        self._socket = server_end
        return server_end

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None


_server = _Server()


def start() -> int:
    """Start the fork server before it is needed, unless it runs; returns its process id."""
    return _server.start()


def put_into(group: DecoderGroup | None) -> None:
    """Have this fork server, and all that follow it, run in a control group with what they fork; None: in none."""
    _server.put_into(group)


def replace(server_id: int) -> None:
    """End a fork server that does not answer, and all processes that it forked; the next `fork` starts another one."""
    logger.error("the fork server of decoding processes (process %d) does not answer; it is ended", server_id)
    _server.close(server_id)


def silent() -> Unavailable:
    """The error of a fork server that does not answer."""
    return Unavailable(
        "no decoding process could be started: the process that forks them does not answer; it is started anew, try "
        "again",
        retry_after_seconds=1.0,
    )


def fork(memory_fd: int, upload_fd: int | None = None) -> Forked:
    """Ask for a decoding process.

    Args:
        memory_fd: Its shared memory; the descriptor remains the caller's.
        upload_fd: The file that it decodes, if it is a clip; the descriptor remains the caller's.
    """
    server_ends: list[io.FileIO] = []
    process_ends: list[int] = []
    try:
        for writes in (True, False, False):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            process_ends.append(reading if writes else writing)
            server_ends.append(io.FileIO(writing, "wb") if writes else io.FileIO(reading, "rb"))
        server_id = _server.send([*process_ends, memory_fd, *(() if upload_fd is None else (upload_fd,))])
    except BaseException:
        for pipe in server_ends:
            pipe.close()
        raise
    finally:
        for descriptor in process_ends:
            os.close(descriptor)
    return Forked(*server_ends, server_id=server_id)
