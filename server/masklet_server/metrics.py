"""What the server tells Prometheus, on a registry and an address of its own.

Sessions, RPCs and uploaded bytes are counted by the interceptors; the tracking service counts frames and decode errors;
the engine reports its steps through the `on_...` methods, which may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from masklet.errors import Unavailable
from masklet_server.settings import split_address

_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RPC_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
_LARGEST_BATCH_LABEL = 64


class Metrics:
    """Every number the server publishes. One instance for each server; instances share nothing."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = _Maker(self.registry)
        self._sessions = make.gauge("sessions", "Track streams running now.")
        self._sessions_ended = make.counter("sessions_ended", "Track streams that have ended.", "code")
        self._rpcs = make.counter("rpcs", "RPCs that have ended.", "method", "code")
        self._rpc_seconds = make.histogram("rpc_seconds", "Time of an RPC.", _RPC_SECONDS, "method")
        self._refusals = make.counter("refusals", "Requests refused at the door.", "limit")
        self._upload_bytes = make.counter("upload_bytes", "Bytes of video and pictures received.")
        self._frames = make.counter("frames", "Frames whose results were sent.")
        self._decode_errors = make.counter("decode_errors", "Videos and pictures that could not be decoded.", "kind")
        self._queue_seconds = make.histogram("queue_seconds", "Time from a job's arrival to its start.", _STEP_SECONDS)
        self._step_seconds = make.histogram("step_seconds", "Time of a tracking step.", _STEP_SECONDS, "batch_size")
        self._encode_seconds = make.histogram("encode_seconds", "Time of an image encoder pass.", _STEP_SECONDS)
        self._encoded = make.counter("encoded_pictures", "Pictures that the image encoder has seen.")
        self._bank_bytes = make.gauge("bank_bytes", "Bytes held by the memory banks of all objects.")

    def session_started(self) -> None:
        """A Track stream was admitted."""
        self._sessions.inc()

    def session_ended(self, code: str) -> None:
        """An admitted Track stream ended with the status code of that name."""
        self._sessions.dec()
        self._sessions_ended.labels(code).inc()

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """An RPC of a known method ended."""
        self._rpcs.labels(method, code).inc()
        self._rpc_seconds.labels(method).observe(seconds)

    def refused(self, limit: str) -> None:
        """A request was refused at the door because of the limit (a setting's name, "token" or "draining")."""
        self._refusals.labels(limit).inc()

    def uploaded(self, size: int) -> None:
        """That many bytes of requests arrived."""
        self._upload_bytes.inc(size)

    def frames_sent(self, count: int = 1) -> None:
        """Results of that many frames were sent."""
        self._frames.inc(count)

    def decode_error(self, kind: str) -> None:
        """A video or picture was given up; `kind` is one of a few words, such as the error's class name."""
        self._decode_errors.labels(kind).inc()

    def on_step(self, batch_size: int, seconds: float) -> None:
        """The engine ran one step of that many objects."""
        # Powers of two keep the number of series small whatever the scheduler does.
        label = min(1 << (batch_size - 1).bit_length(), _LARGEST_BATCH_LABEL) if batch_size > 0 else 0
        self._step_seconds.labels(str(label)).observe(seconds)

    def on_encode(self, batch_size: int, seconds: float) -> None:
        """The engine ran the image encoder on that many pictures at once."""
        self._encoded.inc(batch_size)
        self._encode_seconds.observe(seconds)

    def on_queue(self, seconds: float) -> None:
        """A job waited that long for its first step."""
        self._queue_seconds.observe(seconds)

    def watch_bank_bytes(self, read: Callable[[], int]) -> None:
        """Ask `read` for the bytes held by memory banks whenever metrics are collected."""
        self._bank_bytes.set_function(lambda: float(read()))

    def serve(self, address: str) -> MetricsServer:
        """Answer HTTP at HOST:PORT until the returned server is closed.

        Raises:
            Unavailable: The address is taken or not this machine's.
        """
        parts = split_address(address)
        if parts is None:
            raise ValueError(f"{address!r} is not HOST:PORT")
        host, port = parts
        try:
            return MetricsServer(*start_http_server(port, addr=host, registry=self.registry))
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"metrics can't listen on {address}: {reason}; choose another metrics_address") from error


class MetricsServer:
    """The HTTP server that Prometheus asks."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Maker:
    """Makes metrics of one registry, all with the prefix `masklet_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"masklet_{name}", help_text, registry=self._registry)

    def counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"masklet_{name}", help_text, labels, registry=self._registry)

    def histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"masklet_{name}", help_text, labels, registry=self._registry, buckets=buckets)
