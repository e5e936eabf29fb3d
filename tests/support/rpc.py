"""A tracking service without an engine, and a real server around it, for tests of `rpc`."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from masklet.v1 import common_pb2, image_pb2, server_info_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.metrics import Metrics
from masklet_server.rpc.server import Server
from masklet_server.settings import Settings, checked

Metadata = tuple[tuple[str, str], ...]


class FakeService(tracking_pb2_grpc.TrackingServiceServicer):
    """Answers every Track message with a frame result; runs `on_segment` for SegmentImage.

    Attributes:
        open_streams: Track handlers that have begun and not yet been cleaned up.
        ended: Set when a Track handler has been cleaned up.
        hold_end: If set, a stream waits for this event before it ends.
        padding: Bytes that make each answer larger.
    """

    def __init__(self) -> None:
        self.open_streams = 0
        self.ended = asyncio.Event()
        self.hold_end: asyncio.Event | None = None
        self.padding = b""
        self.on_segment: Callable[[], image_pb2.SegmentImageResponse | None] = lambda: None

    async def Track(self, request_iterator: Any, context: Any) -> AsyncIterator[tracking_pb2.TrackResponse]:  # noqa: N802
        self.open_streams += 1
        try:
            sequence = 0
            async for request in request_iterator:
                sequence += 1
                if request.WhichOneof("request") == "end_of_video":
                    break
                padded = common_pb2.ObjectResult(mask=common_pb2.Mask(data=self.padding))
                result = tracking_pb2.FrameResult(sequence=sequence, objects=[padded])
                yield tracking_pb2.TrackResponse(frame_result=result)
            if self.hold_end is not None:
                await self.hold_end.wait()
            yield tracking_pb2.TrackResponse(done=tracking_pb2.Done(frame_count=sequence))
        finally:
            self.open_streams -= 1
            self.ended.set()

    async def SegmentImage(self, request: Any, context: Any) -> image_pb2.SegmentImageResponse:  # noqa: N802
        return self.on_segment() or image_pb2.SegmentImageResponse(image_id="one")

    async def GetServerInfo(self, request: Any, context: Any) -> server_info_pb2.GetServerInfoResponse:  # noqa: N802
        return server_info_pb2.GetServerInfoResponse(server_version="test")


class Edge:
    """A running server, its fake service and its metrics."""

    def __init__(self, server: Server, service: FakeService, metrics: Metrics) -> None:
        self.server = server
        self.service = service
        self.metrics = metrics

    @contextlib.asynccontextmanager
    async def stub(self, *, max_message_bytes: int = -1) -> AsyncIterator[Any]:
        """A stub on a plain-text channel of its own."""
        options = [("grpc.max_receive_message_length", max_message_bytes)]
        async with grpc.aio.insecure_channel(self.server.address, options=options) as channel:
            yield tracking_pb2_grpc.TrackingServiceStub(channel)

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric, 0.0 if it has none yet."""
        return self.metrics.registry.get_sample_value(f"masklet_{name}", labels) or 0.0


@contextlib.asynccontextmanager
async def edge(*, tracer: Any = None, **settings: Any) -> AsyncIterator[Edge]:
    """A real server on a free port of this machine."""
    chosen: Settings = checked({"address": "127.0.0.1:0", "grace_seconds": 0.1, **settings})
    service, metrics = FakeService(), Metrics()
    server = Server(service, chosen, metrics, tracer)
    await server.start()
    try:
        yield Edge(server, service, metrics)
    finally:
        await server.stop()


async def open_stream(stub: Any, metadata: Metadata = ()) -> Any:
    """A Track call whose first answer has arrived."""
    call = stub.Track(metadata=metadata)
    await call.write(config_request())
    response = await call.read()
    assert isinstance(response, tracking_pb2.TrackResponse), "the stream ended at once"
    return call


async def finish(call: Any) -> None:
    """Send the end of the video, and check that the stream ends without an error."""
    await call.write(end_request())
    response = await call.read()
    assert response.WhichOneof("response") == "done"
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


def config_request() -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig())


def end_request() -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo())


def picture_request(size: int) -> image_pb2.SegmentImageRequest:
    return image_pb2.SegmentImageRequest(picture=common_pb2.Picture(data=bytes(size)))


async def segment(stub: Any, *, size: int = 0, metadata: Metadata = ()) -> Any:
    return await stub.SegmentImage(picture_request(size), metadata=metadata)


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The details of the error's google.rpc.Status, by the name of their message type."""
    status = status_of(error)
    found: dict[str, Any] = {}
    for packed in status.details:
        name = packed.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        assert packed.Unpack(message)
        found[name] = message
    return found


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    # grpc_status reads the trailers of a call; an error that was raised has them, too.
    status = rpc_status.from_call(error)
    assert isinstance(status, status_pb2.Status), "the error has no google.rpc.Status"
    return status


class Authority:
    """A certificate authority in a folder, made with the openssl program."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN=masklet test {name}", "-keyout", self._key, "-out", self.certificate),
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for a server on this machine, or a client, called `name`."""
        certificate, key, request, extensions = (
            self._folder / f"{name}{suffix}" for suffix in (".pem", ".key", ".csr", ".ext")
        )
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
        )
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", "2", "-extfile", extensions, "-out", certificate),
        )
        return certificate, key

    @staticmethod
    def _openssl(*arguments: Any) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
