"""The fork server, from which decoding processes are forked.

Started as ``python -m masklet_server.video.worker.fork_server_main SOCKET_FD``.

Starting Python and importing FFmpeg's bindings takes some tenths of a second, a fork some milliseconds. This process
does the former once, never sees any input, and forks for every message on its socket. The message carries descriptors:
what becomes standard input and output, a pipe for words about the process, its shared memory, and perhaps a spool. On
the pipe come two lines: the process's id; and how it ended, this process's id, and the processor seconds that this one
and all that ended have used so far. It ends with the socket, and everything that it forked with it.

All decoding processes share one layout of memory, which is the price.
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
from typing import NoReturn

from masklet_server.video.messages import FORK
from masklet_server.video.worker import main as worker

_MAX_DESCRIPTORS = 5


class ForkServer:
    """Forks decoding processes and tells how they end.

    Args:
        requests: Where messages come.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._running: dict[int, int] = {}  # by process id, the pipe for words about it
        self._woken, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until the socket is closed."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # or nothing is written to the descriptor
        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._woken in ready:
                    self._reap()
                if self._requests.fileno() in ready and not self._fork(selector):
                    return

    def _fork(self, selector: selectors.BaseSelector) -> bool:
        """Answer one message; False if there will be no more."""
        message, descriptors, _, _ = socket.recv_fds(self._requests, len(FORK), _MAX_DESCRIPTORS)
        if not message:
            return False
        try:
            incoming, outgoing, words, memory, *spool = descriptors
            process_id = os.fork()
        except (OSError, ValueError):  # too many processes or files; the closed pipe says so, and other streams go on
            for descriptor in descriptors:
                os.close(descriptor)
            return True
        if process_id == 0:
            selector.close()
            self._become_decoder(incoming, outgoing, [words], memory, *spool)
        self._running[process_id] = words
        _say(words, f"{process_id}\n")
        for descriptor in (incoming, outgoing, memory, *spool):
            os.close(descriptor)
        return True

    def _become_decoder(
        self, incoming: int, outgoing: int, others: list[int], memory: int, spool: int = -1
    ) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()  # a Ctrl-C is for the server, which may want to finish its streams
            for standard, descriptor in ((0, incoming), (1, outgoing)):
                os.dup2(descriptor, standard)
                os.close(descriptor)
            self._requests.close()
            for descriptor in (self._woken, self._waking, *self._running.values(), *others):
                os.close(descriptor)
            worker.run(memory, spool)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._woken, 4096):
                pass
        while self._running:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if process_id == 0:
                return
            words = self._running.pop(process_id)
            _say(words, f"{os.waitstatus_to_exitcode(status)} {os.getpid()} {_processor_seconds():.6f}\n")
            os.close(words)


def _say(words: int, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(words, line.encode())


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> NoReturn:
    """Serve on the socket of that number."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()  # what is there now is shared with all that are forked
    ForkServer(requests).run()
    os._exit(0)


if __name__ == "__main__":
    main()
