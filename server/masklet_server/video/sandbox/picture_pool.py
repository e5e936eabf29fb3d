"""Single pictures at full size, decoded by a few processes that are used again and again."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from masklet.errors import MaskletError
from masklet_server.budgets.decoder_memory import memory_of
from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.budgets.turns import Turns
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox.picture_process import PictureProcess

_MAX_PROCESSES = 4
# One client leaves a process and a core to others, however many pictures it sends.
_MAX_PROCESSES_OF_A_CLIENT = max(1, min(_MAX_PROCESSES, len(os.sched_getaffinity(0))) - 1)
_CPU_SECONDS = 600
# A process that has more memory after a picture is not kept for the next one.
_KEPT_BYTES = 128 * 1024**2


async def decode_picture(
    picture: Picture, limits: VideoLimits, share: ClientShare = UNBOUNDED
) -> npt.NDArray[np.uint8]:
    """Decode one picture, as shown, in a sandboxed process. Clients are served in rotation.

    Processes are started when they are first needed, at most four for each value of `limits`. They are kept for further
    pictures, and replaced when they die.

    Returns:
        ``uint8[H, W, 3]`` RGB at full size; transparent pixels are put on black.

    Raises:
        InvalidArgument: The field "data" is no picture of an allowed format.
        DataLoss: The picture is damaged.
        ResourceExhausted: The picture is larger, or takes longer, than `limits` allow, or decoders have too little
            memory.
    """
    return await pool_for(limits).decode(picture, share)


class PicturePool:
    """Idle decoding processes, and the threads that wait for busy ones.

    Args:
        limits: What each picture may cost. The processor time is not taken from here: a process has 600 seconds for all
            of its pictures, and `picture_cpu_seconds` for each.
    """

    def __init__(self, limits: VideoLimits) -> None:
        self._limits = dataclasses.replace(limits, decoder_cpu_seconds=_CPU_SECONDS)
        self._idle: list[PictureProcess] = []
        self._lock = threading.Lock()
        # Several event loops may use the pool, each on a thread of its own. The number of threads bounds them together.
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()
        self._threads = ThreadPoolExecutor(_MAX_PROCESSES, thread_name_prefix="masklet-picture")
        atexit.register(self.close)

    @property
    def idle_pids(self) -> list[int]:
        """Process ids of the processes that wait for a picture, the next one to be used last."""
        with self._lock:
            return [process.pid for process in self._idle]

    async def decode(self, picture: Picture, share: ClientShare = UNBOUNDED) -> npt.NDArray[np.uint8]:
        """Decode one picture; see `decode_picture`."""
        loop = asyncio.get_running_loop()
        turns = self._turns.setdefault(loop, Turns(_MAX_PROCESSES, _MAX_PROCESSES_OF_A_CLIENT))
        async with turns.turn(share.client):
            return await loop.run_in_executor(self._threads, self._decode, picture, share)

    def _decode(self, picture: Picture, share: ClientShare) -> npt.NDArray[np.uint8]:
        with contextlib.closing(share.admit_decoder()) as lease:
            process = self._take()
            lease.started(process.pid, process.kill)
            try:
                return process.decode(picture)
            except MaskletError:
                if lease.error is not None:
                    raise lease.error from None
                raise
            finally:
                self._give_back(process)

    def _take(self) -> PictureProcess:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_usable:
                    return process
                process.close()
        return PictureProcess(self._limits)

    def _give_back(self, process: PictureProcess) -> None:
        if process.is_usable and memory_of(process.pid) < _KEPT_BYTES:
            with self._lock:
                self._idle.append(process)
        else:
            process.close()

    def close(self) -> None:
        """End the processes that are idle now."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


@functools.cache
def pool_for(limits: VideoLimits) -> PicturePool:
    """The pool of these limits; made when it is first asked for, and kept until the program ends."""
    return PicturePool(limits)
