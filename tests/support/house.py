"""A server above a fake engine and fake video, on a real channel, and the messages of its clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, decode
from masklet_server.metrics import Metrics
from masklet_server.rpc.server import Server
from masklet_server.rpc.tracking_service import TrackingService
from masklet_server.settings import checked
from tests.support.aio import write_all
from tests.support.fake_sources import FakeSources
from tests.support.fakes import FakeEngine

Request = tracking_pb2.TrackRequest
PATIENCE = 20.0


class House:
    """A running server on fakes, and a stub for it."""

    def __init__(self, engine: FakeEngine, sources: FakeSources, metrics: Metrics, server: Server, stub: Any) -> None:
        self.engine = engine
        self.sources = sources
        self.metrics = metrics
        self.server = server
        self.address = server.address
        self.stub = stub

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"masklet_{name}", labels) or 0.0

    async def until(self, reached: Any) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not reached():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def house(*, real_video: bool = False, **settings: Any) -> AsyncIterator[House]:
    chosen = checked({"address": "127.0.0.1:0", "grace_seconds": 0.1, **settings})
    engine, sources, metrics = FakeEngine(), FakeSources(), Metrics()
    service = TrackingService(engine, chosen, metrics, sources=None if real_video else sources)
    server = Server(service, chosen, metrics)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield House(engine, sources, metrics, server, tracking_pb2_grpc.TrackingServiceStub(channel))
    finally:
        await server.stop()


def config(**fields: Any) -> Request:
    return Request(config=tracking_pb2.TrackConfig(**fields))


def click(object_id: int = 1, frame_index: int = 0, x: float = 5, label: Any = 1) -> Request:
    point = common_pb2.Point(x=x, y=5, label=label)
    return Request(prompt=common_pb2.Prompt(object_id=object_id, frame_index=frame_index, points=[point]))


def chunk(frames: int) -> Request:
    return Request(video_chunk=bytes(frames))


def ack(sequence: int) -> Request:
    return Request(ack=tracking_pb2.Ack(sequence=sequence))


END = Request(end_of_video=tracking_pb2.EndOfVideo())
FRAME = Request(frame=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=b"x"))


async def track(stub: Any, *requests: Request) -> list[tracking_pb2.TrackResponse]:
    """Everything the server says to these messages, which are all that is sent."""
    call = stub.Track(timeout=PATIENCE)
    for request in requests:
        await call.write(request)
    responses = [response async for response in call]
    await call.done_writing()
    return responses


async def failure(stub: Any, *requests: Request) -> grpc.aio.AioRpcError:
    """The error that these messages end in."""
    call = stub.Track(timeout=PATIENCE)

    async def converse() -> None:
        await write_all(call, requests)  # the server may end the call before it has everything
        async for _ in call:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await converse()
    return raised.value


def kinds(responses: list[tracking_pb2.TrackResponse]) -> list[str]:
    return [str(response.WhichOneof("response")) for response in responses]


def mask_of(message: common_pb2.Mask) -> Any:
    return decode(EncodedMask(MaskEncoding.COCO_RLE, message.height, message.width, message.data))
