"""The server's metrics for Prometheus, in a registry of their own.

The interceptors count sessions, RPCs and uploaded bytes. The tracking service counts frames and decoding errors. The
engine reports its work through the `on_...` methods, which may be called from any thread.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from masklet.errors import Unavailable
from masklet_server.addresses import split_address
from masklet_server.budgets.budget import Budget

logger = logging.getLogger(__name__)

_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUEUE_BOUNDS_SECONDS = _STEP_SECONDS
"""Times that a job has waited are counted by these."""
_RPC_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
_LARGEST_BATCH_LABEL = 64
# A scrape takes milliseconds. One thread serves them in turn, so a connection that is silent for longer is closed.
_SCRAPE_SECONDS = 2.0


@dataclass
class Work:
    """What the devices have done since the server's start.

    Attributes:
        busy_seconds: Time in which a device computed, of all devices together.
        queue_seconds: Time that jobs have waited for their start, all jobs together.
        jobs: Number of these jobs.
        queue_counts: Number of jobs that have waited for at most as long as each of `QUEUE_BOUNDS_SECONDS`.
        started_at: When it was made, by `time.monotonic`.
        bank_bytes: Returns the bytes of all memory banks.
        devices: Number of devices.
    """

    busy_seconds: float = 0.0
    queue_seconds: float = 0.0
    jobs: int = 0
    queue_counts: list[int] = field(default_factory=lambda: [0] * len(QUEUE_BOUNDS_SECONDS))
    started_at: float = field(default_factory=time.monotonic)
    bank_bytes: Callable[[], int] = int
    devices: int = 0


class Metrics:
    """All metrics of one server; instances share nothing.

    Attributes:
        registry: What Prometheus reads.
        work: Sums that GetServerInfo tells.
        session_count: Track streams that run now.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = _Maker(self.registry)
        self._sessions = make.gauge("sessions", "Track streams running now.")
        self._sessions_ended = make.counter(
            "sessions_ended", "Track streams that have ended. PARKED: calls whose sessions may be resumed.", "code"
        )
        self._rpcs = make.counter("rpcs", "RPCs that have ended.", "method", "code")
        self._rpc_seconds = make.histogram("rpc_seconds", "Time of an RPC.", _RPC_SECONDS, "method")
        self._refusals = make.counter("refusals", "Requests that were refused before they began.", "limit")
        self._upload_bytes = make.counter("upload_bytes", "Bytes of video and pictures received.")
        self._frames = make.counter("frames", "Frames whose results were sent.")
        self._decode_errors = make.counter("decode_errors", "Videos and pictures that could not be decoded.", "kind")
        self._queue_seconds = make.histogram(
            "queue_seconds", "Time from a job's arrival to its start.", QUEUE_BOUNDS_SECONDS
        )
        self._step_seconds = make.histogram("step_seconds", "Time of a tracking step.", _STEP_SECONDS, "batch_size")
        self._encode_seconds = make.histogram("encode_seconds", "Time of an image encoder pass.", _STEP_SECONDS)
        self._busy_seconds = make.counter("device_busy_seconds", "Seconds in which the devices have computed.")
        self._devices = make.gauge("devices", "Devices that compute.")
        self._encoded = make.counter("encoded_pictures", "Pictures that the image encoder has encoded.")
        self._budget_used = make.gauge("budget_used", "Bytes that all clients have of a shared budget.", "budget")
        self._budget_limit = make.gauge("budget_limit", "Bytes of a shared budget; 0: no limit.", "budget")
        self._parked = make.gauge(
            "parked_sessions", "Resumable sessions that wait for their clients, those that are over included."
        )
        self._resumes = make.counter("resumes", "Calls that asked to resume a session.", "how")
        self._parked_ended = make.counter(
            "parked_ended", "Sessions that were not over, and ended while they waited.", "why"
        )
        self._snapshots = make.counter(
            "snapshots", "Snapshots of resumable sessions, by what became of them.", "outcome"
        )
        self._snapshot_bytes = make.gauge("snapshot_bytes", "Bytes of the stored snapshots of this server's sessions.")
        self._bank_bytes = make.gauge("bank_bytes", "Bytes held by the memory banks of all objects.")
        self.work = Work()
        self.session_count = 0

    def session_started(self) -> None:
        """Count a Track stream that was admitted."""
        self._sessions.inc()
        self.session_count += 1

    def session_ended(self, code: str) -> None:
        """Count an admitted Track stream that ended, by the name of its status code."""
        self._sessions.dec()
        self.session_count -= 1
        self._sessions_ended.labels(code).inc()

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """Count an RPC of a known method that ended, by the name of its status code, and the time that it took."""
        self._rpcs.labels(method, code).inc()
        self._rpc_seconds.labels(method).observe(seconds)

    def refused(self, limit: str) -> None:
        """Count a request that was refused before it began.

        Args:
            limit: Why: the name of a setting, "token" or "draining".
        """
        self._refusals.labels(limit).inc()

    def parked(self, count: int) -> None:
        """So many resumable sessions wait for their clients now."""
        self._parked.set(count)

    def resumed(self, how: str) -> None:
        """Count a call that asked to resume a session: "attached", "restored", "rewound" or "refused"."""
        self._resumes.labels(how).inc()

    def parked_ended(self, why: str) -> None:
        """Count a session that was not over, waited for its client and is gone: "expired", "evicted" or "stopped"."""
        self._parked_ended.labels(why).inc()

    def snapshot(self, outcome: str) -> None:
        """Count a snapshot that was "stored"; or was not: "failed", "too_large", "full" or "fenced"."""
        self._snapshots.labels(outcome).inc()

    def snapshot_bytes(self, size: int) -> None:
        """All stored snapshots of this server's sessions take so many bytes."""
        self._snapshot_bytes.set(size)

    def uploaded(self, size: int) -> None:
        """Count the bytes of requests that arrived."""
        self._upload_bytes.inc(size)

    def frames_sent(self, count: int = 1) -> None:
        """Count frames whose results were sent."""
        self._frames.inc(count)

    def decode_error(self, kind: str) -> None:
        """Count a video or picture that could not be decoded.

        Args:
            kind: One of a few words, such as the name of the error's class.
        """
        self._decode_errors.labels(kind).inc()

    def on_step(self, batch_size: int, seconds: float) -> None:
        """Count one step of the engine for so many objects, and the time that it took."""
        # Powers of two keep the number of series small whatever the scheduler does.
        label = min(1 << (batch_size - 1).bit_length(), _LARGEST_BATCH_LABEL) if batch_size > 0 else 0
        self._step_seconds.labels(str(label)).observe(seconds)
        self._computed(seconds)

    def on_encode(self, batch_size: int, seconds: float) -> None:
        """Count one pass of the image encoder over so many pictures, and the time that it took."""
        self._encoded.inc(batch_size)
        self._encode_seconds.observe(seconds)
        self._computed(seconds)

    def _computed(self, seconds: float) -> None:
        self._busy_seconds.inc(seconds)
        self.work.busy_seconds += seconds

    def on_queue(self, seconds: float) -> None:
        """Count the time that a job waited for its start."""
        self._queue_seconds.observe(seconds)
        self.work.queue_seconds += seconds
        self.work.jobs += 1
        for place in range(bisect.bisect_left(QUEUE_BOUNDS_SECONDS, seconds), len(QUEUE_BOUNDS_SECONDS)):
            self.work.queue_counts[place] += 1

    def has_devices(self, count: int) -> None:
        """Tell how many devices compute; GetServerInfo counts the time of each."""
        self._devices.set(count)
        self.work.devices = count

    def watch_bank_bytes(self, read: Callable[[], int]) -> None:
        """Set the function that returns the bytes of all memory banks; it is called whenever metrics are collected."""
        self._bank_bytes.set_function(lambda: float(read()))
        self.work.bank_bytes = read

    def watch_budgets(self, *budgets: Budget) -> None:
        """Report what clients have of shared budgets; they are looked at whenever metrics are collected."""
        for budget in budgets:
            self._budget_used.labels(budget.name).set_function(functools.partial(_used, budget))
            self._budget_limit.labels(budget.name).set(budget.bounds.total)

    def serve(self, address: str) -> MetricsServer:
        """Serve the metrics over HTTP until the returned server is closed.

        Args:
            address: HOST:PORT.

        Raises:
            Unavailable: The address is in use, or does not belong to this machine.
        """
        parts = split_address(address)
        if parts is None:
            raise ValueError(f"{address!r} is not HOST:PORT")
        host, port = parts
        try:
            server = make_server(host, port, make_wsgi_app(self.registry), _one_thread(host), _Handler)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(
                f"metrics cannot be served at {address}: {reason}; choose another metrics_address"
            ) from error
        return MetricsServer(server)


