from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from masklet.errors import InvalidArgument
from masklet.v1 import tracking_pb2_grpc
from masklet_server.rpc.tls import server_credentials
from masklet_server.settings import checked
from tests.support.rpc import Authority, edge, segment

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by the openssl program")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> dict[str, Path]:
    certificate, key = authority.issue("server")
    return {"tls_certificate": certificate, "tls_key": key}


def credentials(authority: Authority, pair: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
    chain, key = pair or (None, None)
    return grpc.ssl_channel_credentials(
        root_certificates=authority.certificate.read_bytes(),
        private_key=key.read_bytes() if key else None,
        certificate_chain=chain.read_bytes() if chain else None,
    )


async def call(address: str, chosen: grpc.ChannelCredentials | None) -> Any:
    channel = grpc.aio.insecure_channel(address) if chosen is None else grpc.aio.secure_channel(address, chosen)
    async with channel:
        return await segment(tracking_pb2_grpc.TrackingServiceStub(channel))


async def refused(address: str, chosen: grpc.ChannelCredentials | None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(address, chosen)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tls(authority: Authority, tls: dict[str, Path], tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with edge(**tls) as running:
        assert (await call(running.server.address, credentials(authority))).image_id == "one"
        await refused(running.server.address, None)
        await refused(running.server.address, credentials(stranger))


async def test_mutual_tls_names_the_client(
    authority: Authority, tls: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path, "stranger")
    with caplog.at_level(logging.INFO):
        async with edge(**tls, tls_client_ca=authority.certificate) as running:
            await call(running.server.address, credentials(authority, authority.issue("robot-7")))
            await refused(running.server.address, credentials(authority))
            await refused(running.server.address, credentials(authority, stranger.issue("robot-7")))
    (line,) = [r.__dict__ for r in caplog.records if r.getMessage() == "rpc"]
    assert line["client"] == "CN=robot-7"


async def test_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    certificate, key = old.issue("server")
    async with edge(tls_certificate=certificate, tls_key=key) as running:
        await call(running.server.address, credentials(old))
        for path, renewed in zip((certificate, key), new.issue("server"), strict=True):
            shutil.copy(renewed, path)
        await call(running.server.address, credentials(new))
        await refused(running.server.address, credentials(old))


async def test_a_damaged_certificate_leaves_the_old_one_in_use(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [Path(shutil.copy(path, tmp_path)) for path in authority.issue("server-2")]
    async with edge(tls_certificate=files[0], tls_key=files[1]) as running:
        files[0].write_text("not a certificate any more")
        await call(running.server.address, credentials(authority))
    assert "the certificate stays as it was" in caplog.text


def test_key_of_another_certificate_is_refused(authority: Authority, tls: dict[str, Path]) -> None:
    _, other_key = authority.issue("other")
    with pytest.raises(InvalidArgument, match=r"tls_certificate: .* cannot be used"):
        server_credentials(checked({**tls, "tls_key": other_key}))


def test_missing_file_is_refused_by_name(tls: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="tls_certificate"):
        server_credentials(checked({**tls, "tls_certificate": tmp_path / "none.pem"}))
    with pytest.raises(InvalidArgument, match="tls_client_ca"):
        server_credentials(checked({**tls, "tls_client_ca": tmp_path / "none.pem"}))


def test_no_files_no_tls() -> None:
    assert server_credentials(checked({})) is None
