"""The server's side of the decoding processes: start one, talk with it, read its frames, and be rid of it.

A process is forked by the fork server (`fork_server`) and gets three things: its standard pipes (`messages`), a block
of shared memory for pixels, and for clips a read-only descriptor of the upload. It sees none of the server's
environment, and confines itself (`confinement`) before it looks at any input. What it says is not trusted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import functools
import mmap
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masklet.errors import BY_CODE, DataLoss, Internal, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.video import messages
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sandbox import fork_server

Mode = Literal["clip", "pictures", "live pictures", "packets", "single"]

_KINDS = {cls.__name__: cls for cls in BY_CODE.values()}
_PIPE_BYTES = 1024**2
_TIGHT_MEMORY_BYTES = 512 * 1024**2


class SharedPixels:
    """Slots for pixels in memory that both processes map; pages cost nothing until they are written to."""

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        size = slots * slot_bytes
        self.fd = os.memfd_create("masklet-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            # A process that could shrink it could make the server fault.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise

    def close_fd(self) -> None:
        """Let go of the descriptor, once the process has it; the mapping stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Free everything; may be called twice."""
        self.close_fd()
        self._memory.close()

    def copy(self, slot: int, height: int, width: int) -> npt.NDArray[np.uint8]:
        """The pixels in a slot as ``uint8[height, width, 3]``.

        Raises:
            ValueError: There is no such slot, or it is too small.
        """
        size = height * width * 3
        if not (0 <= slot < self.slots and height > 0 and width > 0 and size <= self.slot_bytes):
            raise ValueError(f"slot {slot} of {self.slots} cannot hold {width}x{height} pixels")
        view = np.frombuffer(self._memory, np.uint8, size, slot * self.slot_bytes)
        return view.reshape(height, width, 3).copy()

    def release_pages(self) -> None:
        """Give the memory behind all slots back; they read as zero until they are written again."""
        self._memory.madvise(mmap.MADV_REMOVE)


def error_of(message: messages.Message) -> MaskletError:
    """The exception that an ``error`` message stands for."""
    kind = _KINDS.get(message.get("kind", ""), Internal)
    text, field = str(message.get("message")), str(message.get("field") or "")
    if kind is InvalidArgument and field:
        return InvalidArgument.of(field, text)
    return kind(text)


def error_of_death(returncode: int, limits: VideoLimits) -> MaskletError:
    """What to say of a process that ended without a word."""
    if returncode >= 0:
        return Internal(f"the decoding process ended with status {returncode}")
    number = -returncode
    if number == signal.SIGXCPU:
        return ResourceExhausted(
            f"decoding took more processor time than decoder_cpu_seconds = {limits.decoder_cpu_seconds} allows"
        )
    if number == signal.SIGKILL:
        return ResourceExhausted("the decoding process was killed, most likely because memory ran out")
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return DataLoss(
        f"the decoder crashed on this input ({name}); it is damaged, or needs more memory than "
        f"decoder_memory_bytes = {limits.decoder_memory_bytes} allows"
    )


def setup_fields(
    mode: Mode, image_size: int, pixels: SharedPixels, limits: VideoLimits, again: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The first message to a process."""
    if limits.decoder_memory_bytes < _TIGHT_MEMORY_BYTES:
        raise ValueError(
            f"decoder_memory_bytes must be at least {_TIGHT_MEMORY_BYTES}, Python and FFmpeg need that much"
        )
    return {
        "mode": mode,
        "image_size": image_size,
        "slots": pixels.slots,
        "slot_bytes": pixels.slot_bytes,
        "limits": dataclasses.asdict(limits),
        **({} if again is None else {"again": again}),
    }


