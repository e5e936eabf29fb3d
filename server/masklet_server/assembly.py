"""Builds a whole server from its settings, and stops its parts in the right order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from masklet.errors import InvalidArgument
from masklet_server.budgets.free_memory import FreeMemory, give_back
from masklet_server.engine.engines import Engines
from masklet_server.engine.serving.engine import EngineOptions
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.metrics import Metrics
from masklet_server.models.registry import ModelSpec, Registry
from masklet_server.rpc import to_wire
from masklet_server.rpc.listening import check_free
from masklet_server.rpc.server import Server
from masklet_server.rpc.tracking_service import TrackingService
from masklet_server.session.restoring.store import SnapshotStore, shared_key
from masklet_server.settings import Settings
from masklet_server.snapshots.places import open_blobs
from masklet_server.tracing import open_tracer
from masklet_server.video.sandbox.layers import check_hwaccel, check_sandbox

# How often the server looks for free memory to give back.
_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class RunningServer:
    """A server that answers requests.

    Attributes:
        server: The gRPC server.
        models: The loaded models by name, the default model first.
        broken: Set when the engine has failed. The server says NOT_SERVING then, and must be started again.
    """

    server: Server
    models: Mapping[str, LoadedModel]
    broken: asyncio.Event

    @property
    def address(self) -> str:
        """The address at which clients reach the server."""
        return self.server.address


@contextlib.asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Load the models and serve while the block runs. At its end the server stops gracefully and frees everything.

    Loading blocks the event loop; nothing else runs on it yet.

    Args:
        settings: The server's settings.

    Yields:
        The running server.

    Raises:
        Unavailable: The server cannot listen on an address.
        NotFound: There is no such model.
        FailedPrecondition: A checkpoint, the device, a layer of a strict sandbox, or OpenTelemetry is missing; or
            `state_dir` cannot be used.
        DataLoss: A checkpoint is corrupt.
        InvalidArgument: A key, certificate or token file cannot be used; or two models have the same name.
        ResourceExhausted: The models do not fit into the device's memory.
    """
    check_free(settings.address)
    check_sandbox(strict=settings.sandbox == "strict")
    check_hwaccel(settings.hwaccel)
    registry = Registry.load()
    specs = _distinct([registry.resolve(name) for name in settings.models])
    metrics = Metrics()
    tracer = open_tracer(settings.otlp_endpoint)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(tracer.close)
        if settings.metrics_address:
            stack.callback(metrics.serve(settings.metrics_address).close)
        engines = Engines.load(
            specs,
            EngineOptions(
                device=settings.device,
                dtype=settings.dtype,
                runtime=settings.runtime,
                cuda_graphs=settings.cuda_graphs,
                tune=settings.tune,
                picture_cache_bytes=settings.picture_cache_bytes,
            ),
            observer=metrics,
        )
        stack.push_async_callback(engines.close)
        give_back(collect=True)  # loading takes more memory than the models
        engines.start()
        metrics.watch_bank_bytes(engines.bank_bytes)
        store = await _open_store(settings, metrics)
        service = TrackingService(engines, settings, metrics, store=store)
        stack.callback(service.close)
        server = Server(service, settings, metrics, tracer)
        stack.push_async_callback(server.stop)
        await server.start()
        broken = asyncio.Event()
        watches = [asyncio.create_task(_watch(engines, server, broken)), asyncio.create_task(_give_back_memory(server))]
        if store is not None:
            watches.append(asyncio.create_task(store.expire()))
        for watch in watches:
            stack.callback(watch.cancel)
        yield RunningServer(server, engines.models, broken)


async def _open_store(settings: Settings, metrics: Metrics) -> SnapshotStore | None:
    """Where snapshots of sessions go; None: nowhere."""
    if not settings.state_dir:
        return None
    blobs = await asyncio.to_thread(open_blobs, settings.state_dir)
    key = await shared_key(blobs, settings.state_key_file)
    return SnapshotStore(blobs, key, settings.snapshot_limits, metrics, to_wire.encoded)


def _distinct(specs: list[ModelSpec]) -> list[ModelSpec]:
    """The models themselves; InvalidArgument if two have one name, as "nano" and "nano" at its own size."""
    counts = Counter(spec.name for spec in specs)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InvalidArgument.of("models", f"names {twice[0]} more than once; name each model and size once")
    return specs


async def _watch(engines: Engines, server: Server, broken: asyncio.Event) -> None:
    """Report in the health service when the engine breaks down, so that the server can be restarted."""
    await asyncio.wrap_future(engines.broken)
    await server.not_serving()
    broken.set()


async def _give_back_memory(server: Server) -> None:
    """Give free memory back to the system when the last work has ended, and when a peak is over while work goes on."""
    free = FreeMemory()
    while True:
        idle = asyncio.ensure_future(server.became_idle())
        try:
            await asyncio.wait({idle}, timeout=_LOOK_SECONDS)
            is_idle = idle.done()
        finally:
            idle.cancel()
        if is_idle or await asyncio.to_thread(free.is_too_much):
            # Giving back takes tenths of a second, in which no other thread gets memory.
            await asyncio.to_thread(give_back, collect=is_idle)
            await asyncio.to_thread(free.given_back)
            await asyncio.sleep(_LOOK_SECONDS)
