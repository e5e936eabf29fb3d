"""Workers to which a gateway gets no connection: calls go to others, and never wait without a bound."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any, cast

import grpc
import pytest

from masklet_cluster.gateway import relay
from masklet_cluster.gateway.relay import Calling, Ending, StreamRelay
from masklet_cluster.placement.placement import Lease, Lost
from tests.support.streams import free_port

CALLING = Calling("/masklet.v1.TrackingService/Track", (), None)


def lease_of(channel: grpc.aio.Channel, lost: Lost | None = None) -> Lease:
    return Lease("a", "127.0.0.1:1", "", channel, lost or Lost())


async def test_nobody_listens() -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port()}") as channel:
        ending = await relay.connected(lease_of(channel))
    assert ending is not None
    assert (ending.code, ending.details) == (grpc.StatusCode.UNAVAILABLE, "it cannot be reached")
    assert ending.may_fit_elsewhere


async def test_a_worker_that_takes_connections_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host's kernel does so while the process is stopped."""
    monkeypatch.setattr(relay, "_CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target, lost = f"127.0.0.1:{silent.getsockname()[1]}", Lost()
        async with grpc.aio.insecure_channel(target) as channel:
            begun = time.monotonic()
            ending = await relay.connected(lease_of(channel))
            assert time.monotonic() - begun >= 0.3
            assert ending is not None
            assert ending.details == "no connection to it within 0.3 s"
            monkeypatch.setattr(relay, "_CONNECT_SECONDS", 60.0)
            asyncio.get_running_loop().call_later(0.1, lost.set)
            ending = await relay.connected(lease_of(channel, lost))
            assert ending is not None, "the worker was lost meanwhile"


@dataclass
class StuckChannel:
    """A channel whose calls neither begin nor fail, as grpcio's do if the connection breaks at the wrong moment."""

    cancelled: bool = False

    def stream_stream(self, method: str) -> Any:
        return lambda **options: self

    async def wait_for_connection(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True


async def test_a_call_that_never_begins_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_CONNECT_SECONDS", 0.2)
    stuck = StuckChannel()
    stream = StreamRelay(CALLING, lease_of(cast("grpc.aio.Channel", stuck)))
    ending = await asyncio.wait_for(stream.begin([]), 5)
    assert isinstance(ending, Ending)
    assert ending.may_fit_elsewhere
    stream.close()
    assert stuck.cancelled
