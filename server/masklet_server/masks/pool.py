"""A few threads for work on masks, so that none of it holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.runs import Box, Runs

T = TypeVar("T")

# Runs whose encoding takes less than to hand it over to a thread and back, a tenth of a millisecond.
_FEW_RUNS = 2000


@dataclass(frozen=True)
class MeasuredMask:
    """A mask ready to be sent; `box` and `area` are those of `Runs`."""

    encoded: EncodedMask
    box: Box | None
    area: int


class MaskPool:
    """Encodes, measures and decodes masks in threads of its own; shared by all sessions.

    Args:
        threads: How many; OpenCV and NumPy release the interpreter for most of the work.
    """

    def __init__(self, threads: int = 2) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="masks")

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, called in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def prepare(self, runs: Runs, encoding: MaskEncoding) -> MeasuredMask:
        """Encode and measure a mask, at once where that is quick."""
        if encoding is not MaskEncoding.PNG and len(runs.lengths) <= _FEW_RUNS:
            return _measured(runs, encoding)
        return await self.run(lambda: _measured(runs, encoding))

    def close(self) -> None:
        """Let the threads go; work that has not begun is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _measured(runs: Runs, encoding: MaskEncoding) -> MeasuredMask:
    return MeasuredMask(encode(runs, encoding), runs.box, runs.area)
