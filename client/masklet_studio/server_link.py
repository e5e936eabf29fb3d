"""The server that tracks: one that runs somewhere, or one that is still being started in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from masklet import AsyncClient
from masklet.errors import FailedPrecondition


class ServerLink:
    """Gives the client of a server, once there is one.

    So the page is there before a server in this process has loaded its model.

    Args:
        start: Starts what is needed, and makes the client; called once, on a thread.
        end: Ends what `start` has started; called on a thread.
    """

    def __init__(self, start: Callable[[], AsyncClient], end: Callable[[], None] = lambda: None) -> None:
        self._start = start
        self._end = end
        self._starting: asyncio.Task[AsyncClient] | None = None
        self._closed = False

    def begin(self) -> None:
        """Begin to start the server, if that was not begun yet."""
        if self._starting is None:
            self._starting = asyncio.create_task(asyncio.to_thread(self._start))

    @property
    def is_there(self) -> bool:
        """Whether there is a client."""
        return self._starting is not None and self._starting.done()

    async def client(self) -> AsyncClient:
        """The client; waits until the server was started.

        Raises:
            MaskletError: The server cannot be started.
        """
        if self._closed:
            raise FailedPrecondition("the studio is closed")
        self.begin()
        assert self._starting is not None
        return await asyncio.shield(self._starting)

    async def close(self) -> None:
        """End the connection and the server. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._starting is not None:
            results = await asyncio.gather(self._starting, return_exceptions=True)
            for result in results:
                if isinstance(result, AsyncClient):
                    await result.close()
            await asyncio.to_thread(self._end)
