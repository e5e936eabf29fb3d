"""Workers that are replicas of Ray Serve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from ray import serve

from masklet.errors import Unavailable
from masklet_cluster.placement.directory import Addresses, directory
from masklet_cluster.placement.placement import Lease, LeaseRequest, WorkerReport
from masklet_cluster.placement.static import choose
from masklet_cluster.placement.worker import Connection, Worker

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_LEASE_SECONDS = 3.0
_LOOK_SECONDS = 0.2


class RayPlacement:
    """Places streams on workers that Ray Serve runs, and holds a lease at Serve for each stream.

    The gateway itself chooses the worker, as `StaticPlacement` does. The lease tells Serve, which counts streams: it
    starts workers where there are many, and takes none away before its leases have ended.

    Args:
        application: The name of Serve's application.
        deployment: The name of the workers' deployment in it.
        connection: How to talk to workers.
    """

    def __init__(self, application: str, deployment: str, connection: Connection) -> None:
        self._application = application
        self._deployment = deployment
        self._connection = connection
        self._workers: dict[str, Worker] = {}
        self._leaving: dict[str, Worker] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._handle: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Find the workers, and ask each once."""
        self._loop = asyncio.get_running_loop()
        self._handle = serve.get_deployment_handle(self._deployment, app_name=self._application)
        await self._handle.describe.remote()  # the first request makes the router, which tells of all workers
        directory(self._application).listen(self._changed)
        self._tending = asyncio.create_task(self._tend())
        await asyncio.sleep(0)
        await asyncio.gather(*(worker.first_probe() for worker in self._workers.values()))

    async def close(self) -> None:
        """Close all connections to workers."""
        directory(self._application).forget(self._changed)
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        workers = [*self._workers.values(), *self._leaving.values()]
        await asyncio.gather(*(worker.close() for worker in workers), *self._closing)

    def workers(self) -> Sequence[WorkerReport]:
        """What is known of each worker now; one that is taken away is draining until its streams have ended."""
        leaving = [WorkerReport(one.name, "draining", one.streams, one.report().info) for one in self._leaving.values()]
        return [*(worker.report() for worker in self._workers.values()), *leaving]

    @contextlib.asynccontextmanager
    async def lease(self, request: LeaseRequest) -> AsyncIterator[Lease]:
        """A place on a worker until the block ends.

        Raises:
            Unavailable: No worker can take the stream now.
        """
        avoid = set(request.avoid)
        while True:
            worker = choose(list(self._workers.values()), replace(request, avoid=frozenset(avoid)))
            if worker is None:
                raise Unavailable(
                    f"none of {len(self._workers)} workers takes the request now; try again later",
                    retry_after_seconds=_RETRY_SECONDS,
                )
            async with worker.lease() as lease:  # counted from here on, so that the next stream is placed elsewhere
                answers = self._handle.options(stream=True).lease.remote(replica=worker.name)
                try:
                    if await self._has_given(answers, worker):
                        yield lease
                        return
                finally:
                    answers.cancel()
            worker.doubt()
            avoid.add(worker.name)

    async def _has_given(self, answers: Any, worker: Worker) -> bool:
        """Whether Serve has given the worker's place."""
        try:
            given: dict[str, str] = await asyncio.wait_for(anext(answers), _LEASE_SECONDS)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            logger.warning("worker %s gave no place within %g s", worker.name, _LEASE_SECONDS)
            return False
        except Exception as error:  # noqa: BLE001 - Ray raises whatever has happened to the replica
            logger.warning("worker %s gave no place: %s", worker.name, error)
            return False
        if given["replica"] != worker.name:
            logger.info("worker %s is taken away", worker.name)
        return given["replica"] == worker.name

    # The workers come and go

    def _changed(self, addresses: Addresses) -> None:
        """On a thread of Serve."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._follow, addresses)

    def _follow(self, addresses: Addresses) -> None:
        for name, address in addresses.items():
            if name not in self._workers and address:
                logger.info("worker %s at %s has come", name, address)
                self._workers[name] = worker = Worker(name, address, self._connection)
                worker.start()
        for name in self._workers.keys() - addresses.keys():
            logger.info("worker %s is taken away", name)
            self._leaving[name] = self._workers.pop(name)

    async def _tend(self) -> None:
        """Close the connections to workers that are gone once their streams have ended."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for name in [name for name, worker in self._leaving.items() if not worker.streams]:
                task = asyncio.create_task(self._leaving.pop(name).close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
