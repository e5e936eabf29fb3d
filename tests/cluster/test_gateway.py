"""Clients at a gateway before real servers: the same masks, the same errors, the same limits as without it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from PIL import Image

import masklet
from masklet.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    common_pb2,
    image_pb2,
    server_info_pb2,
    tracking_pb2,
    tracking_pb2_grpc,
)
from masklet_cluster.gateway.options import GatewayOptions
from masklet_cluster.gateway.relay import Ending, lost
from masklet_cluster.gateway.service import GatewayService
from masklet_cluster.placement.placement import Lease, Lost
from masklet_cluster.placement.static import StaticPlacement
from masklet_cluster.placement.worker import Connection
from masklet_server.embedded import EmbeddedServer
from tests.faults.history import violations
from tests.faults.streams import NOT_REPEATABLE, STREAMS, run
from tests.support.e2e import frames, lossless, prompt
from tests.support.gateway import GatewayThread

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Two servers."""
    make = {"device": "cpu", "dtype": "float32", "trust_gateway": True, "max_objects": 8, "park_seconds": 60}
    with EmbeddedServer(**make) as one, EmbeddedServer(**make) as two:  # type: ignore[arg-type]
        yield [one, two]


@pytest.fixture(scope="module")
def gateway(servers: list[str]) -> Iterator[str]:
    with GatewayThread(servers, options=GatewayOptions(idle_timeout_seconds=20, direct=True)) as one:
        yield one.address


# The same as without


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in ("folder", "packets")])
def test_streams_are_the_same_as_at_the_server(name: str, servers: list[str], gateway: str) -> None:
    should, _ = run(name, servers[0])
    history, events = run(name, gateway)
    assert violations(history, None if name in NOT_REPEATABLE else should) == []
    assert events == []


def test_pictures_are_the_same_and_an_image_id_finds_its_server(servers: list[str], gateway: str) -> None:
    pictures = [frames()[0], frames()[9], frames()[17]]
    with masklet.Client(servers[0]) as alone, masklet.Client(gateway) as client:
        first = [client.segment(picture, point_coords=[[96, 96]]) for picture in pictures]
        again = [client.segment(one, point_coords=[[96, 96]], multimask_output=False) for one in first]
        for picture, one, two in zip(pictures, first, again, strict=True):
            should = alone.segment(picture, point_coords=[[96, 96]])
            assert np.array_equal(one.masks, should.masks)
            assert two.image_id == one.image_id
    # Another gateway has not seen the answers, and asks around.
    with GatewayThread(servers) as other, masklet.Client(other.address) as client:
        for one in first:
            assert client.segment(one.image_id, point_coords=[[96, 96]]).image_id == one.image_id


async def test_asyncio_and_health(gateway: str) -> None:
    async with masklet.AsyncClient(gateway) as client:
        assert await client.health()
        assert [one.frame_index async for one in client.track(lossless(), prompt("point"))] == list(range(18))


def _failure(call: Callable[[], object]) -> Exception:
    with pytest.raises((masklet.MaskletError, TypeError)) as caught:
        call()
    return caught.value


def _failures(address: str) -> list[Exception]:
    """What goes wrong in calls of each kind that have something wrong in them."""
    with masklet.Client(address) as client:
        calls: list[Callable[[], object]] = [
            lambda: list(client.track(b"no video", prompt("point"))),
            lambda: list(client.track(lossless(), prompt("point"), model="none-such")),
            lambda: list(client.track(lossless(), masklet.Prompt(1, point_coords=[[9999, 9]]))),
            lambda: list(client.track(masklet.SourceUrl("http://127.0.0.1:1/x.mp4"), prompt("point"))),
            lambda: client.segment(b"no picture", point_coords=[[1, 1]]),
            lambda: client.segment(frames()[0], point_coords=[[9999, 1]]),
            lambda: client.segment(masklet.ImageId("none"), point_coords=[[1, 1]]),
        ]
        return [_failure(call) for call in calls]


def test_errors_are_the_same_as_at_the_server(servers: list[str], gateway: str) -> None:
    should, found = _failures(servers[0]), _failures(gateway)
    assert len(should) >= 6
    assert [(type(one), str(one)) for one in found] == [(type(one), str(one)) for one in should]
    assert [getattr(one, "violations", ()) for one in found] == [getattr(one, "violations", ()) for one in should]


