"""What runs in a replica of Ray Serve: masklet's server, unchanged, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import ray
from ray import serve

from masklet_cluster.placement.directory import ADDRESS, Addresses, directory
from masklet_server.cli.process import allow_many_descriptors
from masklet_server.embedded import EmbeddedServer

NODE = "node"
"""In a worker's setting `address`: the address of its machine in Ray's network."""

logger = logging.getLogger(__name__)


class WorkerReplica:
    """One worker. Serve counts its leases: each is a stream that a gateway, or a client by itself, has here.

    Args:
        settings: The server's settings, by name.
        grace_seconds: How long streams may go on when Serve takes the replica away.
    """

    def __init__(self, settings: dict[str, Any], grace_seconds: float) -> None:
        import cv2

        cv2.setNumThreads(1)
        allow_many_descriptors()
        self._grace_seconds = grace_seconds
        context = serve.get_replica_context()
        self._name = context.replica_id.unique_id
        if settings["address"].startswith(NODE):
            settings["address"] = settings["address"].replace(NODE, ray.util.get_node_ip_address(), 1)
        self._server = EmbeddedServer(**settings)
        self._address = self._server.__enter__()
        self._was_seen = self._is_watching = False
        self._watching: asyncio.Task[None] | None = None
        # This process's own router tells when Serve has taken the replica out of service.
        self._handle = serve.get_deployment_handle(context.deployment, app_name=context.app_name)
        directory(context.app_name).listen(self._look)

    def record_replica_metadata(self) -> dict[str, str]:
        """What routers are told of the replica."""
        return {ADDRESS: self._address}

    async def describe(self, replica: str = "") -> dict[str, str]:
        """The replica's name and address."""
        return {"replica": self._name, ADDRESS: self._address}

    async def lease(self, replica: str = "") -> AsyncIterator[dict[str, str]]:
        """A place for one stream: says where it is, and stays open until the caller closes it.

        Args:
            replica: The replica that the router is to choose; empty: any.
        """
        if not self._is_watching:
            self._is_watching = True
            self._watching = asyncio.create_task(self._watch())
        yield {"replica": self._name, ADDRESS: self._address}
        await asyncio.Event().wait()

    async def check_health(self) -> None:
        """Raise an error if the server has broken down, so that Serve replaces the replica."""
        if not self._server.is_serving and not self._server.is_stopping:
            raise RuntimeError("the server of this worker does not serve any more")

    async def _watch(self) -> None:
        """Begin to look at whether Serve takes the replica away: the first request makes this process's router."""
        await self._handle.describe.remote()

    def _look(self, addresses: Addresses) -> None:
        if self._name in addresses:
            self._was_seen = True
        elif self._was_seen:
            logger.info("the worker is taken away: its streams move")
            self._server.begin_to_stop(self._grace_seconds)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # the server did not start
            self._server.__exit__()
