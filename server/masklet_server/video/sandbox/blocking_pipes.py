"""The pipes to a decoding process, for a thread that waits, but not for ever."""

from __future__ import annotations

import io
import os
import select
from collections.abc import Callable

from masklet_server.video.messages import MAX_LINE_BYTES, MessageError, ToDecoder, encode

# How often it is checked whether to go on waiting.
_CHECK_SECONDS = 0.1
_READ_BYTES = 4096


class BlockingPipes:
    """Sends messages and receives lines.

    Args:
        stdin: To write to; it becomes non-blocking.
        stdout: To read from; it becomes non-blocking.
    """

    def __init__(self, stdin: io.FileIO, stdout: io.FileIO) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._line = bytearray()
        for pipe in (stdin, stdout):
            os.set_blocking(pipe.fileno(), False)

    def send(self, message: ToDecoder, check: Callable[[], None]) -> None:
        """Write a message and the bytes that belong to it.

        Args:
            message: The message.
            check: Called many times a second while the process does not read; what it raises ends the wait.

        Raises:
            BrokenPipeError: The process has ended.
        """
        for part in encode(message):
            rest = memoryview(part)
            while rest:
                self._wait(self._stdin, select.POLLOUT, check)
                written = self._stdin.write(rest)
                rest = rest[written or 0 :]

    def receive_line(self, check: Callable[[], None]) -> bytes:
        """Wait for a line; `check` is as in `send`.

        Raises:
            EOFError: The process has ended.
            MessageError: The line is too long.
        """
        while (end := self._line.find(b"\n")) < 0:
            if len(self._line) >= MAX_LINE_BYTES:
                raise MessageError(f"the line has more than {MAX_LINE_BYTES} bytes")
            self._wait(self._stdout, select.POLLIN, check)
            data = self._stdout.read(_READ_BYTES)
            if data == b"":
                raise EOFError("the process has ended")
            self._line += data or b""
        line = bytes(self._line[: end + 1])
        del self._line[: end + 1]
        return line

    def close(self) -> None:
        """Close both pipes to the process."""
        self._stdin.close()
        self._stdout.close()

    def _wait(self, pipe: io.FileIO, event: int, check: Callable[[], None]) -> None:
        while not is_ready(pipe, event, _CHECK_SECONDS):
            check()


def is_ready(pipe: io.FileIO, event: int, seconds: float) -> bool:
    """Whether the pipe can be read or written, or has ended, within that time.

    Args:
        pipe: The pipe.
        event: `select.POLLIN` or `select.POLLOUT`.
        seconds: How long to wait.
    """
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(seconds * 1000))