async def test_status_details_and_metadata_pass(servers: list[str], gateway: str) -> None:
    """As any gRPC client sees them."""
    seen = []
    for address in (servers[0], gateway):
        async with grpc.aio.insecure_channel(address) as channel:
            call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(
                iter([tracking_pb2.TrackRequest(video_chunk=b"x")])
            )
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                async for _ in call:
                    pass
            trailing = dict(failure.value.trailing_metadata())
            assert b"PRECONDITION" in trailing["grpc-status-details-bin"].upper()
            seen.append((failure.value.code(), failure.value.details(), trailing))
    assert seen[0] == seen[1]
    assert error_details_pb2.ErrorInfo.DESCRIPTOR.full_name.encode() in seen[1][2]["grpc-status-details-bin"]


async def test_what_is_no_message_is_refused_in_the_same_way(servers: list[str], gateway: str) -> None:
    seen = []
    for address in (servers[0], gateway):
        async with grpc.aio.insecure_channel(address) as channel:
            method: Any = channel.stream_stream("/masklet.v1.TrackingService/Track")
            call = method(iter([b"\xff\xff\xff"]))
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call.read()
            seen.append((failure.value.code(), failure.value.details()))
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await channel.unary_unary("/masklet.v1.TrackingService/NoSuch")(b"")  # type: ignore[arg-type]
            seen.append((failure.value.code(), failure.value.details()))
    assert seen[:2] == seen[2:]
    assert seen[0][0] is grpc.StatusCode.INVALID_ARGUMENT
    assert seen[1][0] is grpc.StatusCode.UNIMPLEMENTED


