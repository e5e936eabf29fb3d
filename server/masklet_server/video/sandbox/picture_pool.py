"""Single pictures at full size, decoded in the same sandbox by a few processes that are used again and again."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import functools
import io
import os
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
import numpy.typing as npt

from masklet.errors import MaskletError, ResourceExhausted
from masklet_server.video import messages
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.decoder_process import SharedPixels, error_of, error_of_death, setup_fields

_MAX_PROCESSES = 4
_PICTURES_PER_PROCESS = 256
_CPU_SECONDS = 600
_KEEP_BYTES = 16 * 1024**2


async def decode_picture(picture: Picture, limits: VideoLimits) -> npt.NDArray[np.uint8]:
    """Decode one picture, as shown, in a sandboxed process.

    The processes are started when first needed, at most four for each value of `limits`, kept for further pictures, and
    replaced when they die.

    Returns:
        ``uint8[H, W, 3]`` RGB at full size; transparency lies on black.

    Raises:
        InvalidArgument: The field "data" is no picture of an allowed format.
        DataLoss: The picture is damaged.
        ResourceExhausted: It is larger, or takes longer, than `limits` allow.
    """
    return await _pool(limits).decode(picture)


class _Process:
    """One decoding process, spoken to by one thread at a time."""

    def __init__(self, limits: VideoLimits) -> None:
        self._limits = dataclasses.replace(limits, decoder_cpu_seconds=_CPU_SECONDS)
        self._pixels = SharedPixels(1, limits.max_frame_pixels * 3)
        self._left = _PICTURES_PER_PROCESS
        try:
            self._forked = fork_server.fork(self._pixels.fd)
        except BaseException:
            self._pixels.close()
            raise
        self._pixels.close_fd()
        try:
            self.pid = fork_server.process_id(self._forked.words.readline())
        except MaskletError:
            self._forked.close()
            self._pixels.close()
            raise
        self._handle = fork_server.open_handle(self.pid)
        self._exit_code: int | None = None
        self._stdin, self._stdout = io.BufferedWriter(self._forked.stdin), io.BufferedReader(self._forked.stdout)
        self._channel = messages.Channel(self._stdout, self._stdin)
        self._channel.send("setup", **setup_fields("single", 0, self._pixels, self._limits))

    @property
    def usable(self) -> bool:
        return self._left > 0 and self._exit_code is None and not _readable(self._forked.words, 0)

    def decode(self, picture: Picture) -> npt.NDArray[np.uint8]:
        self._left -= 1
        try:
            self._channel.send(
                "picture",
                picture.data,
                format=picture.format,
                height=picture.height,
                width=picture.width,
                size=len(picture.data),
            )
            self._wait()
            message = self._channel.receive()
            if message["type"] == "error":
                raise error_of(message)
            pixels = self._pixels.copy(int(message["slot"]), int(message["height"]), int(message["width"]))
        except MaskletError:
            raise
        except (BrokenPipeError, EOFError) as error:
            raise error_of_death(self._ended(), self._limits) from error
        except Exception:
            self.close()  # out of step: the next answer would be taken for another picture's
            raise
        if pixels.nbytes > _KEEP_BYTES:
            self._pixels.release_pages()
        return pixels

    def _wait(self) -> None:
        timeout = self._limits.first_frame_timeout_seconds
        if not _readable(self._stdout, timeout):
            self.close()
            raise ResourceExhausted(f"the picture was not decoded within first_frame_timeout_seconds = {timeout:g}")

    def close(self) -> None:
        """Kill and reap; may be called twice."""
        if self._exit_code is None:
            fork_server.kill(self.pid, self._handle)
            self._ended()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):  # bytes that it no longer wanted
            self._stdin.close()
        self._pixels.close()

    def _ended(self) -> int:
        """Wait for the end; how it was."""
        if self._exit_code is None:
            self._exit_code = fork_server.exit_code(self._forked.words.readline())
            self._forked.words.close()
            if self._handle >= 0:
                os.close(self._handle)
        return self._exit_code


def _readable(pipe: IO[bytes], seconds: float) -> bool:
    """Whether there is something to read, or the end, within that time."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class _Pool:
    """Idle processes, and the threads that wait for busy ones."""

    def __init__(self, limits: VideoLimits) -> None:
        self._limits = limits
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_MAX_PROCESSES, thread_name_prefix="masklet-picture")
        atexit.register(self.close)

    async def decode(self, picture: Picture) -> npt.NDArray[np.uint8]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, picture)

    def _decode(self, picture: Picture) -> npt.NDArray[np.uint8]:
        process = self._take()
        try:
            return process.decode(picture)
        finally:
            self._give_back(process)

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.usable:
                    return process
                process.close()
        return _Process(self._limits)

    def _give_back(self, process: _Process) -> None:
        if process.usable:
            with self._lock:
                self._idle.append(process)
        else:
            process.close()

    def close(self) -> None:
        """End the idle processes."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


@functools.cache
def _pool(limits: VideoLimits) -> _Pool:
    return _Pool(limits)
