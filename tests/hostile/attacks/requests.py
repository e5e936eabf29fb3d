"""Attacks by requests: messages that are small, and cost much."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections import Counter
from functools import cache

import grpc
import numpy as np
from PIL import Image

from masklet.v1 import common_pb2, image_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.masks.encoding import MaskEncoding, encode
from masklet_server.masks.runs import Runs
from tests.hostile.target import Outcome, Target, as_client, asking, connect, ended, jpeg, read_all

LARGEST = (4320, 8192)
# All are answered, which takes minutes; after some of them the attacker leaves.
REQUESTS, REQUEST_SECONDS = 40, 80
Request = tracking_pb2.TrackRequest


@cache
def large_picture() -> bytes:
    """A PNG of 35 megapixels."""
    file = io.BytesIO()
    Image.new("RGB", LARGEST[::-1]).save(file, "PNG")
    return file.getvalue()


@cache
def progressive_jpegs() -> list[bytes]:
    """JPEGs of 34 megapixels with 3,000 scans, and with as many as are allowed."""
    file = io.BytesIO()
    Image.new("L", (5800, 5800), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return [data[:last] + data[last:-2] * scans + data[-2:] for scans in (3000, 90)]


async def masks_of_large_pictures(target: Target) -> Outcome:
    """Requests of 1.4 kB: 30 run-length masks each, for a picture of 35 megapixels that the server has."""
    height, width = LARGEST
    picture = large_picture()
    encoded = encode(Runs.of(np.ones((height, width), np.bool_)), MaskEncoding.COCO_RLE)
    mask = common_pb2.Mask(encoding=common_pb2.MASK_ENCODING_COCO_RLE, height=height, width=width, data=encoded.data)
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        first = await stub.SegmentImage(asking(picture), metadata=as_client("m"))
        prompts = [image_pb2.SegmentPrompt(mask=mask)] * 30
        request = image_pb2.SegmentImageRequest(image_id=first.image_id, prompts=prompts)
        calls = [stub.SegmentImage(request, metadata=as_client("m")) for _ in range(REQUESTS)]
        return Counter(await asyncio.gather(*(ended(call, REQUEST_SECONDS) for call in calls)))


async def scan_bombs(target: Target) -> Outcome:
    """Eight JPEGs of 35 megapixels with 3,000 scans, and eight with as many as are allowed."""
    bombs = progressive_jpegs()
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        calls = [stub.SegmentImage(asking(bomb), metadata=as_client("m")) for bomb in bombs for _ in range(8)]
        return Counter(await asyncio.gather(*(ended(call, 90) for call in calls)))


async def many_fields(target: Target) -> Outcome:
    """8 messages with two million points, 8 with nine million prompts, and streams with millions of points and ids."""
    outcome: Outcome = Counter()
    options = [("grpc.max_send_message_length", 2**30), ("grpc.use_local_subchannel_pool", 1)]
    point = common_pb2.Point(x=1, y=1, label=common_pb2.POINT_LABEL_FOREGROUND)
    picture = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=jpeg())
    many = [[image_pb2.SegmentPrompt(points=[point] * 2_000_000)], [image_pb2.SegmentPrompt()] * 9_000_000]
    streamed = [
        Request(prompt=common_pb2.Prompt(object_id=1, points=[point] * 2_000_000)),
        Request(propagate=tracking_pb2.Propagate(object_ids=range(1, 8_000_000))),
        Request(resume=tracking_pb2.Resume(operations=[tracking_pb2.AppliedOperation()] * 8_000_000)),
    ]
    async with grpc.aio.insecure_channel(target.address, options=options) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        for prompts in many:
            request = image_pb2.SegmentImageRequest(picture=picture, prompts=prompts)
            calls = [stub.SegmentImage(request, metadata=as_client("m")) for _ in range(8)]
            outcome += Counter([await ended(call, 120) for call in calls])
        for message in streamed:
            call = stub.Track(metadata=as_client("m"))
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.write(Request(config=tracking_pb2.TrackConfig()))
                await call.write(message)
                await read_all(call)
            outcome[f"stream: {await ended(call, 60)}"] += 1
    return outcome


async def long_run_lengths(target: Target) -> Outcome:
    """Masks of 16 MB of run-lengths of many kinds, 8 at a time."""
    outcome: Outcome = Counter()
    kinds = [b"1" * 16 * 10**6, b"0" * 16 * 10**6, b"oooooo0" * 2 * 10**6, b"10" + b"O" * 16 * 10**6]
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        first = await stub.SegmentImage(asking(jpeg()), metadata=as_client("m"))
        for data in kinds:
            mask = common_pb2.Mask(encoding=common_pb2.MASK_ENCODING_COCO_RLE, height=128, width=128, data=data)
            prompts = [image_pb2.SegmentPrompt(mask=mask)]
            request = image_pb2.SegmentImageRequest(image_id=first.image_id, prompts=prompts)
            calls = [stub.SegmentImage(request, metadata=as_client("m")) for _ in range(8)]
            outcome += Counter([await ended(call, 60) for call in calls])
    return outcome


async def compressed_chunks(target: Target) -> Outcome:
    """8 streams that each send 20 chunks of 31 MB of zeros, compressed to 30 kB. Counted as the server's log tells."""
    options = [("grpc.max_send_message_length", 2**30), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target.address, compression=grpc.Compression.Gzip, options=options) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)

        async def one() -> None:
            call = stub.Track(metadata=as_client("m"))
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(Request(config=tracking_pb2.TrackConfig()))
                for _ in range(20):
                    await call.write(Request(video_chunk=bytes(31 * 10**6)))
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.TimeoutError):
                await asyncio.wait_for(read_all(call), 60)

        before = target.ended_calls()
        await asyncio.gather(*(one() for _ in range(8)))
        return target.ended_calls() - before  # gRPC's client says INTERNAL when a call ends while it writes
