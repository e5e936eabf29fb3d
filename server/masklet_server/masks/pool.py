"""A few threads that draw, encode, measure and decode masks, so that the event loop does not have to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from masklet.errors import DataLoss, InvalidArgument
from masklet_server.budgets.turns import Turns
from masklet_server.masks.drawing import Drawing
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, check_data, decode, encode, of_picture
from masklet_server.masks.runs import Box, Runs

T = TypeVar("T")

DecodePng = Callable[[bytes, str], Awaitable[npt.NDArray[np.uint8]]]
"""Makes ``uint8[H, W, 3]`` of a PNG's bytes and a client's name, in a sandbox; its errors name the field "data"."""

# PNGs that are at full size at a time.
_PNGS = 2
# Encoding so many runs takes less time than a call in another thread, which takes a tenth of a millisecond.
_FEW_RUNS = 2000


@dataclass(frozen=True)
class MeasuredMask:
    """A mask that is ready to be sent.

    Attributes:
        encoded: The mask itself.
        box: As in `Runs.box`.
        area: As in `Runs.area`.
    """

    encoded: EncodedMask
    box: Box | None
    area: int


class MaskPool:
    """Draws, encodes, measures and decodes masks in its own threads; all sessions share one pool.

    Clients are served in rotation, and one of them leaves a thread and a core to the others: to draw a mask of 35
    megapixels takes a second, and a frame of a live stream waits for its masks.

    Args:
        threads: Number of threads. OpenCV and NumPy release the interpreter lock for most of the work.
        decode_png: Decodes clients' PNGs; None: there are none.
    """

    def __init__(self, threads: int = 3, decode_png: DecodePng | None = None) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="masks")
        self._turns = Turns(threads, max(1, min(threads, len(os.sched_getaffinity(0))) - 1))
        # Not the same turns: a PNG may take its sandbox seconds, and the threads have others' results to encode.
        self._png_turns = Turns(_PNGS, _PNGS - 1)
        self._decode_png = decode_png

    def of(self, client: str) -> MaskPool:
        """The same threads for the work of one client."""
        return _PoolOfClient(self, client)

    async def run(self, work: Callable[[], T]) -> T:
        """Call `work` in one of the threads, when it is the client's turn, and return its result."""
        return await self.run_for("", work)

    async def run_for(self, client: str, work: Callable[[], T]) -> T:
        """As `run`, for one of the clients."""
        async with self._turns.turn(client):
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def decode(self, mask: EncodedMask, use: Callable[[npt.NDArray[np.bool_]], T]) -> T:
        """Decode a client's mask, and call `use` with its pixels in one of the threads, when it is the client's turn.

        A few bytes may stand for 35 megapixels, so `use` keeps none of them.

        Args:
            mask: It was checked against the limits.
            use: Gets ``bool[H, W]``.

        Raises:
            InvalidArgument: The field "data" is malformed, or has another size than the mask.
            ResourceExhausted: It is a PNG, and decoders have too little memory, or take too long.
        """
        return await self.decode_for("", mask, use)

    async def decode_for(self, client: str, mask: EncodedMask, use: Callable[[npt.NDArray[np.bool_]], T]) -> T:
        """As `decode`, for one of the clients."""
        if mask.encoding is not MaskEncoding.PNG:
            return await self.run_for(client, lambda: use(decode(mask)))
        check_data(mask)
        async with self._png_turns.turn(client):
            picture = await self._picture(mask, client)
            return await self.run_for(client, lambda: use(of_picture(mask, picture)))

    async def _picture(self, mask: EncodedMask, client: str) -> npt.NDArray[np.uint8]:
        if self._decode_png is None:
            raise InvalidArgument.of("encoding", "must be COCO_RLE here")
        try:
            return await self._decode_png(mask.data, client)
        except DataLoss as error:
            raise InvalidArgument.of("data", f"is a broken PNG file: {error.message}") from error

    async def prepare(self, mask: Runs | Drawing, encoding: MaskEncoding) -> MeasuredMask:
        """Draw, encode and measure a mask: in the calling thread if that is quick, else in another one."""
        if isinstance(mask, Drawing) and not mask.is_drawn:
            return await self.run(lambda: _measured(mask.runs, encoding))
        runs = mask.runs if isinstance(mask, Drawing) else mask
        if encoding is not MaskEncoding.PNG and len(runs.lengths) <= _FEW_RUNS:
            return _measured(runs, encoding)
        return await self.run(lambda: _measured(runs, encoding))

    def close(self) -> None:
        """End the threads; work that has not begun is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class _PoolOfClient(MaskPool):
    """The threads of a pool as one client sees them."""

    def __init__(self, pool: MaskPool, client: str) -> None:
        self._pool = pool
        self._client = client

    def of(self, client: str) -> MaskPool:
        """The same threads for another client."""
        return self._pool.of(client)

    async def run_for(self, client: str, work: Callable[[], T]) -> T:
        """Call `work` when it is the turn of the client whose view of the pool this is."""
        return await self._pool.run_for(client or self._client, work)

    async def decode_for(self, client: str, mask: EncodedMask, use: Callable[[npt.NDArray[np.bool_]], T]) -> T:
        """Decode when it is the turn of the client whose view of the pool this is."""
        return await self._pool.decode_for(client or self._client, mask, use)

    def close(self) -> None:
        """Do nothing: the threads belong to all clients."""


def _measured(runs: Runs, encoding: MaskEncoding) -> MeasuredMask:
    return MeasuredMask(encode(runs, encoding), runs.box, runs.area)
