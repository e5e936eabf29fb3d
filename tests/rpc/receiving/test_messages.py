"""Messages with many fields are read beside the event loop, by turns of clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from google.protobuf.message import DecodeError

from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2, image_pb2, tracking_pb2
from masklet_server.rpc.receiving.messages import MessageKind, MessageReader, Messages

Request = image_pb2.SegmentImageRequest
Track = tracking_pb2.TrackRequest
POINT = common_pb2.Point(x=1.5, y=2.5, label=common_pb2.POINT_LABEL_FOREGROUND)
MANY = Request(prompts=[image_pb2.SegmentPrompt(points=[POINT] * 256)] * 64)


class Reading:
    """Kinds of messages, and the threads in which messages were made."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.kind = MessageKind(self._read, Request.DESCRIPTOR)

    def _read(self, data: bytes) -> Request:
        self.threads.append(threading.current_thread().name)
        return Request.FromString(data)


@pytest.fixture
def reader() -> Iterator[MessageReader]:
    made = MessageReader()
    yield made
    made.close()


@pytest.mark.parametrize("message", [Request(image_id="a"), Request(picture=common_pb2.Picture(data=bytes(10**7)))])
async def test_messages_with_few_fields_are_read_at_once(reader: MessageReader, message: Request) -> None:
    reading = Reading()
    assert await reader.read(message.SerializeToString(), reading.kind, "a") == message
    assert reading.threads == [threading.current_thread().name]


async def test_messages_with_many_fields_are_read_in_one_thread(reader: MessageReader) -> None:
    reading = Reading()
    data = MANY.SerializeToString()
    found = await asyncio.gather(*(reader.read(data, reading.kind, client) for client in "aabb"))
    assert found == [MANY] * 4
    assert set(reading.threads) == {"messages_0"}


async def test_the_event_loop_goes_on_beside_large_messages(reader: MessageReader) -> None:
    data = Request(prompts=[image_pb2.SegmentPrompt()] * 120_000).SerializeToString()
    reading = Reading()
    reads = asyncio.gather(*(reader.read(data, reading.kind, "a") for _ in range(8)))
    turns = 0
    while not reads.done():
        await asyncio.sleep(0.001)
        turns += 1
    await reads
    assert len(reading.threads) == 8
    assert turns > 30  # one, if the messages were read by the loop


async def test_a_client_with_many_messages_delays_another_one_by_one(reader: MessageReader) -> None:
    order: list[str] = []

    async def read(client: str) -> None:
        await reader.read(MANY.SerializeToString(), Reading().kind, client)
        order.append(client)

    await asyncio.gather(*(read(client) for client in "aaaaaab"))
    assert order.index("b") <= 2


async def test_what_is_wrong_is_told(reader: MessageReader) -> None:
    kind = MessageKind(Request.FromString, Request.DESCRIPTOR)
    with pytest.raises(InvalidArgument, match="beside pictures, video, masks and texts"):
        await reader.read(Request(prompts=[image_pb2.SegmentPrompt()] * 10**6).SerializeToString(), kind, "a")
    with pytest.raises(DecodeError):
        await reader.read(b"\xff" * 10, kind, "a")
    with pytest.raises(DecodeError):
        await reader.read(b"\xff" * 100_000, kind, "a")


async def test_the_messages_of_a_call_come_in_their_order(reader: MessageReader) -> None:
    sent = [Track(prompt=common_pb2.Prompt(object_id=i + 1, points=[POINT] * 256 * (i % 2))) for i in range(20)]

    async def raw() -> AsyncIterator[bytes]:
        for message in sent:
            yield message.SerializeToString()

    kind = MessageKind(Track.FromString, Track.DESCRIPTOR)
    assert [message async for message in Messages(raw(), lambda data: reader.read(data, kind, "a"))] == sent
