"""Clients as others write them, with gRPC alone: each sends, reads and acknowledges in an order of its own."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

import masklet
from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.masks.encoding import MaskEncoding, encode
from masklet_server.masks.runs import Runs
from masklet_server.session import sending
from tests.support import e2e

Request = tracking_pb2.TrackRequest
Response = tracking_pb2.TrackResponse
CONTRACT = Path(__file__).parents[2] / "protos/masklet/v1"

PICTURES = 400
PROMPTED = PICTURES - 4  # frames before the first prompt cost little
END = Request(end_of_video=tracking_pb2.EndOfVideo())


@pytest.fixture
def stub(nano_server: str) -> Iterator[tracking_pb2_grpc.TrackingServiceStub]:
    with grpc.insecure_channel(nano_server) as channel:
        yield tracking_pb2_grpc.TrackingServiceStub(channel)


def click(frame_index: int = 0) -> Request:
    x, y = e2e.center(0)
    point = common_pb2.Point(x=x, y=y, label=common_pb2.POINT_LABEL_FOREGROUND)
    return Request(prompt=common_pb2.Prompt(object_id=1, frame_index=frame_index, points=[point]))


def jpegs() -> list[Request]:
    """The clip's first picture, so often that the window is full long before their end."""
    file = io.BytesIO()
    Image.fromarray(e2e.frames()[0]).save(file, "JPEG", quality=95)
    picture = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=file.getvalue())
    return [Request(frame=picture)] * PICTURES


def config(**fields: object) -> Request:
    return Request(config=tracking_pb2.TrackConfig(**fields))  # type: ignore[arg-type]


def check(responses: list[Response], count: int = PICTURES) -> None:
    """All results, in order, with the object where it was clicked."""
    assert not [response.error for response in responses if response.HasField("error")]
    results = [response.frame_result for response in responses if response.HasField("frame_result")]
    assert [result.frame_index for result in results] == list(range(count))
    assert responses[-1].done.frame_count == count
    last = results[-1].objects[0]
    truth = e2e.truth(0)
    found = decode_as_documented(last.mask.data, last.mask.height, last.mask.width)
    assert (found & truth).sum() / (found | truth).sum() > 0.8


def test_all_pictures_first_and_an_acknowledgement_for_every_result(
    stub: tracking_pb2_grpc.TrackingServiceStub,
) -> None:
    outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    for request in (config(), click(PROMPTED), *jpegs(), END):
        outgoing.put(request)  # as grpc-js does it, acknowledgements come behind all of them
    responses = []
    for response in stub.Track(iter(outgoing.get, None), timeout=200):
        responses.append(response)
        if response.HasField("frame_result"):
            outgoing.put(Request(ack=tracking_pb2.Ack(sequence=response.frame_result.sequence)))
        if response.HasField("done"):
            outgoing.put(None)
    check(responses)


def test_half_closing_at_once_and_no_acknowledgement(stub: tracking_pb2_grpc.TrackingServiceStub) -> None:
    check(list(stub.Track(iter([config(window=4), click(PROMPTED), *jpegs(), END]), timeout=200)))


async def test_reading_when_everything_is_sent(nano_server: str) -> None:
    async with grpc.aio.insecure_channel(nano_server) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(timeout=200)
        for request in (config(window=4), click(PROMPTED), *jpegs(), END):
            await call.write(request)
        await call.done_writing()
        check([response async for response in call])


async def until(call: Any, kind: str) -> list[Response]:
    """The next responses of a call up to one of a kind."""
    found: list[Response] = [await call.read()]
    while not found[-1].HasField(kind):  # type: ignore[arg-type]
        found.append(await call.read())
    return found


async def rest_of(call: Any) -> list[Response]:
    """All further responses of a call whose responses are read one by one."""
    found = []
    while (response := await call.read()) is not grpc.aio.EOF:
        found.append(response)
    return found


async def test_a_picture_for_every_result(nano_server: str) -> None:
    async with grpc.aio.insecure_channel(nano_server) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(timeout=200)
        responses: list[Response] = []
        for request in (config(live=True), click()):
            await call.write(request)
        for picture in jpegs()[:5]:
            await call.write(picture)
            responses += await until(call, "frame_result")
            await call.write(Request(ack=tracking_pb2.Ack(sequence=responses[-1].frame_result.sequence)))
        await call.write(END)
        await call.done_writing()
        check([*responses, *await rest_of(call)], 5)


async def test_who_never_acknowledges_learns_it_after_seconds(nano_server: str) -> None:
    async with grpc.aio.insecure_channel(nano_server) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(timeout=200)
        for request in (config(window=4), click(), *jpegs()[:40], END):
            await call.write(request)
        *_, reminder = await until(call, "error")
        assert reminder.error.message.startswith("ack: is missing: the window of 4 frame results is full")
        await call.done_writing()
        rest = await rest_of(call)
        assert rest[-1].done.frame_count == 40


def test_the_python_client_may_take_its_time(client: masklet.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It acknowledges by itself, so the reminder to do so is not its caller's."""
    told = threading.Event()
    run = sending.AckReminder.run

    async def run_and_tell(reminder: sending.AckReminder) -> None:
        await run(reminder)
        told.set()

    monkeypatch.setattr(sending, "REMIND_SECONDS", 0.1)
    monkeypatch.setattr(sending.AckReminder, "run", run_and_tell)
    with client.track(e2e.lossless(), e2e.prompt("point"), window=2) as tracking:
        assert told.wait(100)
        assert len(list(tracking)) == e2e.NUM_FRAMES


def decode_as_documented(data: bytes, height: int, width: int) -> e2e.Mask:
    """What the comment of MaskEncoding says, line by line."""
    lengths: list[int] = []
    i = 0
    while i < len(data):
        value = shift = 0
        while True:
            group = data[i] - 48
            i += 1
            value |= (group & 31) << shift
            shift += 5
            if not group & 32:
                break
        if group & 16:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[len(lengths) - 2]
        lengths.append(value)
    mask = np.zeros(height * width, np.bool_)
    pixel, is_foreground = 0, False
    for length in lengths:
        if is_foreground:
            mask[pixel : pixel + length] = True
        pixel += length
        is_foreground = not is_foreground
    return mask.reshape(width, height).T


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_decoded_as_the_contract_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 80, 2)
    mask = np.repeat(random.random((height, -(-width // 4))) < random.random(), 4, axis=1)[:, :width]
    data = encode(Runs.of(mask), MaskEncoding.COCO_RLE).data
    assert (decode_as_documented(data, height, width) == mask).all()
    comment = (CONTRACT / "common.proto").read_text()
    for line in ("value |= (group & 31) << shift", "if group & 16: value -= 1 << shift"):
        assert line in comment
