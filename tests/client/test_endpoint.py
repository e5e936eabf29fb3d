"""Addresses, TLS, tokens; info and health; what the package imports."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

import masklet
from masklet._transport.endpoint import Endpoint, Tls
from tests.support.scripted.fake_script import Script, status
from tests.support.scripted.fake_server import FakeServer, starting


def sync_call(method: str, *args: Any, **options: Any) -> Any:
    with masklet.Client(*args, **options) as client:
        return getattr(client, method)()


def async_call(method: str, *args: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with masklet.AsyncClient(*args, **options) as client:
            return await getattr(client, method)()

    return asyncio.run(run())


@pytest.fixture(params=[sync_call, async_call], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    function: Callable[..., Any] = request.param
    return function


@pytest.mark.parametrize(
    ("address", "target", "secure"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", False),
        ("127.0.0.1", "127.0.0.1:50051", False),
        ("127.3.2.1:9", "127.3.2.1:9", False),
        ("localhost:7", "localhost:7", False),
        ("[::1]:7", "[::1]:7", False),
        ("[2001:db8::1]", "[2001:db8::1]:50051", True),
        ("gpu-box", "gpu-box:50051", True),
        ("gpu.example.org:443", "gpu.example.org:443", True),
        ("127.0.0.1.example.org", "127.0.0.1.example.org:50051", True),
        ("unix:/run/masklet.sock", "unix:/run/masklet.sock", False),
    ],
)
def test_addresses_and_whether_they_are_spoken_to_over_tls(address: str, target: str, secure: bool) -> None:
    endpoint = Endpoint.of(address)
    assert endpoint.target == target
    assert (endpoint.credentials is not None) is secure
    assert str(endpoint) == (f"{target} over TLS" if secure else target)


def test_tls_can_be_asked_for_and_declined() -> None:
    assert Endpoint.of("127.0.0.1", tls=Tls(secure=True)).credentials is not None
    assert Endpoint.of("gpu-box", tls=Tls(secure=False)).credentials is None


@pytest.mark.parametrize(
    "address", ["", "http://host:1", "host:port", "host:0", "host:99999", "a b:1", "::1", "host:1/x"]
)
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match="address"):
        masklet.Client(address)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ключ"])
def test_malformed_tokens_are_refused(token: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match="token"):
        masklet.Client(token=token)


def test_contradictory_arguments_are_refused() -> None:
    with pytest.raises(masklet.InvalidArgument, match="certificates are given"):
        masklet.Client(root_certificates=b"pem", secure=False)
    with pytest.raises(masklet.InvalidArgument, match="go together"):
        masklet.Client(client_certificate=b"pem")
    with pytest.raises(FileNotFoundError):
        masklet.Client(root_certificates="/none/such.pem")


def test_token_goes_with_every_call(call: Callable[..., Any]) -> None:
    with FakeServer() as server:
        call("info", server.address, token="secret")
        assert server.metadata["authorization"] == "Bearer secret"


def certificate(folder: Path) -> tuple[Path, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-keyout",
            str(key),
            "-out",
            str(cert),
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by the openssl program")
def test_mutual_tls(call: Callable[..., Any], tmp_path: Path) -> None:
    key, cert = certificate(tmp_path)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())], cert.read_bytes(), True)
    with FakeServer(credentials=credentials) as server:
        options = {"root_certificates": cert, "client_certificate": str(cert), "client_key": key.read_bytes()}
        assert call("health", server.address, **options)
        with pytest.raises(masklet.Unavailable, match=rf"the server at {server.address} speaks TLS.*--ca FILE"):
            call("health", server.address)
        with masklet.Client(server.address) as client, pytest.raises(masklet.Unavailable, match="speaks TLS"):
            next(client.track(b"video"))
        with pytest.raises(masklet.Unavailable, match="over TLS"):
            call("health", server.address, secure=True)


def test_info_is_plain_data(call: Callable[..., Any]) -> None:
    with FakeServer() as server:
        info = call("info", server.address)
    assert isinstance(info, masklet.ServerInfo)
    assert (info.server_version, info.device, info.device_name) == ("9.9.9", "cpu", "Fake CPU")
    assert info.versions == {"torch": "2.5.1", "sam2": "1.1.0"}
    assert info.models[0] == masklet.ModelInfo("nano", "Small.", True, True, 384, "float32", 4_600_000)
    assert [m.loaded for m in info.models] == [True, False]
    assert (info.limits.max_sessions, info.limits.max_upload_bytes) == (4, 2 * 1024**3)
    assert (info.containers, info.codecs) == (("mov", "matroska"), ("h264",))


def test_health(call: Callable[..., Any]) -> None:
    with FakeServer() as server:
        assert call("health", server.address) is True
        server.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert call("health", server.address) is False


def test_failed_call_is_a_native_exception(call: Callable[..., Any]) -> None:
    failure = status(grpc.StatusCode.UNAUTHENTICATED, "no token; pass one")
    with FakeServer(Script(failure=failure)) as server, pytest.raises(masklet.Unauthenticated, match="pass one"):
        call("info", server.address)


def test_unreachable_server_is_named_with_the_fix(call: Callable[..., Any]) -> None:
    with FakeServer() as server:
        address = server.address
    with pytest.raises(masklet.Unavailable, match=rf"^cannot reach a masklet server at {address} \(F.*masklet serve"):
        call("info", address, connect_timeout=0)
    nobody = rf"^cannot reach .* {address} \(nobody has listened there for 0\.3 s\); start one with `masklet serve`"
    with pytest.raises(masklet.Unavailable, match=nobody):
        call("info", address, connect_timeout=0.3)
    with masklet.Client(address, connect_timeout=0.3) as client, pytest.raises(masklet.Unavailable, match=nobody):
        next(client.track(b"video"))
    with pytest.raises(masklet.InvalidArgument, match="connect_timeout: is -1"):
        call("info", address, connect_timeout=-1)


def test_a_server_that_is_starting_is_waited_for(call: Callable[..., Any]) -> None:
    with starting() as address:
        assert call("info", address).server_version == "9.9.9"


def test_a_stream_waits_for_a_server_that_is_starting() -> None:
    with starting() as address, masklet.Client(address) as client:
        begun = time.monotonic()
        tracking = client.track(b"video", masklet.Prompt(point_coords=[[1, 1]]))
        assert time.monotonic() - begun < 0.5, "the program goes on meanwhile"
        assert len(list(tracking)) == 5


async def test_cancelled_task_cancels_its_call() -> None:
    loop, called, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    class Slow(FakeServer):
        def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
            context.add_callback(lambda: loop.call_soon_threadsafe(ended.set))  # before anybody may cancel
            loop.call_soon_threadsafe(called.set)
            while context.is_active():
                time.sleep(0.01)
            return super().GetServerInfo(request, context)

    with Slow() as server:
        async with masklet.AsyncClient(server.address) as client:
            task = asyncio.create_task(client.info())
            await called.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(ended.wait(), 10)


def test_timeout_of_single_calls(call: Callable[..., Any]) -> None:
    class Stuck(FakeServer):
        def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
            while context.is_active():
                time.sleep(0.01)

    with Stuck() as server, pytest.raises(masklet.DeadlineExceeded, match=r"0\.3 s"):
        call("info", server.address, timeout=0.3)
