"""A decoding process as an event loop sees it: start it, talk with it, read its frames, and end it.

The fork server (`fork_server`) forks the process. It gets two pipes for `messages`, a block of shared memory for
pixels, and for clips a read-only descriptor of the upload. It sees nothing of the server's environment, and confines
itself (`masklet_media.confinement`) before it looks at any input. What it says is not trusted.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
from dataclasses import dataclass

from masklet_server.video import messages
from masklet_server.video.messages import DecodingFailed, FromDecoder, MessageError, Setup, ToDecoder
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.answers import AnswerParser
from masklet_server.video.sandbox.process_errors import (
    error_of,
    error_of_answer,
    error_of_death,
    error_of_nonsense,
    error_of_shortage,
)
from masklet_server.video.sandbox.shared_pixels import SharedPixels

_PIPE_BYTES = 1024**2

_REAPERS: set[asyncio.Task[int | None]] = set()


class DecoderProcess:
    """One decoding process of a source. `start` makes it; `kill` and then `reaped` end it.

    Attributes:
        pid: Its process id.
        pixels: The memory that it shares with the server.
    """

    def __init__(self, pipes: _Pipes, process_id: int, pixels: SharedPixels, setup: Setup) -> None:
        self.pid = process_id
        self.pixels = pixels
        self._pipes = pipes
        self._handle = fork_server.ProcessHandle(process_id)
        self._setup = setup
        self._parser = AnswerParser(setup)
        self._reaper: asyncio.Task[int | None] | None = None

    @classmethod
    async def start(cls, setup: Setup, upload_fd: int | None = None) -> DecoderProcess:
        """Start a process.

        Args:
            setup: What it shall do.
            upload_fd: A read-only descriptor of the upload, for clips; it remains the caller's.

        Raises:
            Unavailable: No process could be forked.
            ResourceExhausted: The server has no memory or no descriptors for one more.
        """
        try:
            pixels = SharedPixels(setup.slots, setup.slot_bytes)
        except OSError as error:
            raise error_of_shortage(error) from error
        pipes = None
        try:
            pipes = await _Pipes.connect(fork_server.fork(pixels.fd, upload_fd))
            pid = fork_server.process_id(await _first_line(pipes, setup.limits.decoder_start_seconds))
        except BaseException as error:
            if pipes is not None:
                pipes.close()
            pixels.close()
            if isinstance(error, OSError):
                raise error_of_shortage(error) from error
            raise
        pixels.close_fd()
        process = cls(pipes, pid, pixels, setup)
        process._widen_pipe()
        process.write(setup)
        return process

    def _widen_pipe(self) -> None:
        """Make room in the pipe for raw pictures: they have megabytes, and a pipe has 64 KiB.

        The system may refuse that to an unprivileged server; then feeding is only slower.
        """
        pipe = self._pipes.stdin.get_extra_info("pipe")
        try:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return

    def write(self, message: ToDecoder) -> None:
        """Send a message without waiting. If the process has ended, nothing happens: `receive` says why it ended."""
        if self._pipes.stdin.is_closing():
            return
        line, payload = messages.encode(message)
        self._pipes.stdin.write(line)
        if payload:
            self._pipes.stdin.write(payload)

    async def send(self, message: ToDecoder) -> None:
        """Send a message, and wait while the process is behind with reading."""
        self.write(message)
        try:
            await self._pipes.stdin.drain()
        except ConnectionError:
            return  # It has ended: `receive` will say why.

    async def receive(self) -> FromDecoder:
        """Wait for a message; may be cancelled without losing one.

        Raises:
            MaskletError: The process refused its input, died, or sent what is no message.
        """
        try:
            line = await self._pipes.stdout.readline()
        except ValueError as error:  # asyncio's, of a line that is too long
            raise error_of_nonsense("a line that is too long") from error
        if not line.endswith(b"\n"):
            raise error_of_death(await self.reaped(), self._setup.limits)
        try:
            message = self._parser.parse(line)
        except MessageError as error:
            raise error_of_answer(error) from error
        if isinstance(message, DecodingFailed):
            raise error_of(message)
        return message

    def kill_process(self) -> None:
        """End the process alone; any thread may do so."""
        self._handle.kill()

    def kill(self) -> None:
        """End the process and free what it shares, at once and without waiting; may be called twice."""
        self._pipes.stdin.close()
        self.kill_process()
        self.pixels.close()

    async def reaped(self) -> int | None:
        """Wait until the process has ended and left no zombie; this goes on in the background if cancelled.

        Returns:
            The exit status, or the signal that ended the process, negative; None if the fork server has ended with it.
        """
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().create_task(self._reap())
            _REAPERS.add(self._reaper)  # an event loop forgets a task to which nothing refers
            self._reaper.add_done_callback(_REAPERS.discard)
        return await asyncio.shield(self._reaper)

    async def _reap(self) -> int | None:
        try:
            return fork_server.exit_code(await self._last_line())
        finally:
            self._pipes.close()
            self._handle.close()

    async def _last_line(self) -> bytes:
        """How the process ended. One that does not end is killed; a fork server that does not tell is replaced."""
        reading = asyncio.ensure_future(self._pipes.status.readline())
        for give_up in (self.kill_process, lambda: fork_server.replace(self._pipes.server_id)):
            done, _ = await asyncio.wait({reading}, timeout=self._setup.limits.decoder_start_seconds)
            if done:
                break
            give_up()
        return await reading


@dataclass(frozen=True, eq=False)
class _Pipes:
    """The pipes to a process, for an event loop, and the process id of the fork server."""

    server_id: int
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    status: asyncio.StreamReader
    transports: tuple[asyncio.BaseTransport, ...]

    @classmethod
    async def connect(cls, forked: fork_server.Forked) -> _Pipes:
        loop = asyncio.get_running_loop()
        stdout, status = asyncio.StreamReader(limit=messages.MAX_LINE_BYTES), asyncio.StreamReader()
        transports: list[asyncio.BaseTransport] = []
        try:
            for reader, pipe in ((stdout, forked.stdout), (status, forked.status)):
                transport, _ = await loop.connect_read_pipe(
                    functools.partial(asyncio.StreamReaderProtocol, reader), pipe
                )
                transports.append(transport)
            writing, flow_control = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, forked.stdin)
        except BaseException:
            for each in transports:
                each.close()
            forked.close()
            raise
        stdin = asyncio.StreamWriter(writing, flow_control, None, loop)
        return cls(forked.server_id, stdin, stdout, status, (*transports, writing))

    def close(self) -> None:
        for transport in self.transports:
            transport.close()


async def _first_line(pipes: _Pipes, seconds: float) -> bytes:
    """The first line of the fork server, which is ended if it does not answer in so many seconds."""
    try:
        return await asyncio.wait_for(pipes.status.readline(), seconds)
    except asyncio.TimeoutError:  # not the builtin one before Python 3.11
        fork_server.replace(pipes.server_id)
        raise fork_server.silent() from None
