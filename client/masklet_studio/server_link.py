"""The server that tracks: one that runs somewhere, or one that is still being started in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from masklet import AsyncClient
from masklet.errors import FailedPrecondition


class ServerLink:
    """Gives the client of a server, once there is one.

    So the page is there before a server in this process has loaded its model. To import torch and load a model takes
    the processor for seconds: a person sees the first picture before that.

    Args:
        start: Starts what is needed, and makes the client; called once, on a thread.
        end: Ends what `start` has started; called on a thread.
        hold_seconds: How long `start` waits for `picture_is_there`, at most.
    """

    def __init__(
        self, start: Callable[[], AsyncClient], end: Callable[[], None] = lambda: None, *, hold_seconds: float = 0.0
    ) -> None:
        self._start = start
        self._end = end
        self._hold_seconds = hold_seconds
        self._picture = asyncio.Event()
        self._starting: asyncio.Task[AsyncClient] | None = None
        self._closed = False

    def begin(self) -> None:
        """Begin to start the server, if that was not begun yet."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._begin())

    async def _begin(self) -> AsyncClient:
        if self._hold_seconds:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._picture.wait(), self._hold_seconds)
            self._check_open()  # it may have been closed meanwhile
        return await asyncio.to_thread(self._start)

    def picture_is_there(self) -> None:
        """The page has a picture to show: from now on the server may take the processor."""
        self._picture.set()

    @property
    def is_there(self) -> bool:
        """Whether there is a client."""
        return self._starting is not None and self._starting.done()

    async def client(self) -> AsyncClient:
        """The client; waits until the server was started.

        Raises:
            MaskletError: The server cannot be started.
        """
        self._check_open()
        self.begin()
        assert self._starting is not None
        return await asyncio.shield(self._starting)

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("the studio is closed")

    async def close(self) -> None:
        """End the connection and the server. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.picture_is_there()
        if self._starting is not None:
            results = await asyncio.gather(self._starting, return_exceptions=True)
            for result in results:
                if isinstance(result, AsyncClient):
                    await result.close()
            await asyncio.to_thread(self._end)