class MetricsServer:
    """The HTTP server from which Prometheus reads the metrics: one thread, whatever the number of connections."""

    def __init__(self, server: WSGIServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    """Answers one scrape; who takes long to ask is hung up on."""

    def setup(self) -> None:
        """Close the connection, whatever it sends, if it has not been answered in time."""
        self.request.settimeout(_SCRAPE_SECONDS)
        super().setup()
        self._hang_up = threading.Timer(_SCRAPE_SECONDS, self._close)
        self._hang_up.daemon = True
        self._hang_up.start()

    def finish(self) -> None:
        """The answer was sent, or the connection is gone."""
        self._hang_up.cancel()
        super().finish()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # it is closed already
            self.request.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Scrapes are not logged."""


def _one_thread(host: str) -> type[WSGIServer]:
    """The class of a server that listens on `host`, of either kind of IP address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    class Server(WSGIServer):
        address_family = family

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A connection that broke is no error of the server."""
            logger.debug("a connection to the metrics broke", exc_info=True)

    return Server


def _used(budget: Budget) -> float:
    return float(budget.used)


class _Maker:
    """Makes the metrics of one registry; all their names begin with `masklet_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"masklet_{name}", help_text, labels, registry=self._registry)

    def counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"masklet_{name}", help_text, labels, registry=self._registry)

    def histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"masklet_{name}", help_text, labels, registry=self._registry, buckets=buckets)
