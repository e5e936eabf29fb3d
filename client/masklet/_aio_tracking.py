"""`Tracking` for asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from masklet._results import FrameResult, VideoInfo
from masklet._tracking import Tracking
from masklet.prompts import Prompt

_Entered = TypeVar("_Entered", bound="AsyncTracking")
_T = TypeVar("_T")


class AsyncTracking(AsyncIterator[FrameResult]):
    """A running `AsyncClient.track`: an asynchronous iterator over frames, and a context manager that ends the call."""

    def __init__(self, tracking: Tracking, source: OnLoop | None) -> None:
        self._tracking = tracking
        self._source = source
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "masklet-track")
        self._ended = False

    @property
    def session_id(self) -> str:
        """The server's name for this session, as in its log; empty until the first result is here."""
        return self._tracking.session_id

    @property
    def model(self) -> str:
        """The model in use; empty until the first result is here."""
        return self._tracking.model

    @property
    def video(self) -> VideoInfo | None:
        """What the video's header says; None until the first result is here."""
        return self._tracking.video

    def add_prompt(self, prompt: Prompt) -> None:
        """Prompt while the video runs, or correct a frame that was tracked; as `Tracking.add_prompt`."""
        self._tracking.add_prompt(prompt)

    def remove_object(self, object_id: int) -> None:
        """Stop following an object from the next frame to be tracked."""
        self._tracking.remove_object(object_id)

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back what was said of an object on a frame, if it was not applied yet."""
        self._tracking.clear_prompts(object_id, frame_index)

    def cancel(self) -> None:
        """End the call; a loop that waits for a frame raises `Cancelled`."""
        self._tracking.cancel()
        if self._source is not None:
            self._source.close()

    async def aclose(self) -> None:
        """End the call and free the server; iteration stops. May be called twice."""
        self._ended = True
        self.cancel()
        self._thread.shutdown(wait=False)

    async def __aenter__(self: _Entered) -> _Entered:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._tracking.cancel()

    def __aiter__(self) -> AsyncTracking:
        return self

    async def __anext__(self) -> FrameResult:
        frame = None
        if not self._ended:
            loop = asyncio.get_running_loop()
            try:
                frame = await loop.run_in_executor(self._thread, next, self._tracking, None)
            finally:
                if frame is None:  # the end, an error, or this task was cancelled
                    await self.aclose()
        if frame is None:
            raise StopAsyncIteration
        return frame


def on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[_T], None] | None) -> Callable[[_T], None] | None:
    """The callback for other threads than the loop's, if there is one."""
    if callback is None:
        return None

    def call(value: _T) -> None:
        loop.call_soon_threadsafe(callback, value)

    return call


class OnLoop(Iterator[npt.NDArray[np.uint8]]):
    """An asynchronous iterable as an ordinary one, for the thread that sends it."""

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
        """Give up waiting for the next item."""
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()
