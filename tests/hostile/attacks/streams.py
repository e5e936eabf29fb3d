"""Attacks by streams: files that cost more than they have bytes, and clients that take their time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections import Counter
from functools import cache
from typing import Any

import grpc
import numpy as np

from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from tests.hostile.target import CLICK, Outcome, Target, as_client, asking, connect, ended, jpeg, read_all
from tests.support.clips import make_clip

Request = tracking_pb2.TrackRequest


async def tracks(target: Target, video: bytes, count: int, *, on_request: bool = False) -> Outcome:
    """So many streams with a video, all at once."""
    config = tracking_pb2.TrackConfig()
    if on_request:
        config.propagation = tracking_pb2.PROPAGATION_ON_REQUEST

    async def one(stub: Any) -> str:
        call = stub.Track(metadata=as_client("m"))

        async def send() -> None:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(Request(config=config))
                for start in range(0, len(video), 2**18):
                    await call.write(Request(video_chunk=video[start : start + 2**18]))
                await call.write(Request(end_of_video=tracking_pb2.EndOfVideo()))
                if not on_request:
                    await call.done_writing()

        sending = asyncio.create_task(send())
        try:
            await asyncio.wait_for(read_all(call), 45)
        except asyncio.TimeoutError:
            return "still running after 45 s"
        except grpc.aio.AioRpcError:
            pass
        finally:
            sending.cancel()
        return await ended(call, 0.5)

    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        return Counter(await asyncio.gather(*(one(stub) for _ in range(count))))


@cache
def clip_with_references() -> bytes:
    """24 frames of H.264 with 16 references, 4:4:4, 4096 x 2160. To encode it takes some seconds."""
    flat = [np.random.default_rng(0).integers(0, 255, (2160, 4096, 3), np.uint8)] * 24
    options = {"preset": "ultrafast", "x264-params": "ref=16:bframes=0:keyint=250"}
    return make_clip(
        "matroska", "libx264", size=(4096, 2160), pixel_format="yuv444p", pictures=flat, codec_options=options
    )


async def large_references(target: Target) -> Outcome:
    """16 streams of H.264 with 16 references, 4:4:4, 4096 x 2160."""
    return await tracks(target, clip_with_references(), 16)


@cache
def clip_of_many_frames() -> bytes:
    """3,000 frames in some kilobytes."""
    one = np.zeros((16, 16, 3), np.uint8)
    return make_clip("mp4", "libx264", size=(16, 16), pictures=[one] * 3000, codec_options={"preset": "ultrafast"})


async def small_file_many_frames(target: Target) -> Outcome:
    """16 files of some kilobytes, on request: each writes a gigabyte of frames to the server's disk."""
    return await tracks(target, clip_of_many_frames(), 16, on_request=True)


async def slow_upload(target: Target) -> Outcome:
    """A file by one byte a second (the server's time without progress is 5 s here)."""
    video = make_clip(frames=3)
    async with connect(target) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(metadata=as_client("m"))
        await call.write(Request(config=tracking_pb2.TrackConfig()))
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for position in range(30):
                await call.write(Request(video_chunk=video[position : position + 1]))
                await asyncio.sleep(1)
        await ended(call, 1)
        (last,) = re.findall(r"rpc method=\S+Track client=mallory code=(\w+)", target.log.read_text())[-1:]
        return Counter([last])  # gRPC's client says INTERNAL when a call ends while it writes


async def frozen_decoders(target: Target) -> Outcome:
    """All decoding processes and the fork server are stopped, as a fault of the machine might do."""
    for pid in target.family()[1:]:
        with contextlib.suppress(ProcessLookupError):  # a decoder whose stream has ended just now
            os.kill(pid, signal.SIGSTOP)
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        call = stub.SegmentImage(asking(jpeg()), metadata=as_client("m"))
        return Counter([await ended(call, 90)])


async def flood_of_prompts(target: Target) -> Outcome:
    """One stream with prompts and removals without an end, whose client reads nothing."""
    async with connect(target) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(metadata=as_client("m"))
        count, until = 0, time.monotonic() + 20
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.TimeoutError):
            await call.write(Request(config=tracking_pb2.TrackConfig()))
            while time.monotonic() < until:
                prompt = common_pb2.Prompt(object_id=count % 100 + 1, frame_index=count % 64, points=CLICK)
                removal = tracking_pb2.RemoveObject(object_id=count % 100 + 1)
                await asyncio.wait_for(call.write(Request(prompt=prompt)), 5)
                await asyncio.wait_for(call.write(Request(remove_object=removal)), 5)
                count += 1
        return Counter({"messages": 2 * count, await ended(call, 1): 1})


async def resets_of_begun_streams(target: Target) -> Outcome:
    """16 streams at a time, each of which sends its configuration and some bytes, and is reset; for 8 seconds."""
    count, until = 0, time.monotonic() + 8
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)

        async def one() -> None:
            nonlocal count
            while time.monotonic() < until:
                call = stub.Track(metadata=as_client("m"))
                count += 1
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.write(Request(config=tracking_pb2.TrackConfig()))
                    await call.write(Request(video_chunk=bytes(1000)))
                call.cancel()

        await asyncio.gather(*(one() for _ in range(16)))
    await asyncio.sleep(3)
    return Counter({"streams": count, "processes left": len(target.family())})


async def silent_streams(target: Target) -> Outcome:
    """80 streams that send their configuration, and nothing else; the time without progress is 5 s here."""
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)

        async def one() -> None:
            call = stub.Track(metadata=as_client("m"))
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.TimeoutError):
                await call.write(Request(config=tracking_pb2.TrackConfig()))
                await asyncio.wait_for(read_all(call), 30)

        before = target.ended_calls()
        await asyncio.gather(*(one() for _ in range(80)))
        return target.ended_calls() - before
