"""Tokens, TLS and limits at a gateway's own address, and the command that runs one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import masklet
from masklet_cluster.gateway.options import GatewayOptions
from masklet_server.embedded import EmbeddedServer
from tests.support.e2e import frames, lossless, prompt
from tests.support.gateway import GatewayThread
from tests.support.rpc import Authority

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-c", "import typer; from masklet_cluster.cli import gateway; typer.run(gateway)"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with EmbeddedServer(device="cpu", dtype="float32", trust_gateway=True, max_sessions_per_client=1) as address:
        yield address


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text("robot s3cret-1\nperson s3cret-2\n")
    return file


def test_tokens_are_asked_for_at_the_edge_and_name_the_client_to_the_server(server: str, tokens: Path) -> None:
    with GatewayThread([server], token_file=tokens) as gateway:
        with masklet.Client(gateway.address) as nobody, pytest.raises(masklet.Unauthenticated, match="needs a token"):
            nobody.info()
        with (
            masklet.Client(gateway.address, token="s3cret-1") as robot,
            masklet.Client(gateway.address, token="s3cret-2") as person,
            robot.track(lossless(), prompt("point"), window=1) as first,
            person.track(lossless(), prompt("point"), window=1) as second,
        ):
            assert next(first).frame_index == next(second).frame_index == 0
            with pytest.raises(masklet.ResourceExhausted, match="robot uses all 1 sessions"):
                list(robot.track(lossless(), prompt("point")))


def test_a_session_cannot_be_resumed_by_somebody_else(server: str, tokens: Path) -> None:
    """The server knows by whom the session was begun, although it sees the gateway alone."""
    import grpc

    from masklet.v1 import tracking_pb2, tracking_pb2_grpc

    with GatewayThread([server], token_file=tokens) as gateway, grpc.insecure_channel(gateway.address) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)

        def answer(token: str, request: tracking_pb2.TrackRequest) -> tracking_pb2.TrackResponse:
            return next(stub.Track(iter([request]), metadata=(("authorization", f"Bearer {token}"),)))

        config = tracking_pb2.TrackConfig(resumable=True)
        resume = tracking_pb2.Resume(
            token=answer("s3cret-1", tracking_pb2.TrackRequest(config=config)).session.resume_token
        )
        with pytest.raises(grpc.RpcError) as caught:
            answer("s3cret-2", tracking_pb2.TrackRequest(resume=resume))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_server_with_tokens_gets_the_gateways_own(tmp_path: Path, tokens: Path) -> None:
    own = tmp_path / "own"
    own.write_text("gateway g4teway\n")
    with EmbeddedServer(device="cpu", dtype="float32", token_file=own) as address:
        options = GatewayOptions(worker_token="g4teway")
        with (
            GatewayThread([address], options=options, token_file=tokens) as gateway,
            masklet.Client(gateway.address, token="s3cret-1") as client,
        ):
            assert client.segment(frames()[0], point_coords=[[96, 96]]).masks.any()
        with (
            GatewayThread([address], token_file=tokens) as gateway,
            masklet.Client(gateway.address, token="s3cret-1") as client,
            pytest.raises(masklet.Unauthenticated, match="not valid on this server"),
        ):
            client.segment(frames()[0], point_coords=[[96, 96]])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by the openssl program")
def test_tls_at_the_edge(server: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    with GatewayThread([server], tls_certificate=certificate, tls_key=key) as gateway:
        with masklet.Client(gateway.address, root_certificates=authority.certificate) as client:
            assert [one.frame_index for one in client.track(lossless(), prompt("point"))] == list(range(18))
        with masklet.Client(gateway.address) as client, pytest.raises(masklet.Unavailable, match="speaks TLS"):
            client.info()


def test_a_gateway_has_limits_of_its_own(server: str) -> None:
    with (
        GatewayThread([server], max_sessions=1) as gateway,
        masklet.Client(gateway.address) as client,
        client.track(lossless(), prompt("point"), window=1) as first,
    ):
        next(first)
        with pytest.raises(masklet.ResourceExhausted, match="all 1 sessions of this server"):
            list(client.track(lossless(), prompt("point")))


def run(*words: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKLET_")}
    return subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean, start_new_session=True
    )


def test_the_command_serves_and_stops(server: str) -> None:
    process = run("--servers", f"{server},127.0.0.1:1", "--address", "127.0.0.1:0", "--grace", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(r"masklet gateway listening on (\S+) \(1 of 2 workers serve\)\n", line)
    assert match is not None, line + process.communicate()[1]
    with masklet.Client(match[1]) as client:
        info = client.info()
        assert [(one.name, one.state) for one in info.workers] == [("worker-1", "serving"), ("worker-2", "lost")]
        assert [one.frame_index for one in client.track(lossless(), prompt("point"))] == list(range(18))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "method=masklet.v1.TrackingService/Track client=127.0.0.1 code=OK" in errors
    assert "frames=18" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--servers", ""], "servers: is empty"),
        (["--servers", "here"], "servers: 'here' is not HOST:PORT"),
        (["--servers", "a:1,a:1"], "servers: names a server twice"),
        (["--servers", "a:1", "--worker-timeout", "0.1"], "worker_timeout: is 0.1, must be seconds, 1 or above"),
        (["--servers", "a:1", "--worker-ca", "/none"], "worker_ca: /none cannot be read"),
        (["--servers", "a:1", "--address", "0.0.0.0:1"], "other machines can reach 0.0.0.0:1"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], message: str) -> None:
    process = run(*words)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"masklet gateway: {message}" in errors


def test_streams_at_full_speed_through_a_gateway_end_no_connection(server: str) -> None:
    """A gateway is watched as any server is, and its own connections to workers are those of all clients."""
    import grpc

    from masklet.v1 import server_info_pb2, tracking_pb2, tracking_pb2_grpc

    with GatewayThread([server]) as gateway, grpc.insecure_channel(gateway.address) as channel:

        def requests() -> Iterator[tracking_pb2.TrackRequest]:
            yield tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig())
            for _ in range(40):
                yield tracking_pb2.TrackRequest(video_chunk=bytes(2**22))
            yield tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo())

        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Track(requests()))
        # It is no video, which the server says before all of it has come, and while the gateway writes.
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS, caught.value.details()
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        stub.GetServerInfo(server_info_pb2.GetServerInfoRequest(), timeout=30)
        assert set(states) <= {grpc.ChannelConnectivity.READY}, "the connection was never ended"


def test_a_first_message_with_a_million_fields_is_refused_at_the_edge(server: str) -> None:
    import grpc

    from masklet.v1 import tracking_pb2, tracking_pb2_grpc

    first = tracking_pb2.TrackRequest(propagate=tracking_pb2.Propagate(object_ids=list(range(1, 10**6))))
    with GatewayThread([server]) as gateway, grpc.insecure_channel(gateway.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            list(tracking_pb2_grpc.TrackingServiceStub(channel).Track(iter([first])))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "beside pictures, video, masks and texts" in (caught.value.details() or "")
