"""One worker as a gateway sees it: whether it answers, what it has loaded, how busy it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet.v1 import server_info_pb2
from masklet.v1.tracking_pb2_grpc import TrackingServiceStub
from masklet_cluster.placement.placement import Lease, Lost, State, WorkerReport

if TYPE_CHECKING:
    from masklet.v1.tracking_pb2_grpc import TrackingServiceAsyncStub  # no class at run time

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 0.5
_INFO_SECONDS = 2.0
# A worker whose connection was refused is taken for gone after as many probes.
_REFUSALS = 2
# A stream that was placed since the worker told its load counts as so much of a device.
_SHARE_OF_A_STREAM = 0.1


@dataclass(frozen=True)
class Connection:
    """How a gateway talks to its workers.

    Attributes:
        max_message_bytes: Largest message in either direction.
        credentials: TLS; None: plain text.
        metadata: Sent with the gateway's own questions, such as a token.
        timeout_seconds: A worker that has not answered for so long is lost.
    """

    max_message_bytes: int
    credentials: grpc.ChannelCredentials | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    timeout_seconds: float = 3.0

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to a worker, which connects on first use."""
        options = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.enable_http_proxy", 0),
            # Channels with equal options would share one connection, and a stuck one would hold up all.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.credentials is None:
            return grpc.aio.insecure_channel(address, options)
        return grpc.aio.secure_channel(address, self.credentials, options)


