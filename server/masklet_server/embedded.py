"""A whole server inside the caller's process, for programs that want masklet without running one."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

from masklet_server.settings import checked


class EmbeddedServer:
    """Serves on a free port of this machine while the ``with`` block runs, on a thread with its own event loop.

    >>> with EmbeddedServer("nano") as address:
    ...     ...  # masklet.Client(address)

    Args:
        model: Name of the model; None: the bundled one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32" or "bfloat16".
        overrides: Further settings by name. Neither the environment nor a configuration file is read.

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

    def __enter__(self) -> str:
        """Start; returns the address once the server answers.

        Raises:
            MaskletError: Whatever keeps the server from starting, such as NotFound for an unknown model.
        """
        if self._thread is not None:
            raise RuntimeError("this server has been started already")
        started: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="masklet-embedded-server", daemon=True)
        self._thread.start()
        try:
            return started.result()
        except BaseException:
            self._shut_down()  # an interrupt in the midst of starting, too
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
        if self._leaving:  # interrupted before there was a loop to tell
            return
        async with running_server(self._settings) as running:
            started.set_result(running.address)
            await self._stop.wait()

    def _shut_down(self) -> None:
        if self._thread is None:
            return
        self._leaving = True
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
