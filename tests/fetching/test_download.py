"""Videos that the server fetches: what is allowed, and what a hostile URL, name or server gets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from masklet.errors import DeadlineExceeded, InvalidArgument
from masklet_server.fetching.download import VideoDownload
from masklet_server.fetching.rules import FIELD, FetchRules
from tests.support.rpc import Authority

DATA = bytes(range(256)) * 4096
LOCAL = FetchRules(("http", "https"), ("127.0.0.1", "localhost"))


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        if path == "/video":
            self._give(DATA)
        elif path == "/broken":
            self._give(DATA[:1000], length=2000)
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(600):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
        elif path == "/to":
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_error(404)

    def _give(self, data: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def web() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield server
        finally:
            server.shutdown()


async def fetched(url: str, rules: FetchRules = LOCAL) -> bytes:
    parts = [chunk async for chunk in VideoDownload(url, rules).chunks()]
    return b"".join(parts)


async def refused(url: str, rules: FetchRules = LOCAL) -> str:
    with pytest.raises(InvalidArgument) as caught:
        await fetched(url, rules)
    assert [violation.field for violation in caught.value.violations] == ["config.source_url"]
    return caught.value.message


async def test_a_video_is_fetched(web: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{web.server_port}/video?token=1#here"
    assert await fetched(url) == DATA
    assert web.asked == [("/video?token=1", f"127.0.0.1:{web.server_port}")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://127.0.0.1/x", "scheme ftp"),
        ("rtsp://127.0.0.1/x", "scheme rtsp"),
        ("file:///etc/passwd", "scheme file"),
        ("127.0.0.1/x", "scheme (none)"),
        ("http://example.org/x", "host example.org"),
        ("http://127.0.0.1@example.org/x", "name or password"),
        ("http://me:secret@127.0.0.1/x", "name or password"),
        ("http:///x", "host (none)"),
        ("http://[::1/x", "no URL"),
        ("http://127.0.0.1:99999/x", "no URL"),
        ("http://127.0.0.1/x\r\nHost: other", "printable"),
        ("http://127.0.0.1/" + "x" * 5000, "4096"),
        ("http://127.0.0.1:1/x", "could not be fetched"),
    ],
)
async def test_what_is_not_allowed(url: str, said: str) -> None:
    assert said in await refused(url)


async def test_nothing_is_fetched_by_default() -> None:
    assert "send the video itself" in await refused("http://example.org/x", FetchRules())


async def test_what_a_server_may_answer(web: ThreadingHTTPServer) -> None:
    base = f"http://127.0.0.1:{web.server_port}"
    assert "status 404" in await refused(f"{base}/none")
    assert "could not be fetched" in await refused(f"{base}/broken")
    assert await fetched(f"{base}/to?{base}/video") == DATA
    assert await fetched(f"{base}/to?/to?/video") == DATA
    assert "redirected more than 5 times" in await refused(f"{base}/to?" + "/to?" * 7 + "/video")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("http://169.254.169.254/latest/meta-data", "host 169.254.169.254"),
        ("http://example.org/", "host example.org"),
        ("file:///etc/passwd", "file://"),
        ("ftp://127.0.0.1/", "scheme ftp"),
        ("http://user@127.0.0.1/", "name or password"),
    ],
)
async def test_redirections_are_checked_again(web: ThreadingHTTPServer, target: str, said: str) -> None:
    rules = FetchRules(("http", "file"), ("127.0.0.1",), (Path("/"),))
    assert said in await refused(f"http://127.0.0.1:{web.server_port}/to?{target}", rules)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200"]
    + [f"[{ip}]" for ip in ("::1", "::", "fd00:ec2::254", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe")],
)
async def test_private_addresses_are_refused_where_a_pattern_allows_the_host(host: str) -> None:
    assert "not public" in await refused(f"http://{host}/x", FetchRules(("http",), ("*",)))


async def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(
    web: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose meaning changes between check and connection, as in DNS rebinding."""
    answers = iter(["127.0.0.1", "10.0.0.1", "10.0.0.1"])
    lookups: list[str] = []
    original = socket.getaddrinfo

    def lookup(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "changing.test":
            lookups.append(host)
            host = next(answers)
        return original(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    url = f"http://changing.test:{web.server_port}/video"
    assert "not public" in await refused(url, FetchRules(("http",), ("*.test",)))
    answers = iter(["127.0.0.1", "10.0.0.1", "10.0.0.1"])
    lookups.clear()
    assert await fetched(url, FetchRules(("http",), ("changing.test",))) == DATA
    assert lookups == ["changing.test"]
    assert web.asked == [("/video", f"changing.test:{web.server_port}")]  # type: ignore[attr-defined]


async def test_a_host_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert "not public" in await refused("http://both.test/x", FetchRules(("http",), ("*",)))


async def test_time_is_bounded_however_slowly_bytes_come(web: ThreadingHTTPServer) -> None:
    rules = FetchRules(("http",), ("127.0.0.1",), timeout_seconds=0.5)
    with pytest.raises(DeadlineExceeded, match="source_timeout_seconds"):
        await fetched(f"http://127.0.0.1:{web.server_port}/slow", rules)


async def test_leaving_early_ends_the_thread(web: ThreadingHTTPServer) -> None:
    async with contextlib.aclosing(VideoDownload(f"http://127.0.0.1:{web.server_port}/slow", LOCAL).chunks()) as chunks:
        assert await anext(chunks)
    deadline = time.monotonic() + 20
    while any(thread.name.startswith("masklet-fetch") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_tls_is_checked_against_the_name(
    web: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    web.socket = context.wrap_socket(web.socket, server_side=True)
    url = f"https://localhost:{web.server_port}/video"
    assert "SSLCertVerificationError" in await refused(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    assert await fetched(url) == DATA


# Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b.mp4").write_bytes(DATA)
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "good").symlink_to(tmp_path / "in" / "a b.mp4")
    os.mkfifo(tmp_path / "in" / "pipe")
    return tmp_path / "in"


@pytest.mark.parametrize("name", ["a%20b.mp4", "good", "../in/a%20b.mp4"])
async def test_a_file_in_an_allowed_folder(folder: Path, name: str) -> None:
    assert await fetched(f"file://{folder}/{name}", FetchRules(("file",), (), (folder,))) == DATA


@pytest.mark.parametrize("name", ["link", "../outside", "%2e%2e/outside", "..%2Foutside", "pipe", "none", "", "x%00y"])
async def test_files_elsewhere_are_refused_alike(folder: Path, name: str) -> None:
    said = await refused(f"file://{folder}/{name}", FetchRules(("file",), (), (folder,)))
    assert said == f"{FIELD}: is no file in a folder that this server allows"


async def test_files_of_other_machines_and_without_a_folder(folder: Path) -> None:
    assert "on the server itself" in await refused(f"file://host{folder}/good", FetchRules(("file",), (), (folder,)))
    assert "no file" in await refused(f"file://{folder}/good", FetchRules(("file",)))
