from __future__ import annotations

import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet.errors import InvalidArgument, NotFound, Unavailable
from masklet.v1 import server_info_pb2, tracking_pb2_grpc
from masklet_server.embedded import EmbeddedServer


def test_serves_while_the_block_runs() -> None:
    before = set(threading.enumerate())
    with EmbeddedServer(device="cpu") as address:
        assert address.startswith("127.0.0.1:")
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            info = tracking_pb2_grpc.TrackingServiceStub(channel).GetServerInfo(server_info_pb2.GetServerInfoRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert [model.name for model in info.models if model.loaded] == ["nano"]
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("masklet")}
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
def test_two_at_once() -> None:
    with EmbeddedServer(device="cpu") as first, EmbeddedServer(device="cpu") as second:
        assert first != second


@pytest.mark.slow
def test_errors_at_the_start_are_raised_in_the_caller() -> None:
    with pytest.raises(NotFound, match="there is no model 'nope'"):
        EmbeddedServer("nope").__enter__()
    with EmbeddedServer(device="cpu") as address, pytest.raises(Unavailable, match="Address already in use"):
        EmbeddedServer(device="cpu", address=address).__enter__()


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(InvalidArgument, match="did you mean max_sessions"):
        EmbeddedServer(max_session=3)


@pytest.mark.slow
def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_MODELS", "nope")
    monkeypatch.setenv("MASKLET_TOKEN_FILE", "/no/such/file")
    with EmbeddedServer(device="cpu") as address:
        assert address


@pytest.mark.slow
def test_cannot_be_started_twice() -> None:
    server = EmbeddedServer(device="cpu")
    with server, pytest.raises(RuntimeError, match="already"):
        server.__enter__()
