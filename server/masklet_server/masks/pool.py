"""A few threads that draw, encode, measure and decode masks, so that the event loop does not have to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from masklet_server.budgets.turns import Turns
from masklet_server.masks.drawing import Drawing
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.runs import Box, Runs

T = TypeVar("T")

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

    Clients are served in rotation.

    Args:
        threads: Number of threads. OpenCV and NumPy release the interpreter lock for most of the work.
    """

    def __init__(self, threads: int = 2) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="masks")
        self._turns = Turns(threads, threads)

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

    def close(self) -> None:
        """Do nothing: the threads belong to all clients."""


def _measured(runs: Runs, encoding: MaskEncoding) -> MeasuredMask:
    return MeasuredMask(encode(runs, encoding), runs.box, runs.area)
