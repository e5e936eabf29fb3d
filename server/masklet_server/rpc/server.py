"""The gRPC server: masklet's service and the standard services on one address, from the start to a graceful stop."""

from __future__ import annotations

import abc
import asyncio
import logging
import resource

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from masklet.errors import Unavailable
from masklet.v1 import tracking_pb2, tracking_pb2_grpc
from masklet_server.addresses import split_address
from masklet_server.metrics import Metrics
from masklet_server.rpc import tls
from masklet_server.rpc.admission import Admission
from masklet_server.rpc.auth import Callers, TokenFile
from masklet_server.rpc.interceptors import EdgeInterceptor
from masklet_server.rpc.listening import check_free
from masklet_server.rpc.receiving.connections import ConnectionBounds, ConnectionWatch
from masklet_server.rpc.reflection import add_reflection
from masklet_server.settings import Settings
from masklet_server.tracing import Tracer
from masklet_server.video.sandbox import fork_server

logger = logging.getLogger(__name__)

SERVICE_NAME = tracking_pb2.DESCRIPTOR.services_by_name["TrackingService"].full_name
_STANDARD_SERVICES = (
    health.SERVICE_NAME,
    channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name,
)
# After the drain only clients that watch the server's health are left.
_CLOSE_SECONDS = 1.0
# Further calls of a connection wait in the client. Streams that are reset as soon as they are opened count, too.
_STREAMS_PER_CONNECTION = 128
# Some seconds of work: gRPC's own bound is 1000, which a burst of cheap calls without a token reaches.
_PENDING_CALLS = 4096
# A connection without calls is ended after so many seconds. Clients notice nothing: they connect again for a call.
_IDLE_SECONDS = 600


class SessionKeeper(abc.ABC):
    """A service whose sessions may outlive their calls."""

    @abc.abstractmethod
    def announce_stop(self, seconds: float) -> None:
        """The server admits no more calls, and ends those that run in so many seconds."""

    @abc.abstractmethod
    def replaceable(self, client: str) -> int:
        """Number of the client's sessions that another call may take from the call that has them."""

    @abc.abstractmethod
    async def end_sessions(self) -> None:
        """End all sessions, and wait until everything that they had is freed."""


class GenericService(grpc.GenericRpcHandler, abc.ABC):
    """Handlers of methods that are found by their names.

    Attributes:
        services: Full names of the services that they belong to.
    """

    services: tuple[str, ...]


