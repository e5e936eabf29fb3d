from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from masklet.errors import ResourceExhausted, Unavailable
from masklet.v1 import server_info_pb2, tracking_pb2
from masklet_server.metrics import Metrics
from masklet_server.rpc.server import SERVICE_NAME, Server
from masklet_server.settings import checked
from tests.support.rpc import (
    Edge,
    FakeService,
    details_of,
    edge,
    end_request,
    finish,
    open_stream,
    segment,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
MIB = 1024**2


@pytest.fixture
async def running() -> AsyncIterator[Edge]:
    async with edge(max_message_bytes=MIB) as one:
        yield one


@pytest.fixture
async def channel(running: Edge) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running.server.address) as one:
        yield one


async def health_of(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        return int(answer.status)


async def until_not_serving(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        while (await watch.read()).status != NOT_SERVING:
            pass


async def test_the_address_has_the_right_port(running: Edge) -> None:
    host, _, port = running.server.address.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


async def test_health_of_server_and_service(running: Edge) -> None:
    assert await health_of(running.server.address) == SERVING
    assert await health_of(running.server.address, SERVICE_NAME) == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_of(running.server.address, "another.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_watcher_hears_of_the_stop() -> None:
    async with edge() as one, grpc.aio.insecure_channel(one.server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        stopping = asyncio.create_task(one.server.stop())
        assert (await watch.read()).status == NOT_SERVING
        await stopping


async def test_reflection_tells_the_whole_contract(running: Edge) -> None:
    def read() -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(running.server.address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            service = DescriptorPool(database).FindServiceByName(SERVICE_NAME)
            return list(database.get_services()), [method.name for method in service.methods]

    services, methods = await asyncio.to_thread(read)
    assert {SERVICE_NAME, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} < set(services)
    assert methods == ["Track", "SegmentImage", "GetServerInfo"]


async def test_channelz_lists_the_server(running: Edge, channel: grpc.aio.Channel) -> None:
    answer = await channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest())
    assert len(answer.server) >= 1


async def test_unknown_method(running: Edge, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call_raw(channel, "Fly")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_whole_stream(running: Edge) -> None:
    async with running.stub() as stub:
        await finish(await open_stream(stub))
    assert running.service.open_streams == 0


async def test_message_over_the_limit_in_a_unary_call(running: Edge) -> None:
    async with running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await segment(stub, size=MIB + 1)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "Received message larger than max" in (caught.value.details() or "")
        await segment(stub, size=MIB // 2)


async def test_message_over_the_limit_in_a_stream_ends_no_other_stream(running: Edge) -> None:
    async with running.stub() as stub:
        other = await open_stream(stub)
        call = await open_stream(stub)
        await call.write(tracking_pb2.TrackRequest(video_chunk=bytes(MIB + 1)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in (caught.value.details() or "")
        await finish(other)


async def test_a_client_that_vanishes_frees_its_handler(running: Edge) -> None:
    async with running.stub() as stub:
        await open_stream(stub)
        assert running.service.open_streams == 1
    await asyncio.wait_for(running.service.ended.wait(), 10)
    assert running.service.open_streams == 0


async def test_a_client_that_stops_reading_and_leaves_frees_its_handler(running: Edge) -> None:
    """The handler is then in the midst of a send, where gRPC would leave a generator to the garbage collector."""
    async with running.stub() as stub:
        running.service.padding = bytes(64 * 1024)
        call = await open_stream(stub)
        flood = asyncio.create_task(_flood(call))
        await asyncio.sleep(0.3)
        flood.cancel()
        call.cancel()
        await asyncio.wait_for(running.service.ended.wait(), 10)


async def test_a_passed_deadline_is_recorded_as_such(running: Edge) -> None:
    async with running.stub() as stub:
        call = stub.Track(timeout=0.2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(running.service.ended.wait(), 10)
        await asyncio.sleep(0.05)
    codes = {
        sample.labels["code"]
        for metric in running.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "masklet_sessions_ended_total"
    }
    assert codes == {"DEADLINE_EXCEEDED"}


async def test_every_rpc_has_one_line_and_one_count(running: Edge, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with running.stub() as stub:
            await stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())
        await health_of(running.server.address)
    (line,) = [record.__dict__ for record in caplog.records if record.getMessage() == "rpc"]
    assert line["method"] == "masklet.v1.TrackingService/GetServerInfo"
    assert line["client"] == "127.0.0.1"
    assert line["code"] == "OK"
    assert line["seconds"] >= 0
    assert running.sample("rpcs_total", method=line["method"], code="OK") == 1
    assert running.sample("rpcs_total", method="grpc.health.v1.Health/Check", code="OK") == 1


async def test_the_last_call_keeps_nothing_when_it_has_failed(running: Edge) -> None:
    held: list[weakref.ref[Any]] = []

    def fail() -> None:
        memory = np.zeros(10)
        held.append(weakref.ref(memory))
        try:
            raise OSError(f"{len(memory)} numbers")
        except OSError as error:
            raise ResourceExhausted("too much") from error

    running.service.on_segment = fail
    async with running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="too much"):
            await segment(stub)
        await asyncio.sleep(0.2)
        gc.collect()
        assert held[0]() is None


async def test_a_running_stream_may_end_within_the_grace() -> None:
    async with edge() as one, one.stub() as stub:
        one.service.hold_end = asyncio.Event()
        call = await open_stream(stub)
        stopping = asyncio.create_task(one.server.stop(grace=60))
        await until_not_serving(one.server.address)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await open_stream(stub)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in (caught.value.details() or "")
        assert "RetryInfo" in details_of(caught.value)

        one.service.hold_end.set()
        await finish(call)
        await asyncio.wait_for(stopping, 10)


async def test_a_stream_that_runs_longer_than_the_grace_is_ended_with_a_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with edge() as one, one.stub() as stub:
        one.service.hold_end = asyncio.Event()
        call = await open_stream(stub)
        await call.write(end_request())
        await one.server.stop(grace=0.1)
        assert one.service.open_streams == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shut down before this was finished" in (caught.value.details() or "")
        assert one.sample("sessions_ended_total", code="UNAVAILABLE") == 1
    assert "ending the requests that still run after 0.1 s of grace: 1" in caplog.messages


async def test_without_grace_nothing_is_said_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """Servers inside a program have none, and the program's user has asked for no end of anything."""
    async with edge() as one, one.stub() as stub:
        one.service.hold_end = asyncio.Event()
        await open_stream(stub)
        await one.server.stop(grace=0)
        assert one.service.open_streams == 0
    assert "grace" not in caplog.text


async def test_cancel_all_ends_the_wait_for_a_running_stream() -> None:
    async with edge() as one, one.stub() as stub:
        one.service.hold_end = asyncio.Event()
        await open_stream(stub)
        stopping = asyncio.create_task(one.server.stop(grace=3600))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        one.server.cancel_all()
        await asyncio.wait_for(stopping, 10)


async def test_an_idle_server_stops_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with edge() as one, one.stub() as stub:
        await finish(await open_stream(stub))
        await one.server.stop(grace=0)
    assert "grace" not in caplog.text


async def test_stop_may_be_called_twice(running: Edge) -> None:
    await running.server.stop()
    await running.server.stop()


async def test_a_taken_port_is_refused_clearly(running: Edge) -> None:
    settings = checked({"address": running.server.address})
    with pytest.raises(
        Unavailable, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use; stop the program"
    ):
        await Server(FakeService(), settings, Metrics()).start()


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0", "unix:/no/such/folder/socket"])
async def test_an_address_of_another_machine_is_refused_clearly(address: str) -> None:
    settings = checked({"address": address, "insecure": True})
    with pytest.raises(Unavailable, match="cannot listen on"):
        await Server(FakeService(), settings, Metrics()).start()


async def test_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    async with edge(address=address) as one, one.stub() as stub:
        assert one.server.address == address
        await segment(stub)
        with pytest.raises(Unavailable, match="Address already in use"):
            await Server(FakeService(), checked({"address": address}), Metrics()).start()


async def test_health_address_serves_health_and_nothing_else(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'health'}"
    token_file = tmp_path / "tokens"
    token_file.write_text("s3cret\n")
    async with edge(health_address=address, token_file=token_file) as one:
        assert await health_of(address) == SERVING
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call_raw(channel, "SegmentImage")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await one.server.stop()


async def call_raw(channel: grpc.aio.Channel, method: str) -> bytes:
    call: Any = channel.unary_unary(f"/{SERVICE_NAME}/{method}")
    answer: bytes = await call(b"")
    return answer


async def _flood(call: Any) -> None:
    request = tracking_pb2.TrackRequest(video_chunk=b"x")
    while True:
        await call.write(request)


async def test_a_burst_of_calls_makes_no_call_fail() -> None:
    async with edge() as running:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(running.server.address, options=options) for _ in range(30)]
        stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        try:
            calls = [stub.Watch(health_pb2.HealthCheckRequest()) for stub in stubs for _ in range(100)]
            answers = await asyncio.wait_for(asyncio.gather(*(call.read() for call in calls)), 60)
        finally:
            for channel in channels:
                await channel.close()
    assert {answer.status for answer in answers} == {health_pb2.HealthCheckResponse.SERVING}
