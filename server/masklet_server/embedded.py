"""A whole server inside the caller's process, for programs that do not want to run one of their own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from masklet_server.settings import checked

if TYPE_CHECKING:
    from masklet_server.assembly import RunningServer  # brings torch


class EmbeddedServer:
    """A server on a free port of this machine. It runs while the ``with`` block does, on a thread with an event loop.

    >>> with EmbeddedServer("nano") as address:
    ...     ...  # masklet.Client(address)

    Args:
        model: Name of the model to load; None: nano, which ships with masklet.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32" or "bfloat16".
        overrides: Other settings by name, as in `Settings`. The environment and configuration files are not read.

    Raises:
        InvalidArgument: A setting is wrong or unknown.
    """

    def __init__(self, model: str | None = None, device: str = "auto", dtype: str = "auto", **overrides: Any) -> None:
        values: dict[str, Any] = {"address": "127.0.0.1:0", "grace_seconds": 0.0, "device": device, "dtype": dtype}
        if model is not None:
            values["models"] = (model,)
        self._settings = checked({**values, **overrides})
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._leaving = False
        self._running: RunningServer | None = None
        self._stopping: Future[None] | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether `begin_to_stop` was called, or the block has ended."""
        return self._leaving or self._stopping is not None

    @property
    def is_serving(self) -> bool:
        """Whether the server runs, and its engine has not failed."""
        running = self._running
        return running is not None and not self.is_stopping and not running.broken.is_set()

    def begin_to_stop(self, grace_seconds: float) -> None:
        """Have the server stop while the block still runs: it tells clients that they have to move; from any thread.

        Args:
            grace_seconds: How long running requests may go on.
        """
        if self._loop is not None and self._running is not None and self._stopping is None:
            stopped = self._running.server.stop(grace_seconds)
            self._stopping = asyncio.run_coroutine_threadsafe(stopped, self._loop)

    def __enter__(self) -> str:
        """Start the server.

        Returns:
            The address, once the server answers.

        Raises:
            MaskletError: The server cannot start; NotFound, for instance, for an unknown model.
        """
        if self._thread is not None:
            raise RuntimeError("this server was started already; make another EmbeddedServer")
        started: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="masklet-embedded-server", daemon=True)
        self._thread.start()
        try:
            return started.result()
        except BaseException:
            self._shut_down()  # also after an interrupt while it starts
            raise

    def __exit__(self, *exc_info: object) -> None:
        self._shut_down()

    def _run(self, started: Future[str]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[str]) -> None:
        from masklet_server.assembly import running_server

        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._leaving:  # interrupted before the loop existed
            return
        async with running_server(self._settings) as running:
            self._running = running
            started.set_result(running.address)
            await self._stop.wait()

    def _shut_down(self) -> None:
        if self._thread is None:
            return
        self._leaving = True
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
