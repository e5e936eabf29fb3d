"""The server's side of the decoding processes: start one, talk with it, read its frames, and be rid of it.

A process gets three things: its standard pipes (`_wire`), a block of shared memory for pixels, and for clips a
read-only descriptor of the upload. It sees none of the server's environment, and confines itself (`_confine`) before it
looks at any input. What it says is not trusted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import mmap
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masklet.errors import BY_CODE, DataLoss, Internal, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.video import _wire
from masklet_server.video.source import VideoLimits

Mode = Literal["clip", "pictures", "live pictures", "packets", "single"]

_KINDS = {cls.__name__: cls for cls in BY_CODE.values()}
_PASSED_ON = ("PYTHONHOME", "LD_LIBRARY_PATH")
_PIPE_BYTES = 1024**2
_TIGHT_MEMORY_BYTES = 512 * 1024**2


def command(memory_fd: int, spool_fd: int) -> list[str]:
    """The command line of a decoding process; without the site module, since `environment` says where packages are."""
    return [sys.executable, "-s", "-S", "-m", "masklet_server.video.worker", str(memory_fd), str(spool_fd)]


def environment() -> dict[str, str]:
    """The whole environment of a decoding process: what Python needs to start, none of the server's own."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **passed,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONSAFEPATH": "1",
        "LC_ALL": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",  # each thread's arena would count against the address space
    }


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


def error_of(message: _wire.Message) -> MaskletError:
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

    def __init__(self, process: asyncio.subprocess.Process, pixels: SharedPixels, limits: VideoLimits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._limits = limits
        self._reading = False
        self._reaper: asyncio.Task[int] | None = None
        self.pixels = pixels

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
        """Start a process; it is ready some tenths of a second later, but may be written to at once."""
        pixels = SharedPixels(slots, image_size * image_size * 3)
        try:
            setup = setup_fields(mode, image_size, pixels, limits, again)
            passed = [pixels.fd] if spool_fd is None else [pixels.fd, spool_fd]
            process = await asyncio.create_subprocess_exec(
                *command(pixels.fd, -1 if spool_fd is None else spool_fd),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment(),
                cwd="/",
                pass_fds=passed,
                start_new_session=True,  # a Ctrl-C is for the server, which may want to finish its streams
            )
        except BaseException:
            pixels.close()
            raise
        pixels.close_fd()
        started = cls(process, pixels, limits)
        started._widen_pipe()
        started._stdin.write(_wire.encode("setup", **setup))
        return started

    def _widen_pipe(self) -> None:
        """Raw pictures are megabytes; a pipe holds 64 KiB. Where that can't be changed it is slower.

        An unprivileged server may be refused, and some versions of asyncio use a socket rather than a pipe.
        """
        pipe = self._stdin.get_extra_info("pipe")
        try:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def write(self, message_type: str, payload: bytes = b"", **fields: Any) -> None:
        """Put a message on its way without waiting; nothing happens if the process has ended: `receive` says why."""
        if self._stdin.is_closing():
            return
        self._stdin.write(_wire.encode(message_type, **fields))
        if payload:
            self._stdin.write(payload)

    async def send(self, message_type: str, payload: bytes = b"", **fields: Any) -> None:
        """`write`, and wait while the process is behind with reading."""
        self.write(message_type, payload, **fields)
        try:
            await self._stdin.drain()
        except ConnectionError:
            return  # It has ended: `receive` will say why.

    async def receive(self) -> _wire.Message:
        """Wait for a message; may be cancelled without losing one.

        Raises:
            MaskletError: The process refused its input, died, or sent nonsense.
        """
        self._reading = True
        try:
            line = await self._stdout.readline()
            if not line.endswith(b"\n"):
                raise error_of_death(await self.reaped(), self._limits)
            message = _wire.decode(line)
        except ValueError as error:
            raise DataLoss("the decoding process sent something that is no message") from error
        finally:
            self._reading = False
        if message["type"] == "error":
            raise error_of(message)
        return message

    def kill(self) -> None:
        """End the process and free what it shares, at once and without waiting; may be called twice."""
        self._stdin.close()
        if self._process.returncode is None:
            self._process.kill()
        self.pixels.close()

    async def reaped(self) -> int:
        """Wait until the process has ended and left no zombie; goes on in the background if cancelled."""
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().create_task(self._reap())
        return await asyncio.shield(self._reaper)

    async def _reap(self) -> int:
        # asyncio waits for the pipe as well, and never gets to its end if unread messages have filled its buffer.
        while not self._reading and await self._stdout.read(_PIPE_BYTES):
            pass
        return await self._process.wait()
