"""A stream's message with a million points, over a real channel."""

from __future__ import annotations

import contextlib

import grpc

from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc

Request = tracking_pb2.TrackRequest


async def test_a_million_points_end_the_stream_and_are_never_read(nano_server: str) -> None:
    prompt = common_pb2.Prompt(object_id=1, points=[common_pb2.Point(x=1)] * 10**6)
    async with grpc.aio.insecure_channel(nano_server) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.write(Request(config=tracking_pb2.TrackConfig()))
            await call.read()
            await call.write(Request(prompt=prompt))
            await call.read()
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "beside pictures, video, masks and texts" in await call.details()
