"""The fork server, from which decoding processes are forked.

Started as ``python -m masklet_server.video.worker.fork_server_main SOCKET_FD``.

Starting Python and importing FFmpeg's bindings takes some tenths of a second, a fork takes some milliseconds. This
process imports once, never sees any input, and forks for every message on its socket. A message carries descriptors:
standard input and output of the new process, a status pipe, its shared memory, and for clips the upload. Two lines are
written to the status pipe: the id of the new process; and, when it has ended, its exit code, the id of the fork server,
and the processor seconds that the fork server and all its ended processes have used so far. The fork server ends when
its socket is closed, and all that it forked ends with it.

The price is that all decoding processes have the same layout of memory.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from masklet_server.video.messages import FORK
from masklet_server.video.worker import main as worker

_MAX_DESCRIPTORS = 5


class ForkServer:
    """Forks decoding processes, and tells how they end.

    Args:
        requests: The socket on which the server asks for processes.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._running: dict[int, int] = {}  # status pipes, by process id
        self._woken, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until the socket is closed."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing is written to the descriptor
        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._woken in ready:
                    self._reap()
                if self._requests.fileno() in ready and not self.answer(selector):
                    return

    def answer(self, selector: selectors.BaseSelector) -> bool:
        """Answer one message, which must be there; returns False if there will be no more."""
        message, descriptors, _, _ = socket.recv_fds(self._requests, len(FORK), _MAX_DESCRIPTORS)
        if not message:
            return False
        try:
            incoming, outgoing, status, memory, *upload = descriptors
            process_id = os.fork()
        except (OSError, ValueError):
            # Too many processes or files. The closed status pipe says so, and other streams go on.
            for descriptor in descriptors:
                os.close(descriptor)
            return True
        if process_id == 0:
            selector.close()
            self._become_decoder(incoming, outgoing, [status], memory, *upload)
        self._running[process_id] = status
        _say(status, f"{process_id}\n")
        for descriptor in (incoming, outgoing, memory, *upload):
            os.close(descriptor)
        return True

    def _become_decoder(
        self, incoming: int, outgoing: int, others: list[int], memory: int, upload: int = -1
    ) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _offer_to_oom_killer()
            os.setsid()  # a Ctrl-C goes to the server alone, which may want to finish its streams
            for standard, descriptor in ((0, incoming), (1, outgoing)):
                os.dup2(descriptor, standard)
                os.close(descriptor)
            self._requests.close()
            for descriptor in (self._woken, self._waking, *self._running.values(), *others):
                os.close(descriptor)
            worker.run(memory, upload)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._woken, 4096):
                pass
        while self._running:
            process_id, wait_status = os.waitpid(-1, os.WNOHANG)
            if process_id == 0:
                return
            status = self._running.pop(process_id)
            _say(status, f"{os.waitstatus_to_exitcode(wait_status)} {os.getpid()} {_processor_seconds():.6f}\n")
            os.close(status)


def _offer_to_oom_killer() -> None:
    """Where the machine has no memory left, the kernel ends a decoding process, and not the server."""
    with contextlib.suppress(OSError):  # some containers have no /proc to write to
        Path("/proc/self/oom_score_adj").write_text("1000")


def _say(status: int, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the server does not wait for it any more
        os.write(status, line.encode())


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> NoReturn:
    """Serve on the socket whose descriptor is the first argument."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()  # the objects of now are shared with all forked processes
    ForkServer(requests).run()
    os._exit(0)


if __name__ == "__main__":
    main()
