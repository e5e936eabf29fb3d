from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from masklet.errors import InvalidArgument
from masklet.v1 import server_info_pb2
from masklet_server.rpc.auth import TokenFile, address_of, bearer_token, certificate_subject
from tests.support.rpc import Metadata, config_request, details_of, edge, open_stream, segment


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# ours\nannotator s3cret-1\n\ns3cret-2\n")
    return path


def rewrite(path: Path, text: str) -> None:
    """Replace the file as a careful operator does, with a stamp that differs even within one clock tick."""
    other = path.with_suffix(".new")
    other.write_text(text)
    os.utime(other, ns=(1, path.stat().st_mtime_ns + 1))
    other.replace(path)


def test_tokens_have_names(token_file: Path) -> None:
    tokens = TokenFile(token_file)
    assert tokens.identify("s3cret-1") == "annotator"
    assert tokens.identify("s3cret-2") == "token-4"
    assert tokens.identify("annotator") is None
    assert tokens.identify("") is None


def test_changed_file_is_read_again(token_file: Path) -> None:
    tokens = TokenFile(token_file)
    rewrite(token_file, "robot s3cret-3\n")
    assert tokens.identify("s3cret-3") == "robot"
    assert tokens.identify("s3cret-1") is None


def test_no_token_is_valid_after_the_file_was_emptied(token_file: Path) -> None:
    tokens = TokenFile(token_file)
    rewrite(token_file, "")
    assert tokens.identify("s3cret-1") is None


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: rewrite(path, "three words here\n")])
def test_a_damaged_file_leaves_the_tokens_and_is_logged(
    token_file: Path, spoil: object, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = TokenFile(token_file)
    assert callable(spoil)
    spoil(token_file)
    with caplog.at_level(logging.ERROR):
        assert tokens.identify("s3cret-1") == "annotator"
        assert tokens.identify("s3cret-1") == "annotator"
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["the tokens stay as they were"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("# none\n", "has no token"), ("a b c\n", "line 1 has more than two words"), (None, "cannot be read")],
)
def test_useless_file_is_refused_at_the_start(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        TokenFile(path)


def test_bearer_token() -> None:
    assert bearer_token([("x", "y"), ("authorization", "bearer  abc ")]) == "abc"
    assert bearer_token([("authorization", "Basic abc")]) is None
    assert bearer_token([("authorization", "Bearer two words")]) is None
    assert bearer_token([]) is None


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("ipv6:[fe80::1]:5000", "fe80::1"),
        ("unix:", "unix"),
        ("unix:/tmp/x", "unix"),
    ],
)
def test_address_of_a_peer_has_no_port(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_certificate_subject() -> None:
    assert certificate_subject({"x509_common_name": [b"robot"], "security_level": [b"x"]}) == "robot"
    assert certificate_subject({}) is None


async def test_only_a_known_token_is_accepted(token_file: Path) -> None:
    async with edge(token_file=token_file) as running, running.stub() as stub:
        await segment(stub, metadata=bearer("s3cret-1"))
        call = await open_stream(stub, metadata=bearer("s3cret-2"))
        call.cancel()
        metadata: Metadata
        for metadata in ((), bearer("wrong"), (("authorization", "Basic s3cret-1"),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await segment(stub, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert details_of(caught.value)["ErrorInfo"].reason == "UNAUTHENTICATED"
        assert running.sample("refusals_total", limit="token") == 3


async def test_a_stream_without_token_ends_before_the_service_sees_it(token_file: Path) -> None:
    async with edge(token_file=token_file) as running, running.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Track().read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert running.sample("sessions_ended_total", code="UNAUTHENTICATED") == 0


async def test_a_changed_token_is_valid_without_a_restart(token_file: Path) -> None:
    async with edge(token_file=token_file) as running, running.stub() as stub:
        await segment(stub, metadata=bearer("s3cret-1"))
        rewrite(token_file, "annotator s3cret-9\n")
        await segment(stub, metadata=bearer("s3cret-9"))
        with pytest.raises(grpc.aio.AioRpcError):
            await segment(stub, metadata=bearer("s3cret-1"))


@pytest.mark.slow
async def test_a_revoked_token_ends_what_runs_with_it(token_file: Path) -> None:
    async with edge(token_file=token_file) as running, running.stub() as stub:
        kept = await open_stream(stub, metadata=bearer("s3cret-2"))
        revoked = await open_stream(stub, metadata=bearer("s3cret-1"))
        rewrite(token_file, "\n\n\ns3cret-2\n")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(revoked.read(), 20)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "revoked" in str(caught.value.details())
        assert running.sample("sessions_ended_total", code="UNAUTHENTICATED") == 1
        await kept.write(config_request())
        assert await kept.read()
        kept.cancel()


async def test_health_needs_no_token_but_reflection_does(token_file: Path) -> None:
    async with edge(token_file=token_file) as running, grpc.aio.insecure_channel(running.server.address) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        with contextlib.suppress(grpc.aio.AioRpcError):  # the refusal may be here before anything is sent
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_log_names_the_client_by_its_token(token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with edge(token_file=token_file) as running, running.stub() as stub:
            await segment(stub, metadata=bearer("s3cret-1"))
            await stub.GetServerInfo(server_info_pb2.GetServerInfoRequest(), metadata=bearer("s3cret-2"))
    lines = [r.__dict__ for r in caplog.records if r.getMessage() == "rpc"]
    assert [(line["client"], line["method"].rpartition("/")[2], line["code"]) for line in lines] == [
        ("annotator", "SegmentImage", "OK"),
        ("token-4", "GetServerInfo", "OK"),
    ]
    assert "s3cret" not in caplog.text