class Worker:
    """A worker, and a task that asks it twice a second whether it serves.

    Args:
        name: The gateway's name for it.
        address: HOST:PORT.
        connection: How to talk to it.
    """

    def __init__(self, name: str, address: str, connection: Connection) -> None:
        self.name = name
        self.address = address
        self.streams = 0
        self.is_doubted = False  # a connection has broken, and the worker has not answered since
        self.state: State = "lost"
        self.info = server_info_pb2.GetServerInfoResponse()
        self._connection = connection
        self.channel = connection.channel(address)
        # Probes have a connection of their own: a stream's bytes do not delay them.
        self._probes = connection.channel(address)
        self._health = health_pb2_grpc.HealthStub(self._probes)
        stub: Any = TrackingServiceStub(self._probes)
        self._service: TrackingServiceAsyncStub = stub
        self._lost = Lost()
        self._refused = 0
        self._complaint = ""  # what was said last of a worker that cannot be used, so that it is said once
        self._is_masklet = True
        self._busy_share = 0.0
        self._placed = 0
        self._told_at = -_INFO_SECONDS
        self._task: asyncio.Task[None] | None = None
        self._probed = asyncio.Event()
        self._is_due = asyncio.Event()

    def start(self) -> None:
        """Begin to probe the worker."""
        self._task = asyncio.create_task(self._probe_for_ever(), name=f"worker {self.name}")

    async def first_probe(self) -> None:
        """Wait until the worker was asked once."""
        await self._probed.wait()

    async def close(self) -> None:
        """Close the connections; streams on them end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lost.set()
        await self._probes.close()
        await self.channel.close()

    def report(self) -> WorkerReport:
        """What is known of the worker now."""
        return WorkerReport(self.name, self.state, self.streams, self.info)

    @property
    def instance_id(self) -> str:
        """The run of the worker that answers now; empty if it has not told it."""
        return self.info.instance_id

    def has(self, model: str) -> bool:
        """Whether the model is loaded there; an empty name is that of the default model."""
        names = (one for one in self.info.models if one.loaded)
        return any(model in (one.name, f"{one.name}@{one.image_size}") if model else one.default for one in names)

    def may_load(self, model: str) -> bool:
        """Whether the worker has the model, loaded or not; also if it has not told which models it has."""
        names = [one for one in self.info.models if model in (one.name, f"{one.name}@{one.image_size}")]
        return bool(names) or not model or not self.info.models

    @property
    def is_full(self) -> bool:
        """Whether the worker has as many sessions as it takes."""
        most = self.info.limits.max_sessions
        return bool(most) and max(self.info.load.sessions, self.streams) >= most

    @property
    def load(self) -> float:
        """How busy the worker is: 0 where it does nothing; above 1 where more streams were placed than it has told of.

        The busy share of its devices, or the share of the memory for banks that is taken, whichever is larger.
        """
        if not self.streams and not self.info.load.sessions:
            return 0.0  # what it was busy with is over
        most = self.info.limits.others.get("max_bank_memory_bytes", 0.0)
        banks = self.info.load.bank_bytes / most if most else 0.0
        return max(self._busy_share, banks) + _SHARE_OF_A_STREAM * self._placed

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.streams += 1
        self._placed += 1
        try:
            yield
        finally:
            self.streams -= 1

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """A place for one stream until the block ends."""
        with self._counted():
            yield Lease(self.name, self.address, self.instance_id, self.channel, self._lost, self.doubt)

    def doubt(self) -> None:
        """A connection to the worker has broken: ask it now, and not only at the next turn."""
        self.is_doubted = True
        self._is_due.set()

    async def _probe_for_ever(self) -> None:
        while True:
            began = time.monotonic()
            self._is_due.clear()
            try:
                await self._probe()
            except Exception:
                logger.exception("worker %s at %s could not be asked", self.name, self.address)
                self._change("lost", "it could not be asked")
            finally:
                self._probed.set()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._is_due.wait(), max(0.01, _PROBE_SECONDS - (time.monotonic() - began)))

    async def _probe(self) -> None:
        try:
            answer = await self._health.Check(
                health_pb2.HealthCheckRequest(), timeout=self._connection.timeout_seconds - _PROBE_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            return
        self._refused, self.is_doubted = 0, False
        if answer is None:  # it cannot be parsed
            self._is_masklet = False
        is_serving = answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING
        if is_serving and time.monotonic() - self._told_at >= _INFO_SECONDS:
            await self._ask()
        if self._is_masklet:
            self._change("serving" if is_serving else "draining")
        else:
            self._change("lost", "it is no masklet server; give the address of one")

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._change("lost", "it does not answer")
            return
        # Streams of a worker that is gone end by themselves. One refused probe may be chance; not where one did end.
        self._refused += _REFUSALS if self.is_doubted else 1
        if self._refused >= _REFUSALS or self.state == "lost":
            self._change("lost", error.details() or error.code().name)

    def _change(self, state: State, why: str = "") -> None:
        if state == "lost":
            self._complain(why)
        if state == self.state:
            return
        if state == "lost":
            self._lost.set()
            self.info = server_info_pb2.GetServerInfoResponse()
        elif self.state == "lost":
            logger.info("worker %s at %s is %s", self.name, self.address, state)
            self._complaint = ""
            self._lost = Lost()
        self.state = state

    def _complain(self, why: str) -> None:
        """Log why the worker cannot be used, unless that was the last thing said of it."""
        if why != self._complaint:
            self._complaint = why
            logger.warning("worker %s at %s is lost: %s", self.name, self.address, why)

    async def _ask(self) -> None:
        request = server_info_pb2.GetServerInfoRequest()
        told: Any  # None where the answer cannot be parsed, which gRPC's types do not say
        try:
            told = await self._service.GetServerInfo(
                request, timeout=self._connection.timeout_seconds, metadata=self._connection.metadata
            )
        except grpc.aio.AioRpcError as error:
            self._is_masklet = error.code() is not grpc.StatusCode.UNIMPLEMENTED
            if self._is_masklet and error.details() != self._complaint:
                self._complaint = error.details() or ""
                logger.warning("worker %s at %s does not tell what it is: %s", self.name, self.address, error.details())
            return
        finally:
            self._told_at = time.monotonic()
        self._is_masklet = told is not None
        if told is None:
            return
        info: server_info_pb2.GetServerInfoResponse = told
        before, now = self.info.load, info.load
        seconds = now.up_seconds - before.up_seconds
        if info.instance_id == self.info.instance_id and seconds > 0:
            self._busy_share = (now.busy_seconds - before.busy_seconds) / seconds
        self.info = info
        self._placed = 0