class DecoderProcess:
    """One decoding process of an asynchronous source. Made by `start`, ended by `kill` and `reaped`."""

    def __init__(self, pipes: _Pipes, process_id: int, pixels: SharedPixels, limits: VideoLimits) -> None:
        self.pid = process_id
        self.pixels = pixels
        self._pipes = pipes
        self._handle = fork_server.open_handle(process_id)
        self._limits = limits
        self._reaper: asyncio.Task[int] | None = None

    @classmethod
    async def start(
        cls,
        mode: Mode,
        *,
        image_size: int,
        slots: int,
        limits: VideoLimits,
        spool_fd: int | None = None,
        again: Mapping[str, Any] | None = None,
    ) -> DecoderProcess:
        """Start a process."""
        pixels = SharedPixels(slots, image_size * image_size * 3)
        pipes = None
        try:
            setup = setup_fields(mode, image_size, pixels, limits, again)
            pipes = await _Pipes.connect(fork_server.fork(pixels.fd, spool_fd))
            pid = fork_server.process_id(await pipes.words.readline())
        except BaseException:
            if pipes is not None:
                pipes.close()
            pixels.close()
            raise
        pixels.close_fd()
        started = cls(pipes, pid, pixels, limits)
        started._widen_pipe()
        started.write("setup", **setup)
        return started

    def _widen_pipe(self) -> None:
        """Raw pictures are megabytes; a pipe holds 64 KiB. Where that can't be changed it is slower.

        An unprivileged server may be refused.
        """
        pipe = self._pipes.stdin.get_extra_info("pipe")
        try:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return

    def write(self, message_type: str, payload: bytes = b"", **fields: Any) -> None:
        """Put a message on its way without waiting; nothing happens if the process has ended: `receive` says why."""
        if self._pipes.stdin.is_closing():
            return
        self._pipes.stdin.write(messages.encode(message_type, **fields))
        if payload:
            self._pipes.stdin.write(payload)

    async def send(self, message_type: str, payload: bytes = b"", **fields: Any) -> None:
        """`write`, and wait while the process is behind with reading."""
        self.write(message_type, payload, **fields)
        try:
            await self._pipes.stdin.drain()
        except ConnectionError:
            return  # It has ended: `receive` will say why.

    async def receive(self) -> messages.Message:
        """Wait for a message; may be cancelled without losing one.

        Raises:
            MaskletError: The process refused its input, died, or sent nonsense.
        """
        try:
            line = await self._pipes.stdout.readline()
            if not line.endswith(b"\n"):
                raise error_of_death(await self.reaped(), self._limits)
            message = messages.decode(line)
        except ValueError as error:
            raise DataLoss("the decoding process sent something that is no message") from error
        if message["type"] == "error":
            raise error_of(message)
        return message

    def kill(self) -> None:
        """End the process and free what it shares, at once and without waiting; may be called twice."""
        self._pipes.stdin.close()
        if self._reaper is None or not self._reaper.done():
            fork_server.kill(self.pid, self._handle)
        self.pixels.close()

    async def reaped(self) -> int:
        """Wait until the process has ended and left no zombie; goes on in the background if cancelled."""
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().create_task(self._reap())
        return await asyncio.shield(self._reaper)

    async def _reap(self) -> int:
        try:
            return fork_server.exit_code(await self._pipes.words.readline())
        finally:
            self._pipes.close()
            if self._handle >= 0:
                os.close(self._handle)


@dataclass(frozen=True, eq=False)
class _Pipes:
    """The pipes to a process, for an event loop."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    words: asyncio.StreamReader
    transports: tuple[asyncio.BaseTransport, ...]

    @classmethod
    async def connect(cls, forked: fork_server.Forked) -> _Pipes:
        loop = asyncio.get_running_loop()
        stdout, words = asyncio.StreamReader(), asyncio.StreamReader()
        transports: list[asyncio.BaseTransport] = []
        try:
            for reader, pipe in ((stdout, forked.stdout), (words, forked.words)):
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
        return cls(stdin, stdout, words, (*transports, writing))

    def close(self) -> None:
        for transport in self.transports:
            transport.close()
