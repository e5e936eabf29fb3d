"""Texts, numbers and metadata that no client should send, over a real channel, and what the log makes of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from masklet.v1 import common_pb2, image_pb2, tracking_pb2, tracking_pb2_grpc
from tests.hostile.target import CLICK, Target, as_client, asking, jpeg
from tests.support.aio import write_all

EVIL = "x\n12:00:00 INFO    rpc method=forged client=bob\r\x1b[31mred\x1b]0;title\x07\u202e\u2028\x85\0 "
NUMBERS = [math.nan, math.inf, -math.inf, 3e38, -3e38]
Request = tracking_pb2.TrackRequest
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    server = Target(tmp_path_factory.mktemp("target"))
    try:
        yield server
    finally:
        server.close()


@contextlib.asynccontextmanager
async def stub_of(target: Target) -> Any:
    async with grpc.aio.insecure_channel(target.address) as channel:
        yield tracking_pb2_grpc.TrackingServiceStub(channel)


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends, and what it says; never by a bug."""
    code = await asyncio.wait_for(call.code(), 30)
    return code, await call.details() or ""


async def first_of(stub: Any, *requests: Request) -> tuple[grpc.StatusCode, str]:
    """How a stream ends that sends some messages."""
    call = stub.Track(metadata=as_client("m"))
    await write_all(call, requests)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
    return await status_of(call)


@pytest.mark.parametrize("text", [EVIL, EVIL * 50_000], ids=["short", "long"])
async def test_texts_forge_no_line_of_the_log(target: Target, text: str) -> None:
    before = target.log.stat().st_size
    prompt = image_pb2.SegmentPrompt(points=CLICK)
    config = tracking_pb2.TrackConfig
    async with stub_of(target) as stub:
        for request in (
            image_pb2.SegmentImageRequest(model=text, image_id=text, prompts=[prompt]),
            image_pb2.SegmentImageRequest(image_id=text, prompts=[prompt]),
        ):
            code, details = await status_of(stub.SegmentImage(request, metadata=as_client("m")))
            assert code in {Code.INVALID_ARGUMENT, Code.NOT_FOUND}
            assert len(details) < 2000
        for wrong in (config(model=text), config(source_url=text)):
            code, details = await first_of(stub, Request(config=wrong))
            assert code in {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION}
            assert len(details) < 2000
        resume = tracking_pb2.Resume(token=text)
        code, details = await first_of(stub, Request(resume=resume))
        assert code in {Code.INVALID_ARGUMENT, Code.NOT_FOUND}
        assert len(details) < 2000
        call = stub.SegmentImage(asking(jpeg()), metadata=as_client("t" * 5000))
        assert (await status_of(call))[0] is Code.UNAUTHENTICATED
    log = target.log.read_bytes()[before:]
    lines = log.split(b"\n")
    assert len(log) < 20_000, "a client cannot fill the log"
    assert all(line[8:9] == b" " and line[2:3] == b":" for line in lines if line), "each line is one of ours"
    assert not any(line.startswith(b"12:00:00 INFO    rpc method=forged") for line in lines)
    assert log.decode().replace("\n", "").isprintable()


@pytest.mark.parametrize("number", NUMBERS)
async def test_numbers_that_are_none(target: Target, number: float) -> None:
    """A point may lie outside of the picture, but not nowhere."""
    finite = math.isfinite(number)
    async with stub_of(target) as stub:
        for prompt in (
            image_pb2.SegmentPrompt(points=[common_pb2.Point(x=number, y=1, label=common_pb2.POINT_LABEL_FOREGROUND)]),
            image_pb2.SegmentPrompt(box=common_pb2.Box(x0=0, y0=0, x1=9, y1=number)),
        ):
            request = asking(jpeg())
            request.prompts[0].CopyFrom(prompt)
            code, details = await status_of(stub.SegmentImage(request, metadata=as_client("m")))
            assert code is Code.INVALID_ARGUMENT or (finite and code is Code.OK), details
            assert "prompts[0]" in details or code is Code.OK
        wrong = Request(config=tracking_pb2.TrackConfig(max_latency_seconds=number))
        code, details = await first_of(stub, wrong, Request(end_of_video=tracking_pb2.EndOfVideo()))
        assert code is Code.INVALID_ARGUMENT, details
        assert finite or "max_latency_seconds" in details


async def test_metadata_of_a_megabyte(target: Target) -> None:
    """GRPC refuses more than 16 KiB; the connection lives on, and so do its other calls."""
    async with stub_of(target) as stub:
        for size in (7000, 100_000, 1_000_000):
            call = stub.SegmentImage(asking(jpeg()), metadata=(*as_client("m"), ("x-big", "a" * size)))
            code, _ = await status_of(call)
            assert code is (Code.OK if size < 8000 else Code.RESOURCE_EXHAUSTED), size
        assert (await status_of(stub.SegmentImage(asking(jpeg()), metadata=as_client("m"))))[0] is Code.OK
    assert target.lives()
    assert "internal error" not in target.log.read_text()
