"""Keeps all frames of a clip on disk, to be read again in any order."""

from __future__ import annotations

import asyncio
import time
from array import array
from fractions import Fraction

import numpy as np

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Share
from masklet_server.budgets.shares import UNBOUNDED
from masklet_server.scratch import ScratchFile
from masklet_server.video.frame import Frame


class FrameStore:
    """Frames in a temporary file. One task adds them in order while others read.

    The file is read and written on other threads. Its space is free when the store is closed and no such thread runs.

    Args:
        max_bytes: Size of the file, at most.
        disk: Where its room is counted.
    """

    def __init__(self, max_bytes: int, disk: Share = UNBOUNDED.disk) -> None:
        self._disk = disk
        self._max_bytes = max_bytes
        self._file: ScratchFile | None = None
        self._first: Frame | None = None  # has what is the same for all frames
        self._pts = array("q")
        self._captures = array("q")
        self._ended = False
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many frames were added so far."""
        return len(self._pts)

    async def add(self, frame: Frame) -> None:
        """Write the next frame.

        Raises:
            ResourceExhausted: The file would become too large, or the disk is full.
        """
        size, index = frame.pixels.nbytes, len(self)
        if (index + 1) * size > self._max_bytes:
            raise ResourceExhausted(
                f"the frames of the video take more than max_stored_frame_bytes = {self._max_bytes} bytes at "
                f"{size} bytes a frame; send fewer, such as every other one, or choose a model with a smaller input"
            )
        if self._file is None:
            self._file = await asyncio.to_thread(ScratchFile, "the frames of the video", self._disk)
        await asyncio.to_thread(self._file.write, index * size, frame.pixels.reshape(-1).data)
        self._first = self._first or frame
        self._pts.append(frame.pts)
        self._captures.append(frame.capture_time_nanoseconds)
        self._changed.set()

    @property
    def nbytes(self) -> int:
        """Size of the file; 0 before the first frame, and when the store is closed."""
        return 0 if self._file is None or self._first is None else len(self) * self._first.pixels.nbytes

    @property
    def is_complete(self) -> bool:
        """Whether all frames were added."""
        return self._ended

    def end(self) -> None:
        """Say that no more frames will be added."""
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """Free the file; nothing can be read from now on."""
        self._file = None

    async def reach(self, count: int | None = None) -> int:
        """Wait for so many frames, or for all; returns their number, which is less if the video is shorter."""
        while not self._ended and (count is None or len(self) < count):
            self._changed.clear()
            await self._changed.wait()
        return len(self) if count is None else min(count, len(self))

    async def frame(self, index: int) -> Frame | None:
        """Wait for the frame and read it; None if the video is shorter. Its `arrived_seconds` is that of reading."""
        if await self.reach(index + 1) <= index:
            return None
        assert self._file is not None
        assert self._first is not None
        first, began = self._first, time.monotonic()
        data = await asyncio.to_thread(self._file.read, index * first.pixels.nbytes, first.pixels.nbytes)
        pixels = np.frombuffer(data, np.uint8).reshape(first.pixels.shape)
        return Frame(
            index, self._pts[index], first.time_base, pixels, first.height, first.width, began, self._captures[index]
        )

    async def nearest(self, seconds: float) -> int:
        """Wait for the end of the video; returns the index of the frame nearest to a time, the earlier of two."""
        await self.reach()
        base = self._first.time_base if self._first is not None else Fraction(1)
        distances = np.abs(np.asarray(self._pts, np.float64) * float(base) - seconds)
        return int(np.round(distances * 1e9).argmin())
