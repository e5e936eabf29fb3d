"""A fixed list of servers, each watched by its health service."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import get_args

from masklet.errors import InvalidArgument, Unavailable
from masklet_cluster.placement.placement import Lease, LeaseRequest, State, WorkerReport
from masklet_cluster.placement.worker import Connection, Worker
from masklet_server.addresses import split_address

_RETRY_SECONDS = 1.0


class StaticPlacement:
    """Places streams on servers that somebody else starts.

    A session goes back to the server that has it. Other streams go to the server that has their model loaded and is the
    least busy.

    Args:
        addresses: HOST:PORT of each server.
        connection: How to talk to them.

    Raises:
        InvalidArgument: There is no address, or one is malformed or named twice.
    """

    def __init__(self, addresses: Sequence[str], connection: Connection) -> None:
        if not addresses:
            raise InvalidArgument.of("servers", "is empty; give the address of at least one server, as HOST:PORT")
        for address in addresses:
            if split_address(address) is None:
                raise InvalidArgument.of("servers", f"{address!r} is not HOST:PORT or [IPV6]:PORT")
        if len(set(addresses)) < len(addresses):
            raise InvalidArgument.of("servers", "names a server twice; name each once")
        self._addresses = tuple(addresses)
        self._connection = connection
        self._workers: list[Worker] = []

    async def start(self) -> None:
        """Connect to the servers, and ask each once; those that do not answer may come later."""
        self._workers = [Worker(address, address, self._connection) for address in self._addresses]
        for worker in self._workers:
            worker.start()
        await asyncio.gather(*(worker.first_probe() for worker in self._workers))

    async def close(self) -> None:
        """Close all connections to servers."""
        await asyncio.gather(*(worker.close() for worker in self._workers))

    def workers(self) -> Sequence[WorkerReport]:
        """What is known of each server now."""
        return [worker.report() for worker in self._workers]

    @contextlib.asynccontextmanager
    async def lease(self, request: LeaseRequest) -> AsyncIterator[Lease]:
        """A place on a server until the block ends.

        Raises:
            Unavailable: No server can take the stream now.
        """
        async with self._choose(request).lease() as lease:
            yield lease

    def _choose(self, request: LeaseRequest) -> Worker:
        chosen = choose(self._workers, request)
        if chosen is None:
            counts = Counter(one.state for one in self._workers)  # no addresses: clients see this
            states = ", ".join(f"{counts[state]} {state}" for state in get_args(State) if counts[state])
            raise Unavailable(
                f"no server takes the request now ({states}); try again later", retry_after_seconds=_RETRY_SECONDS
            )
        return chosen


def choose(workers: Sequence[Worker], request: LeaseRequest) -> Worker | None:
    """The worker for a stream; None if there is none.

    Args:
        workers: All workers.
        request: What is known of the stream.
    """
    # A session's own worker is asked also while it drains or is full: it says best what is to be done.
    for worker in workers:
        is_own = bool(request.instance_id) and worker.instance_id == request.instance_id
        if is_own and worker.state == "serving" and worker.name not in request.avoid and not worker.is_doubted:
            return worker
    serving = [one for one in workers if one.state == "serving" and one.name not in request.avoid]
    return min(
        [one for one in serving if not one.is_doubted] or serving,
        key=lambda one: (
            not one.may_load(request.model),
            not one.has(request.model),
            one.is_full,
            round(one.load, 1),
            one.streams,
            one.name,
        ),
        default=None,
    )
