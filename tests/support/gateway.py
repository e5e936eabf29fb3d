"""Gateways of tests: on a thread of the test's process, with an event loop of its own; or in a process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from masklet_cluster.gateway.options import DEFAULTS, GatewayOptions
from masklet_cluster.gateway.running import running_gateway
from masklet_cluster.placement.placement import Placement
from masklet_cluster.placement.static import StaticPlacement
from masklet_cluster.placement.worker import Connection
from masklet_server.settings import checked
from tests.support.streams import free_port


class GatewayThread:
    """A gateway before some servers. Use it as a context manager.

    Args:
        servers: Their addresses.
        timeout_seconds: A server that has not answered for so long is lost.
        options: The gateway's own.
        placement: Another one than that of the servers.
        settings: Settings as of any server.

    Attributes:
        address: Where it listens.
    """

    def __init__(
        self,
        servers: Sequence[str],
        timeout_seconds: float = 10.0,
        options: GatewayOptions | None = None,
        placement: Placement | None = None,
        **settings: Any,
    ) -> None:
        self.address = ""
        self._settings = checked({"address": "127.0.0.1:0", "grace_seconds": 0.0, **DEFAULTS, **settings})
        connection = Connection(self._settings.max_message_bytes, timeout_seconds=timeout_seconds)
        self.placement: Placement = placement or StaticPlacement(servers, connection)
        self._options = options or GatewayOptions()
        self._started: Future[str] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    def __enter__(self) -> GatewayThread:
        self._thread.start()
        self.address = self._started.result(60)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        async with running_gateway(self._settings, self.placement, self._options) as server:
            self._started.set_result(server.address)
            await self._stop.wait()


class GatewayProcess:
    """A real ``masklet gateway``. Use it as a context manager.

    Args:
        servers: Their addresses.
        log: Where it prints to.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, servers: Sequence[str], log: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        program = (
            "import typer\nfrom masklet_cluster.cli import gateway\napp = typer.Typer()\napp.command()(gateway)\napp()"
        )
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, "--servers", ",".join(servers), "--address", self.address],
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> GatewayProcess:
        deadline = time.monotonic() + 120
        while "listening on" not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it without a warning (SIGKILL)."""
        self._process.kill()
        self._process.wait(30)
