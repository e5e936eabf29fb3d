"""The budget for objects' memory, with the model nano over a real channel: refusals, and sessions that are parked."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.embedded import EmbeddedServer
from tests.support import e2e

Request = tracking_pb2.TrackRequest
END = Request(end_of_video=tracking_pb2.EndOfVideo())
CANCEL = Request(cancel=tracking_pb2.Cancel())
BUDGETS = ("max_bank_memory_bytes", "max_disk_bytes", "max_decoder_memory_bytes", "max_correction_memory_bytes")


class Running:
    """A server, its stub, and what its metrics say."""

    def __init__(self, stub: Any, metrics_address: str) -> None:
        self.stub = stub
        self._url = f"http://{metrics_address}/metrics"

    async def used(self, budget: str = BUDGETS[0]) -> float:
        """Bytes of a budget that clients have."""
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(self._url).read().decode())
        match = re.search(rf'^masklet_budget_used{{budget="{budget}"}} (\S+)$', text, re.MULTILINE)
        assert match is not None
        return float(match[1])

    async def until_nothing_is_used(self) -> None:
        for budget in BUDGETS:
            deadline = asyncio.get_running_loop().time() + 20
            while await self.used(budget):
                assert asyncio.get_running_loop().time() < deadline, budget
                await asyncio.sleep(0.1)


def free_address() -> str:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Running]:
    metrics = free_address()
    server = EmbeddedServer(device="cpu", dtype="float32", metrics_address=metrics, **settings)
    address = await asyncio.to_thread(server.__enter__)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Running(tracking_pb2_grpc.TrackingServiceStub(channel), metrics)
    finally:
        await asyncio.to_thread(server.__exit__)


def click(object_id: int) -> Request:
    x, y = e2e.center(object_id - 1)
    points = [common_pb2.Point(x=x, y=y, label=common_pb2.POINT_LABEL_FOREGROUND)]
    return Request(prompt=common_pb2.Prompt(object_id=object_id, points=points), request_id=object_id)


async def begin(stub: Any, *objects: int, **config: Any) -> Any:
    """A call that has sent a clip and clicks."""
    call = stub.Track()
    await call.write(Request(config=tracking_pb2.TrackConfig(**config)))
    for object_id in objects:
        await call.write(click(object_id))
    await call.write(Request(video_chunk=e2e.lossless()))
    await call.write(END)
    return call


async def read(call: Any, kind: str) -> Any:
    """The next response of a kind."""
    while (response := await asyncio.wait_for(call.read(), 30)) is not grpc.aio.EOF:
        if response.WhichOneof("response") == kind:
            return response
    raise AssertionError(await call.details())


@pytest.fixture(scope="module")
def sizes() -> tuple[float, float]:
    """What a stream takes with one object, and with two."""

    async def measure() -> tuple[float, float]:
        found = []
        async with running() as server:
            for objects in ((1,), (1, 2)):
                call = await begin(server.stub, *objects, window=1)
                await read(call, "frame_result")
                found.append(await server.used())
                await call.write(CANCEL)
                await call.code()
                await server.until_nothing_is_used()
        return found[0], found[1]

    return asyncio.run(measure())


async def test_an_object_too_many_is_refused_by_name_and_the_stream_goes_on(sizes: tuple[float, float]) -> None:
    one, two = sizes
    assert 0 < one < two
    bound = int(one + two) // 2
    async with running(max_bank_memory_bytes=bound, max_bank_memory_bytes_per_client=bound) as server:
        call = await begin(server.stub, 1, 2)
        error = (await read(call, "error")).error
        assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert "max_bank_memory_bytes" in error.message
        result = (await read(call, "frame_result")).frame_result
        assert [found.object_id for found in result.objects] == [1]
        assert await server.used() == one
        await call.done_writing()
        await read(call, "done")
        assert await call.code() is grpc.StatusCode.OK
        await server.until_nothing_is_used()


@pytest.mark.parametrize("on_request", [False, True])
async def test_a_parked_session_stays_counted_in_every_budget(sizes: tuple[float, float], on_request: bool) -> None:
    one, two = sizes
    bound = int(two) + int(one) // 2
    config: dict[str, Any] = {"resumable": True, "window": 1}
    if on_request:
        config["propagation"] = tracking_pb2.PROPAGATION_ON_REQUEST
    else:
        config["correction_window"] = 4
    async with running(max_bank_memory_bytes=bound, max_bank_memory_bytes_per_client=bound, park_seconds=3) as server:
        call = await begin(server.stub, 1, 2, **config)
        for _ in range(1 if not on_request else 2):
            await read(call, "prompt_result" if on_request else "frame_result")
        before = {budget: await server.used(budget) for budget in BUDGETS}
        assert before["max_bank_memory_bytes"] >= two
        assert before["max_disk_bytes"] > 0
        call.cancel()
        await asyncio.sleep(0.5)
        parked = {budget: await server.used(budget) for budget in BUDGETS}
        assert parked["max_bank_memory_bytes"] == before["max_bank_memory_bytes"]
        assert parked["max_disk_bytes"] >= before["max_disk_bytes"]
        for budget in ("max_decoder_memory_bytes", "max_correction_memory_bytes"):
            assert bool(parked[budget]) == bool(before[budget])
        other = await begin(server.stub, 1)
        assert "max_bank_memory_bytes" in (await read(other, "error")).error.message
        await other.write(CANCEL)
        await server.until_nothing_is_used()  # nobody came back
