"""A whole gateway: a server whose service passes calls on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from masklet_cluster.gateway.options import GatewayOptions
from masklet_cluster.gateway.service import GatewayService
from masklet_cluster.gateway.worker_metrics import WorkerMetrics
from masklet_cluster.placement.placement import Placement
from masklet_server.metrics import Metrics
from masklet_server.rpc.listening import check_free
from masklet_server.rpc.server import Server
from masklet_server.settings import Settings
from masklet_server.tracing import open_tracer

_LOOK_SECONDS = 0.5


@contextlib.asynccontextmanager
async def running_gateway(settings: Settings, placement: Placement, options: GatewayOptions) -> AsyncIterator[Server]:
    """Serve while the block runs; at its end the gateway stops gracefully.

    Args:
        settings: As of any server; those about models and videos are not used.
        placement: Chooses workers. It is started and closed here.
        options: The gateway's own.

    Yields:
        The running server.

    Raises:
        Unavailable: The gateway cannot listen on an address.
        InvalidArgument: A key, certificate or token file cannot be used.
    """
    check_free(settings.address)
    metrics = Metrics()
    metrics.registry.register(WorkerMetrics(placement))
    tracer = open_tracer(settings.otlp_endpoint)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(tracer.close)
        if settings.metrics_address:
            stack.callback(metrics.serve(settings.metrics_address).close)
        await placement.start()
        stack.push_async_callback(placement.close)
        service = GatewayService(placement, options)
        stack.callback(service.close)
        server = Server(service, settings, metrics, tracer)
        stack.push_async_callback(server.stop)
        await server.start()
        watch = asyncio.create_task(_watch(placement, server))
        stack.callback(watch.cancel)
        yield server


async def _watch(placement: Placement, server: Server) -> None:
    """Report in the health service whether there is a worker that takes streams."""
    said = True
    while True:
        is_serving = any(one.state == "serving" for one in placement.workers())
        if is_serving != said:
            await (server.serving() if is_serving else server.not_serving())
            said = is_serving
        await asyncio.sleep(_LOOK_SECONDS)
