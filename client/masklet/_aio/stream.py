"""A running Track call for asyncio: a `Stream` whose waiting happens on a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

from masklet._sync.stream import Stream

_Entered = TypeVar("_Entered", bound="AsyncStream")
_T = TypeVar("_T")


class AsyncStream:
    """What `AsyncTracking`, `AsyncLive` and `AsyncAnnotation` share: a running call, ended by `async with`.

    Args:
        stream: The call, which blocks.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        # A thread of its own: many streams that wait would use up the threads of the event loop.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "masklet-stream")
        self._closed = False

    @property
    def session_id(self) -> str:
        """The server's name for this session, as in its log; empty until the first result is here."""
        return self._stream.session_id

    @property
    def model(self) -> str:
        """The model in use; empty until the first result is here."""
        return self._stream.model

    def cancel(self) -> None:
        """End the call. Whoever waits for the server gets `Cancelled` raised."""
        self._stream.cancel()

    async def close(self) -> None:
        """End the call and free the server. May be called twice."""
        self._closed = True
        self._stream.close()
        self._thread.shutdown(wait=False)

    async def aclose(self) -> None:
        """Another name of `close`, for `contextlib.aclosing`."""
        await self.close()

    async def __aenter__(self: _Entered) -> _Entered:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _run(self, call: Callable[[], _T]) -> _T:
        """The result of a call that blocks, made on this stream's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
