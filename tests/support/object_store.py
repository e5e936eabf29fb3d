"""An S3 server on this machine (moto), and a weir before it that makes it slow, refusing, or gone."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOTO = shutil.which("moto_server")
BUCKET = "snapshots"


def environment(address: str) -> dict[str, str]:
    """The variables by which object stores are found at an address."""
    return {
        "AWS_ENDPOINT": address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server with one bucket, `BUCKET`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert MOTO is not None
    command = [MOTO, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        address = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT"), timeout=30).close()
        yield address
    finally:
        server.kill()
        server.wait()


class Weir:
    """Passes HTTP requests on to a server. Use it as a context manager.

    Attributes:
        address: Where it listens.
        put_seconds: So long each PUT takes longer.
        status: All requests are answered by this; 0: they are passed on.
        is_gone: Connections are closed without an answer.
        refused: How many requests were not passed on.
    """

    def __init__(self, target: str) -> None:
        self.put_seconds = 0.0
        self.status = 0
        self.is_gone = False
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, target.removeprefix("http://")))
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Weir:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def open(self) -> None:
        """Let everything through again."""
        self.put_seconds, self.status, self.is_gone = 0.0, 0, False


def _handler(weir: Weir, target: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if weir.is_gone:
                weir.refused += 1
                self.close_connection = True
                return
            if weir.status:
                weir.refused += 1
                self._answer(weir.status, {}, b"<Error><Code>Refused</Code></Error>")
                return
            if self.command == "PUT":
                time.sleep(weir.put_seconds)
            there = http.client.HTTPConnection(target, timeout=30)
            try:
                there.request(self.command, self.path, body, dict(self.headers))
                answer = there.getresponse()
                self._answer(answer.status, dict(answer.getheaders()), answer.read())
            finally:
                there.close()

        do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = _pass_on  # noqa: N815

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            return

    return Handler