def test_every_method_of_the_contract_is_passed_on() -> None:
    service = GatewayService(StaticPlacement(["127.0.0.1:1"], Connection(1)), GatewayOptions())
    names = [
        f"/{one.full_name}/{method.name}"
        for file in (tracking_pb2.DESCRIPTOR, cluster_pb2.DESCRIPTOR)
        for one in file.services_by_name.values()
        for method in one.methods
    ]
    assert len(names) >= 4
    for name in names:
        handler = service.service(_Details(name))
        assert handler is not None, name
    service.close()


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def test_a_large_picture_passes(gateway: str) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (2600, 2600, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    assert file.tell() > 16 * 1024**2
    with masklet.Client(gateway) as client:
        assert client.segment(file.getvalue(), point_coords=[[96, 96]]).masks.shape[-2:] == (2600, 2600)


# The whole


async def test_the_gateway_tells_of_the_whole(servers: list[str], gateway: str) -> None:
    async with grpc.aio.insecure_channel(gateway) as channel:
        info = await tracking_pb2_grpc.TrackingServiceStub(channel).GetServerInfo(
            server_info_pb2.GetServerInfoRequest()
        )
    async with grpc.aio.insecure_channel(servers[0]) as channel:
        alone = await tracking_pb2_grpc.TrackingServiceStub(channel).GetServerInfo(
            server_info_pb2.GetServerInfoRequest()
        )
    assert [one.name for one in info.workers] == servers
    assert {one.state for one in info.workers} == {"serving"}
    assert alone.instance_id == info.workers[0].instance_id != info.workers[1].instance_id
    assert info.limits.max_sessions == 2 * alone.limits.max_sessions
    assert info.limits.max_objects == alone.limits.max_objects
    assert list(info.models) == list(alone.models)
    assert info.load.up_seconds > info.workers[0].load.up_seconds > 0
    assert list(info.workers[0].models) == ["nano"]


async def test_locate_names_a_worker_and_holds_its_place(servers: list[str], gateway: str) -> None:
    await asyncio.sleep(4.5)  # until the servers say that they have nothing to do
    async with grpc.aio.insecure_channel(gateway) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        calls = [stub.Locate(cluster_pb2.LocateRequest()) for _ in range(2)]
        answers: list[Any] = [await call.read() for call in calls]
        assert {one.address for one in answers} == set(servers), "streams that are placed count"
        for call in calls:
            call.cancel()


# Streams that end


class _Endless(tracking_pb2_grpc.TrackingServiceServicer):
    """Sends 4 KB messages for as long as somebody takes them."""

    def __init__(self) -> None:
        self.sent = self.ended = 0
        self.deadline: float | None = None
        self.metadata: dict[str, str | bytes] = {}

    async def Track(self, request_iterator: AsyncIterator[object], context: grpc.aio.ServicerContext) -> None:  # type: ignore[override, type-arg]  # noqa: N802
        self.metadata = dict(context.invocation_metadata() or ())
        self.deadline = context.time_remaining()
        await context.send_initial_metadata((("x-seen", "initial"),))
        try:
            while True:
                mask = common_pb2.Mask(data=b"x" * 4_000)
                result = tracking_pb2.FrameResult(objects=[common_pb2.ObjectResult(mask=mask)])
                await context.write(tracking_pb2.TrackResponse(frame_result=result))
                self.sent += 1
        finally:
            self.ended += 1

    async def SegmentImage(self, request: object, context: grpc.aio.ServicerContext) -> image_pb2.SegmentImageResponse:  # type: ignore[type-arg]  # noqa: N802
        context.set_trailing_metadata((("x-seen", "trailing"),))
        return image_pb2.SegmentImageResponse()

    async def GetServerInfo(self, request: object, context: object) -> server_info_pb2.GetServerInfoResponse:  # noqa: N802
        return server_info_pb2.GetServerInfoResponse(server_version="1")


@pytest.fixture
async def endless() -> AsyncIterator[tuple[_Endless, grpc.aio.Channel]]:
    """A server that sends without end, and a channel to a gateway before it."""
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    server, service, healthy = grpc.aio.server(), _Endless(), health.aio.HealthServicer()
    tracking_pb2_grpc.add_TrackingServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    one = GatewayThread([f"127.0.0.1:{port}"])
    await asyncio.to_thread(one.__enter__)
    try:
        async with grpc.aio.insecure_channel(one.address) as channel:
            yield service, channel
    finally:
        await asyncio.to_thread(one.__exit__)
        await server.stop(0)


async def _until(holds: object, seconds: float = 10.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if holds():  # type: ignore[operator]
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to be")


CONFIG = tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig())


async def _config_and_wait() -> AsyncIterator[tracking_pb2.TrackRequest]:
    yield CONFIG
    await asyncio.sleep(60)


async def test_a_client_that_does_not_read_costs_little(endless: tuple[_Endless, grpc.aio.Channel]) -> None:
    service, channel = endless
    call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(_config_and_wait())
    await call.read()
    before = -1
    while service.sent != before:
        before = service.sent
        await asyncio.sleep(1.0)
    assert service.sent * 4_000 < 32 * 1024**2, "it would send gigabytes"
    call.cancel()
    await _until(lambda: service.ended == 1)


async def test_cancelling_ends_the_workers_call(endless: tuple[_Endless, grpc.aio.Channel]) -> None:
    service, channel = endless
    call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(
        _config_and_wait(), metadata=(("x-mine", "1"), ("masklet-client", "somebody else"))
    )
    assert dict(await call.initial_metadata())["x-seen"] == "initial"
    await call.read()
    assert service.metadata["x-mine"] == "1"
    assert service.metadata["masklet-client"] == "127.0.0.1", "what a client says of itself does not count"
    assert service.deadline is None
    call.cancel()
    await _until(lambda: service.ended == 1)


async def test_a_deadline_goes_along(endless: tuple[_Endless, grpc.aio.Channel]) -> None:
    service, channel = endless
    call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(_config_and_wait(), timeout=1.0)
    await call.read()
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.deadline is not None
    assert 0 < service.deadline <= 1.1, "no more than was given, but for what clocks and messages take"
    await _until(lambda: service.ended == 1)


async def test_trailing_metadata_of_a_single_answer(endless: tuple[_Endless, grpc.aio.Channel]) -> None:
    _, channel = endless
    call = tracking_pb2_grpc.TrackingServiceStub(channel).SegmentImage(image_pb2.SegmentImageRequest())
    await call
    assert ("x-seen", "trailing") in [(key, value) for key, value in await call.trailing_metadata()]


def test_clients_are_told_addresses_by_direct_gateways_alone(servers: list[str]) -> None:
    with GatewayThread(servers) as one, masklet.Client(one.address) as client:
        assert [worker.name for worker in client.info().workers] == ["worker-1", "worker-2"]


async def test_a_lost_worker_is_told_without_its_address() -> None:
    noise = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50051: Connection refused"
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        lease = Lease("10.0.0.7:50051", "10.0.0.7:50051", "", channel, Lost())
        told = lost(lease, Ending(grpc.StatusCode.UNAVAILABLE, noise, ()))
    assert "10.0.0.7" not in told.message
    assert "there is no connection to it" in told.message


def test_no_server_is_said_so() -> None:
    with (
        GatewayThread(["127.0.0.1:1"], timeout_seconds=2.0) as one,
        masklet.Client(one.address) as client,
    ):
        with pytest.raises(masklet.Unavailable, match=r"no server takes the request now \(1 lost\)"):
            list(client.track(lossless(), prompt("point"), resume_seconds=0.5))
        with pytest.raises(masklet.Unavailable, match="no server behind this gateway answers"):
            client.info()
        assert not client.health()