class Server:
    """One gRPC server around a tracking service.

    Args:
        service: Answers the calls; a generic one those of all services that it names. The caller made it, and closes it
            and its engine after `stop`.
        settings: Address, security, limits.
        metrics: Counts sessions and RPCs.
        tracer: Makes spans of calls; None: there are none.

    Raises:
        InvalidArgument: A key, certificate or token file cannot be used.
    """

    def __init__(
        self,
        service: tracking_pb2_grpc.TrackingServiceServicer | GenericService,
        settings: Settings,
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._sessions = service if isinstance(service, SessionKeeper) else None
        self._metrics = metrics
        self._credentials = tls.server_credentials(settings)
        if self._sessions is None:
            self._admission = Admission(settings, metrics)
        else:
            self._admission = Admission(settings, metrics, self._sessions.replaceable)
        self._health = health.aio.HealthServicer()
        self._health_server: grpc.aio.Server | None = None
        tokens = TokenFile(settings.token_file) if settings.token_file is not None else None
        bounds = ConnectionBounds(
            settings.max_connections_per_address, settings.max_message_bytes, settings.ipv6_client_prefix
        )
        self._connections = ConnectionWatch(bounds, metrics.refused)
        callers = Callers(tokens, settings.trust_gateway, settings.ipv6_client_prefix)
        self._edge = EdgeInterceptor(callers, self._admission, self._connections, metrics, tracer)
        self._watching: list[asyncio.Task[None]] = []
        self._server = grpc.aio.server(interceptors=[self._edge], options=_options(settings))
        self._passes_on = isinstance(service, GenericService)
        names: tuple[str, ...] = (SERVICE_NAME,)
        if isinstance(service, GenericService):
            names = service.services
            self._server.add_generic_rpc_handlers((service,))
        else:
            tracking_pb2_grpc.add_TrackingServiceServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection((*names, *_STANDARD_SERVICES), self._server)
        channelz.add_channelz_servicer(self._server)
        self._address = settings.address
        self._stopped = False

    @property
    def address(self) -> str:
        """The server's address; it has the right port once the server listens."""
        return self._address

    async def start(self) -> int:
        """Listen and serve; returns the port, 0 for a Unix socket.

        Raises:
            Unavailable: The address is in use, or not this machine's.
        """
        if not self._passes_on:
            fork_server.start()  # so that it is ready for the first video
        port = _listen(self._server, self._settings.address, self._credentials)
        await self._server.start()
        health_port = await self._start_health_server()
        self._watching = [asyncio.create_task(self._edge.watch_tokens())]
        if not self._settings.trust_gateway:  # its connections are those of all its clients
            self._watching.append(asyncio.create_task(self._connections.run({port, health_port} - {0})))
        parts = split_address(self._settings.address)
        if parts is not None:
            host = f"[{parts[0]}]" if ":" in parts[0] else parts[0]
            self._address = f"{host}:{port}"
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return port if parts is not None else 0

    async def stop(self, grace: float | None = None) -> None:
        """Report NOT_SERVING, refuse new work, wait `grace` seconds for running work, cancel the rest, and close.

        A second call has no effect.

        Args:
            grace: None: the settings' `grace_seconds`.
        """
        if self._stopped:
            return
        self._stopped = True
        await self.not_serving()
        grace = self._settings.grace_seconds if grace is None else grace
        if self._sessions is not None:
            self._sessions.announce_stop(grace)
        await self._admission.drain(grace)
        if self._sessions is not None:
            await self._sessions.end_sessions()
        await self._server.stop(_CLOSE_SECONDS)
        self._edge.close()
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._health_server is not None:
            await self._health_server.stop(0)

    async def became_idle(self) -> None:
        """Wait until a request has been answered after which none runs."""
        await self._admission.became_idle()

    async def serving(self) -> None:
        """Report SERVING again after `not_serving`, if the server has not been asked to stop."""
        if not self._stopped:
            await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        """Report NOT_SERVING to clients that ask for the server's health."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    def cancel_all(self) -> None:
        """Cancel what still runs, so that a `stop` which waits for it ends at once."""
        self._admission.cancel_all()

    async def _start_health_server(self) -> int:
        """Serve the health service alone on an address of its own; returns the port, 0 if there is none."""
        if not self._settings.health_address:
            return 0
        # The edge tells the watch which connections have calls.
        server = grpc.aio.server(interceptors=[self._edge], options=_connection_options(self._settings))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        port = _listen(server, self._settings.health_address, None, "health_address")
        await server.start()
        self._health_server = server
        return port

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        *_connection_options(settings),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Notice clients whose network connection is gone ...
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # ... and let clients notice the same of the server, at most every ten seconds.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_channelz", 1),
    ]


def _connection_options(settings: Settings) -> list[tuple[str, int]]:
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2  # the others are for decoders, files and the log
    return [
        # With this option a second server could listen on the same port, and would take half of the clients.
        ("grpc.so_reuseport", 0),
        # One connection cannot take what others need: its calls, and the time that its handshake may take.
        ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Those beyond are closed at once. `ConnectionWatch` keeps one address from taking all.
        ("grpc.max_allowed_incoming_connections", min(settings.max_connections or descriptors, descriptors)),
        ("grpc.max_connection_idle_ms", _IDLE_SECONDS * 1000),
        # Calls that have come and that Python has not begun. With more than the first number gRPC's core ends some of
        # the new ones itself, of whomever they are, with CANCELLED; beyond the second one all. Each may hold headers.
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_CALLS),
    ]


def _listen(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None, setting: str = "address"
) -> int:
    check_free(address, setting)
    try:
        return (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {address}; choose another {setting}") from error
