"""Spans of calls, and what the log says of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest

from masklet.errors import FailedPrecondition, ResourceExhausted
from masklet_server.tracing import Metadata, NoTracer, OtelTracer, Span, Value, open_tracer
from tests.support.rpc import config_request, edge, open_stream, segment


class KeptSpan:
    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method = method
        self.metadata = dict(metadata)
        self.events: list[tuple[str, Mapping[str, Value]]] = []
        self.end: tuple[str, Mapping[str, Value]] | None = None

    def event(self, name: str, fields: Mapping[str, Value]) -> None:
        self.events.append((name, fields))

    def ended(self, code: str, fields: Mapping[str, Value]) -> None:
        self.end = (code, fields)


class KeepingTracer:
    def __init__(self) -> None:
        self.spans: list[KeptSpan] = []

    @contextlib.contextmanager
    def span(self, method: str, metadata: Metadata) -> Iterator[Span]:
        self.spans.append(KeptSpan(method, metadata))
        yield self.spans[-1]

    def close(self) -> None:
        pass


async def test_a_call_has_one_span_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    tracer = KeepingTracer()
    with caplog.at_level(logging.INFO):
        async with edge(tracer=tracer) as running, running.stub() as stub:
            await segment(stub)
            call = await open_stream(stub)
            await call.write(config_request())
            await call.read()
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
    assert [span.method for span in tracer.spans] == [
        "masklet.v1.TrackingService/SegmentImage",
        "masklet.v1.TrackingService/Track",
    ]
    ends = [span.end for span in tracer.spans]
    assert [end[0] for end in ends if end is not None] == ["OK", "OK"]
    lines = [record.__dict__ for record in caplog.records if record.getMessage() == "rpc"]
    for end, line in zip(ends, lines, strict=True):
        assert end is not None
        for name in ("client", "model", "received_bytes", "frames", "masks"):
            assert end[1][name] == line[name], name
    assert lines[1]["received_bytes"] == 2 * config_request().ByteSize()
    assert all(span.events == [] for span in tracer.spans)


async def test_a_refusal_is_an_event_with_the_limits_name() -> None:
    tracer = KeepingTracer()
    async with edge(tracer=tracer, max_sessions=1) as running, running.stub() as stub:
        running.service.on_segment = _fail
        with pytest.raises(grpc.aio.AioRpcError):
            await segment(stub)
        first = await open_stream(stub)
        second = stub.Track()
        with pytest.raises(grpc.aio.AioRpcError):
            await second.read()
        first.cancel()
    failed, _, refused = tracer.spans
    assert failed.events[0][0] == "refused"
    assert failed.end is not None
    assert failed.end[0] == "RESOURCE_EXHAUSTED"
    assert refused.events == [("refused", {"code": "RESOURCE_EXHAUSTED", "limit.0": "max_sessions"})]


def _fail() -> None:
    raise ResourceExhausted("full")


def test_without_an_endpoint_there_are_no_spans() -> None:
    tracer = open_tracer("")
    assert isinstance(tracer, NoTracer)
    with tracer.span("a/b", ()) as span:
        span.event("refused", {})
        span.ended("OK", {})
    tracer.close()


def test_spans_of_opentelemetry_continue_the_clients_trace() -> None:
    export = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="OpenTelemetry is not installed"
    )
    sdk: Any = pytest.importorskip("opentelemetry.sdk.trace")
    processors: Any = pytest.importorskip("opentelemetry.sdk.trace.export")
    exporter = export.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(processors.SimpleSpanProcessor(exporter))
    tracer = OtelTracer(provider)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"), ("x-bin", b"\0"))
    with tracer.span("masklet.v1.TrackingService/Track", metadata) as span:
        span.event("refused", {"limit.0": "max_sessions"})
        span.ended("INTERNAL", {"frames": 3})
    (kept,) = exporter.get_finished_spans()
    assert kept.name == "masklet.v1.TrackingService/Track"
    assert f"{kept.context.trace_id:032x}" == trace
    assert kept.attributes["rpc.method"] == "Track"
    assert kept.attributes["masklet.frames"] == 3
    assert [event.name for event in kept.events] == ["refused"]
    assert not kept.status.is_ok
    tracer.close()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(FailedPrecondition, match=r"pip install 'masklet\[otel\]'"):
        open_tracer("http://127.0.0.1:4317")
