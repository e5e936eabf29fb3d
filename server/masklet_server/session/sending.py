"""Results sent while the next ones are made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType

from masklet.errors import MaskletError


class Sending:
    """Sends one result while the next is made, as a context manager whose end waits for the last one.

    After a `MaskletError` within, what was made before it is still sent; after anything else, a cancellation above all,
    it is not.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Sending:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        if kind is None or issubclass(kind, MaskletError):
            await self._task
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def next(self, coroutine: Coroutine[None, None, None]) -> None:
        """Wait until the one before is sent, and begin to send this one.

        Raises:
            Exception: What sending the one before has raised; this one is not sent then.
        """
        try:
            if self._task is not None:
                await self._task
        except BaseException:
            coroutine.close()
            raise
        self._task = asyncio.create_task(coroutine)
