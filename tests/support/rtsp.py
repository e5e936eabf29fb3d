"""A small RTSP server for tests: one H.264 stream over TCP, which may break off, fall silent, or ask for a password."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from tests.support import clips

_CLOCK = 90_000
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n{range}"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track\r\n"
)


@dataclass
class Behaviour:
    """How one connection goes.

    Attributes:
        frames: Sent before the connection is closed; None: all, again and again.
        silent: Stay connected after the last frame, and send nothing more.
        seconds: Length that the description names; None: an endless stream.
    """

    frames: int | None = None
    silent: bool = False
    seconds: float | None = None


class RtspServer:
    """Use as a context manager. Connection N behaves as `behaviours[N]` says; those after the last one as the last.

    Attributes:
        connections: How many have asked for the video.
    """

    def __init__(
        self,
        pictures: Sequence[npt.NDArray[np.uint8]],
        *behaviours: Behaviour,
        rate: int = 25,
        login: str | None = None,
        port: int = 0,
    ) -> None:
        self.connections = 0
        self._units = access_units(pictures)
        self._behaviours = behaviours or (Behaviour(),)
        self._rate = rate
        self._login = None if login is None else "Basic " + base64.b64encode(login.encode()).decode()
        self._stopping = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/stream"

    def __enter__(self) -> RtspServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listener.accept()
                self._sockets.append(one)
                threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with one, one.makefile("rb") as requests, contextlib.suppress(OSError):
            while request := self._read(requests):
                method, sequence = request[0].split()[0], self._header(request, "CSeq")
                behaviour = self._behaviours[min(self.connections, len(self._behaviours) - 1)]
                status, extra, body = "200 OK", "Session: 1\r\n", ""
                if self._login is not None and self._header(request, "Authorization") != self._login:
                    status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
                elif method == "DESCRIBE":
                    length = "" if behaviour.seconds is None else f"a=range:npt=0-{behaviour.seconds}\r\n"
                    body = _SDP.format(range=length)
                    extra = f"Content-Type: application/sdp\r\nContent-Base: {self.url}/\r\n"
                elif method == "SETUP":
                    extra += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                answer = f"RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}"
                one.sendall(answer.encode())
                if method == "PLAY" and status == "200 OK":
                    self.connections += 1
                    self._play(one, behaviour)
                    return

    def _play(self, one: socket.socket, behaviour: Behaviour) -> None:
        sequence, begun = 0, time.monotonic()
        count = behaviour.frames
        for index, unit in enumerate(itertools.islice(itertools.cycle(self._units), count)):
            self._stopping.wait(max(0.0, begun + index / self._rate - time.monotonic()))
            for number, nal in enumerate(unit):
                marker = 0x80 if number == len(unit) - 1 else 0
                stamp = index * _CLOCK // self._rate
                packet = struct.pack("!BBHII", 0x80, 96 | marker, sequence & 0xFFFF, stamp, 7) + nal
                one.sendall(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
                sequence += 1
        if behaviour.silent:
            self._stopping.wait(60)

    @staticmethod
    def _read(requests: Any) -> list[str]:
        lines: list[str] = []
        while (line := requests.readline().decode().strip()) or not lines:
            if not line:
                return []
            lines.append(line)
        return lines

    @staticmethod
    def _header(request: list[str], name: str) -> str:
        return next((line.partition(": ")[2] for line in request if line.startswith(f"{name}: ")), "")


def access_units(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[list[bytes]]:
    """The NAL units of each picture as H.264; every fourth picture begins anew, with all that decoding needs."""
    height, width = pictures[0].shape[:2]
    data = clips.make_clip(
        "mpegts",
        "libx264",
        size=(width, height),
        pictures=pictures,
        gop=4,
        codec_options={"x264-params": "repeat-headers=1:bframes=0:aud=0", "tune": "zerolatency"},
    )
    with av.open(io.BytesIO(data), "r") as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    return [[nal for nal in re.split(rb"\x00\x00\x00?\x01", packet) if nal] for packet in packets]
