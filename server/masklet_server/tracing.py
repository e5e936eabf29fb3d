"""Spans for OpenTelemetry: one for each call of Track and SegmentImage, with events for what is rare.

The spans are made here and not by OpenTelemetry's own interceptor for grpc.aio, which takes every handler for a
generator. The packages come with the extra `otel`. Without them, or without an endpoint, there are no spans.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from masklet.errors import FailedPrecondition

Value = str | int | float
Metadata = Iterable[tuple[str, str | bytes]]


class Span(Protocol):
    """A call while it runs."""

    def event(self, name: str, fields: Mapping[str, Value]) -> None:
        """Something rare has happened, such as a refusal."""

    def ended(self, code: str, fields: Mapping[str, Value]) -> None:
        """The call has ended with the status of this name."""


class Tracer(Protocol):
    """Makes a span for each call."""

    def span(self, method: str, metadata: Metadata) -> contextlib.AbstractContextManager[Span]:
        """A span that lasts as long as the block.

        Args:
            method: Full name of the method, without the slash at its start.
            metadata: Of the call. A `traceparent` in it makes the span a part of the client's trace.
        """

    def close(self) -> None:
        """Send what is left, and end the threads that send."""


class NoTracer:
    """Makes spans that nobody sees."""

    @contextlib.contextmanager
    def span(self, method: str, metadata: Metadata) -> Iterator[Span]:
        """A span that keeps nothing."""
        yield _NoSpan()

    def close(self) -> None:
        """Do nothing; there is nothing to send."""


class _NoSpan:
    def event(self, name: str, fields: Mapping[str, Value]) -> None:
        """Forget the event."""

    def ended(self, code: str, fields: Mapping[str, Value]) -> None:
        """Forget the end."""


def open_tracer(endpoint: str) -> Tracer:
    """The tracer that sends spans by OTLP over gRPC.

    Args:
        endpoint: http://HOST:PORT, or https://HOST:PORT for TLS. Empty: nothing is sent.

    Raises:
        FailedPrecondition: OpenTelemetry's packages are not installed.
    """
    if not endpoint:
        return NoTracer()
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise FailedPrecondition(
            f"otlp_endpoint needs OpenTelemetry, which is not installed ({error}); pip install 'masklet[otel]'"
        ) from error
    provider: Any = TracerProvider(resource=Resource.create({"service.name": "masklet"}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://")))
    )
    return OtelTracer(provider)


class OtelTracer:
    """Makes OpenTelemetry's spans.

    Args:
        provider: An `opentelemetry.sdk.trace.TracerProvider`.
    """

    def __init__(self, provider: _Provider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("masklet")
        self._extract: Callable[[dict[str, str]], object] = TraceContextTextMapPropagator().extract

    @contextlib.contextmanager
    def span(self, method: str, metadata: Metadata) -> Iterator[Span]:
        """A span of the kind SERVER, named after the method."""
        from opentelemetry.trace import SpanKind

        service, _, name = method.rpartition("/")
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        span = self._tracer.start_span(
            method,
            context=self._extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        try:
            yield _OtelSpan(span)
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left, and end the thread that sends."""
        self._provider.shutdown()


class _OtelSpan:
    def __init__(self, span: _OpenSpan) -> None:
        self._span = span

    def event(self, name: str, fields: Mapping[str, Value]) -> None:
        """Add the event to the span."""
        self._span.add_event(name, dict(fields))

    def ended(self, code: str, fields: Mapping[str, Value]) -> None:
        """Say how the call has ended; a fault of the server makes the span an error."""
        from opentelemetry.trace import StatusCode

        self._span.set_attributes({"rpc.grpc.status": code, **{f"masklet.{name}": v for name, v in fields.items()}})
        if code in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED"):
            self._span.set_status(StatusCode.ERROR, code)


class _OpenSpan(Protocol):
    """What is used of OpenTelemetry's spans, whose package may not be installed."""

    def add_event(self, name: str, attributes: dict[str, Value]) -> None: ...
    def set_attributes(self, attributes: dict[str, Value]) -> None: ...
    def set_status(self, status: object, description: str) -> None: ...
    def end(self) -> None: ...


class _SpanMaker(Protocol):
    def start_span(self, name: str, context: object, kind: object, attributes: dict[str, Value]) -> _OpenSpan: ...


class _Provider(Protocol):
    def get_tracer(self, name: str) -> _SpanMaker: ...
    def shutdown(self) -> None: ...
