"""What a gateway asks of whatever places its streams, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import grpc

from masklet.v1 import server_info_pb2

State = Literal["serving", "draining", "lost"]


@dataclass(frozen=True)
class LeaseRequest:
    """What is known of a stream before it has a worker.

    Attributes:
        model: The model's name; empty for the default model.
        instance_id: The worker that has the session; empty: none has it.
        avoid: Names of workers that have just refused the stream.
    """

    model: str = ""
    instance_id: str = ""
    avoid: frozenset[str] = frozenset()


class Lost:
    """Whether a worker is lost: it cannot be reached any more, or does not answer."""

    def __init__(self) -> None:
        self.is_set = False
        self._tasks: dict[object, Callable[[], object]] = {}

    def call(self, task: Callable[[], object]) -> Callable[[], object]:
        """Have a function called once the worker is lost, at once if it is; returns one that takes this back."""
        key = object()
        self._tasks[key] = task
        if self.is_set:
            self._tasks.pop(key)()
        return lambda: self._tasks.pop(key, None)

    def set(self) -> None:
        """The worker is lost: call all functions."""
        self.is_set = True
        while self._tasks:
            self._tasks.popitem()[1]()


@dataclass(frozen=True)
class Lease:
    """A worker's place for one stream.

    Attributes:
        name: The gateway's name for the worker.
        address: HOST:PORT.
        instance_id: The worker's; empty if it has not told it yet.
        channel: To the worker; others use it as well.
        lost: Whether the worker is lost.
        doubt: To be called when a connection to the worker has broken: it is asked at once whether it still serves, and
            gets no stream before it has answered, if there is another one.
    """

    name: str
    address: str
    instance_id: str
    channel: grpc.aio.Channel
    lost: Lost
    doubt: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class WorkerReport:
    """What a gateway knows of a worker.

    Attributes:
        name: The gateway's name for it.
        state: Whether it takes new streams.
        streams: Streams that this gateway has there.
        info: What it has told of itself last; empty before it has told anything.
    """

    name: str
    state: State
    streams: int = 0
    info: server_info_pb2.GetServerInfoResponse = field(default_factory=server_info_pb2.GetServerInfoResponse)


class Placement(Protocol):
    """Chooses a worker for each stream."""

    async def start(self) -> None:
        """Begin to look at the workers."""

    async def close(self) -> None:
        """Close all connections to workers."""

    def lease(self, request: LeaseRequest) -> AbstractAsyncContextManager[Lease]:
        """A place for one stream, until the block ends.

        Raises:
            Unavailable: No worker takes the stream now.
        """

    def workers(self) -> Sequence[WorkerReport]:
        """What is known of each worker now."""
