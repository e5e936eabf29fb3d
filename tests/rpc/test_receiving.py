"""What a client may cost before its request is complete, and before its token was looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from masklet.v1 import image_pb2
from tests.support.rpc import edge, open_stream, picture_request, segment

HEALTH = "/grpc.health.v1.Health/Check"
SEGMENT_IMAGE = "/masklet.v1.TrackingService/SegmentImage"


@contextlib.asynccontextmanager
async def silent_call(address: str, name: str = SEGMENT_IMAGE) -> AsyncIterator[Any]:
    """A call that sends its headers and no message."""
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.stream_unary(name, request_serializer=bytes, response_deserializer=bytes)
        call = method()
        await call.wait_for_connection()
        yield call
        call.cancel()


async def status_of(call: Any) -> grpc.StatusCode:
    code = await asyncio.wait_for(call.code(), 10)
    assert isinstance(code, grpc.StatusCode)
    return code


async def test_without_a_token_no_message_is_awaited(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    async with edge(token_file=tokens) as running, silent_call(running.server.address) as call:
        assert await status_of(call) is grpc.StatusCode.UNAUTHENTICATED
        assert running.sample("refusals_total", limit="token") == 1


async def test_a_message_must_arrive_in_time() -> None:
    async with edge(receive_seconds=0.2) as running, silent_call(running.server.address) as call:
        assert await status_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "receive_seconds" in await call.details()
        assert running.sample("refusals_total", limit="receive_seconds") == 1


async def test_requests_wait_for_their_turn_and_get_it() -> None:
    async with edge(max_requests=1) as running, running.stub() as stub:
        async with silent_call(running.server.address):
            await asyncio.sleep(0.1)
            waiting = asyncio.ensure_future(segment(stub))
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done
            await open_stream(stub)  # streams have a limit of their own
        assert (await asyncio.wait_for(waiting, 10)).image_id == "one"


async def test_a_request_is_one_message() -> None:
    async with edge() as running, grpc.aio.insecure_channel(running.server.address) as channel:
        method = channel.stream_unary(
            SEGMENT_IMAGE,
            request_serializer=image_pb2.SegmentImageRequest.SerializeToString,
            response_deserializer=image_pb2.SegmentImageResponse.FromString,
        )
        for messages in ([], [picture_request(1)] * 2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(iter(messages))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "exactly one message" in str(caught.value.details())


@pytest.mark.parametrize("method", ["SegmentImage", "Track"])
async def test_bytes_that_are_no_message_are_the_clients_mistake(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with edge() as running, grpc.aio.insecure_channel(running.server.address) as channel:
        stream: Any = channel.stream_stream(f"/masklet.v1.TrackingService/{method}")
        call = stream(iter([b"\xff\xff\xff"]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cannot be parsed" in str(caught.value.details())
    assert not [record for record in caplog.records if record.exc_info]


async def test_small_requests_are_small_and_few_at_once(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    async with edge(token_file=tokens, receive_seconds=1.0) as running:
        address = running.server.address
        async with grpc.aio.insecure_channel(address) as channel:
            check: Any = channel.unary_unary(HEALTH)
            assert await check(b"") == b"\x08\x01"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(b"\x7a\x80\x80\x10" + bytes(2**18))  # a field of 256 KiB that nobody knows
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "at most 65536 are allowed" in str(caught.value.details())
            async with silent_call(address, HEALTH) as first, silent_call(address, HEALTH):
                await asyncio.sleep(0.1)
                waiting = asyncio.ensure_future(check(b""))
                done, _ = await asyncio.wait([waiting], timeout=0.3)
                assert not done, "the two others of this client have its turns"
                assert await status_of(first) is grpc.StatusCode.DEADLINE_EXCEEDED
                assert await waiting == b"\x08\x01"


async def test_a_million_small_fields_are_refused_before_they_are_read() -> None:
    request = image_pb2.SegmentImageRequest(prompts=[image_pb2.SegmentPrompt()] * 10**6)
    async with edge() as running, running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="beside pictures, video, masks and texts") as caught:
            await stub.SegmentImage(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
