"""A whole gateway: a server whose service passes calls on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from masklet_cluster.gateway.options import GatewayOptions
from masklet_cluster.gateway.service import GatewayService
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


class WorkerMetrics(Collector):
    """What Prometheus is told of the workers; a signal for scaling is the change of busy by that of up seconds.

    Args:
        placement: Knows the workers.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def collect(self) -> list[GaugeMetricFamily]:
        """The metrics of all workers, as they are now."""
        workers = GaugeMetricFamily("masklet_gateway_workers", "Workers by their state.", labels=["state"])
        streams = GaugeMetricFamily("masklet_gateway_streams", "Streams of this gateway.", labels=["worker"])
        sums = {
            "busy_seconds": "Seconds in which the worker's devices computed.",
            "up_seconds": "Seconds since the worker's start, times its devices.",
            "queue_seconds": "Seconds that jobs have waited for the worker's devices.",
            "jobs": "Jobs that the worker's devices have begun.",
            "sessions": "Sessions of the worker, of all gateways.",
            "bank_bytes": "Bytes of the worker's memory banks.",
        }
        loads = {
            name: GaugeMetricFamily(f"masklet_gateway_worker_{name}", text, labels=["worker"])
            for name, text in sums.items()
        }
        reports = self._placement.workers()
        for state in ("serving", "draining", "lost"):
            workers.add_metric([state], sum(one.state == state for one in reports))
        for one in reports:
            streams.add_metric([one.name], one.streams)
            for name, family in loads.items():
                family.add_metric([one.name], getattr(one.info.load, name))
        return [workers, streams, *loads.values()]
