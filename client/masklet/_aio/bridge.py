"""From the event loop to the threads that gRPC uses, and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterable, Callable, Iterator
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from masklet._protocol.options import SessionOptions, TrackOptions

_T = TypeVar("_T")
_Options = TypeVar("_Options", bound=SessionOptions)


def on_this_loop(options: _Options) -> _Options:
    """The options, with functions that other threads call made to run on the running event loop."""
    loop = asyncio.get_running_loop()
    given = cast("TrackOptions", options)
    bridged = cast("TrackOptions", options.copy())
    if (on_resume := given.get("on_resume")) is not None:
        bridged["on_resume"] = _called_on(loop, on_resume)
    if (on_prompt := given.get("on_prompt")) is not None:
        bridged["on_prompt"] = _called_on(loop, on_prompt)
    if (on_error := given.get("on_error")) is not None:
        bridged["on_error"] = _called_on(loop, on_error)
    return cast("_Options", bridged)


def _called_on(loop: asyncio.AbstractEventLoop, function: Callable[[_T], None]) -> Callable[[_T], None]:
    def call(value: _T) -> None:
        loop.call_soon_threadsafe(function, value)

    return call


class FromLoop(Iterator[npt.NDArray[np.uint8]]):
    """An asynchronous iterable as an ordinary one, for the thread that sends its items.

    Args:
        items: What to iterate over.
        loop: The event loop on which the items are made.
    """

    def __init__(self, items: AsyncIterable[npt.NDArray[np.uint8]], loop: asyncio.AbstractEventLoop) -> None:
        self._items = aiter(items)
        self._loop = loop
        self._pending: concurrent.futures.Future[npt.NDArray[np.uint8] | None] | None = None
        self._closed = False

    def __next__(self) -> npt.NDArray[np.uint8]:
        if self._closed:
            raise StopIteration
        self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        item = self._pending.result()
        if item is None:
            raise StopIteration
        return item

    async def _next(self) -> npt.NDArray[np.uint8] | None:
        return await anext(self._items, None)

    def close(self) -> None:
        """Stop waiting for the next item."""
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()
