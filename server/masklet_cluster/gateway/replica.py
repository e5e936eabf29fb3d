"""A gateway in a replica of Ray Serve, for clusters that Serve's own configuration describes (KubeRay)."""

from __future__ import annotations

import contextlib
from typing import Any

from masklet_cluster.gateway.options import GatewayOptions
from masklet_cluster.gateway.running import running_gateway
from masklet_cluster.placement.ray import RayPlacement
from masklet_cluster.placement.worker import Connection
from masklet_server.cli.process import allow_many_descriptors
from masklet_server.rpc.server import Server
from masklet_server.settings import checked


class GatewayReplica:
    """One gateway. It listens on a port of its own; Serve starts it, and starts it again when it has died.

    Args:
        workers: Serve's handle of the workers.
        settings: The gateway's settings, by name.
        direct: Tell clients the workers' addresses.
        worker_timeout: A worker that has not answered for so many seconds is lost.
    """

    # Serve waits for it, and for __del__.
    async def __init__(  # type: ignore[misc]
        self, workers: Any, settings: dict[str, Any], direct: bool, worker_timeout: float
    ) -> None:
        allow_many_descriptors()
        chosen = checked(settings)
        connection = Connection(chosen.max_message_bytes, timeout_seconds=worker_timeout)
        placement = RayPlacement(workers.app_name, workers.deployment_name, connection)
        options = GatewayOptions(chosen.idle_timeout_seconds, direct)
        self._stack = contextlib.AsyncExitStack()
        self._server: Server = await self._stack.enter_async_context(running_gateway(chosen, placement, options))

    async def address(self) -> str:
        """HOST:PORT where the gateway listens."""
        return self._server.address

    async def __del__(self) -> None:
        """Serve takes the replica away: streams that run have the setting `grace_seconds` to end."""
        with contextlib.suppress(AttributeError):  # the gateway did not start
            await self._stack.aclose()
