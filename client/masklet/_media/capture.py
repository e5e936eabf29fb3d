"""Cameras, network streams and pipes as frames and packets for `Client.live`, read by PyAV on the client's machine."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from masklet.errors import DataLoss, Unavailable

if TYPE_CHECKING:
    from av.container import InputContainer

    from masklet._protocol.live import VideoPacket

STDIN = "-"
# Codecs whose packets servers take; video in any other codec is decoded here and sent as frames.
_PACKET_CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
# Schemes of live streams. http:// is not among them: it mostly leads to files, which should not lose frames.
_URL = re.compile(r"(rtsps?|rtmps?|rtp|srt|udp|tcp)://", re.IGNORECASE)
_DEVICE_FORMAT = "v4l2"
# Seconds without data after which FFmpeg gives up a network stream.
_OPEN_TIMEOUT, _READ_TIMEOUT = 15.0, 30.0


@dataclass(frozen=True)
class Captured:
    """One part of a live video.

    Attributes:
        video: A packet as it came, or a decoded frame ``uint8[H, W, 3]`` RGB.
        pts_seconds: Time since the first part, in seconds; None where the source has no time stamps.
        capture_time_nanoseconds: When it was read, by `time.time_ns`.
    """

    video: VideoPacket | npt.NDArray[np.uint8]
    pts_seconds: float | None
    capture_time_nanoseconds: int


def is_live(source: str) -> bool:
    """Whether the source is stdin, the URL of a stream, a device or a named pipe, and not a file or folder."""
    if source == STDIN or _URL.match(source):
        return True
    try:
        mode = Path(source).stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def is_pipe(source: str) -> bool:
    """Whether the writer of the source waits when it is read slowly, so that no frame is lost."""
    return source == STDIN or (not _URL.match(source) and stat.S_ISFIFO(os.stat(source).st_mode))  # noqa: PTH116


def capture(source: str) -> Iterator[Captured]:
    """Read a live source until it ends.

    Packets of a codec that servers take are passed on as they are. Video in other codecs (such as the MJPEG or raw
    pictures of webcams) is decoded into frames. A rotation that the container asks for is not applied.

    Args:
        source: "-" for stdin, a URL such as rtsp://..., a video device such as /dev/video0, or a named pipe.

    Yields:
        Packets or frames, as they arrive.

    Raises:
        Unavailable: PyAV is not installed, or the source cannot be opened.
        DataLoss: The source holds no video, or breaks off.
    """
    av = _av()
    try:
        container = cast("InputContainer", av.open(**_how(source)))
    except (av.FFmpegError, OSError) as error:
        raise Unavailable(f"{_name(source)} cannot be opened: {error.strerror or error}") from error
    try:
        with container:
            if not container.streams.video:
                raise DataLoss(f"{_name(source)} holds no video")
            yield from _parts(av, container)
    except av.FFmpegError as error:
        raise DataLoss(f"{_name(source)} broke off: {error.strerror}") from error


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise Unavailable("reading cameras and streams needs PyAV: pip install av") from error
    return av


def _how(source: str) -> dict[str, Any]:
    if source == STDIN:
        return {"file": _Unseekable(sys.stdin.buffer), "mode": "r"}
    if not _URL.match(source):
        character = stat.S_ISCHR(os.stat(source).st_mode)  # noqa: PTH116
        return {"file": source, "mode": "r", "format": _DEVICE_FORMAT if character else None}
    # Over UDP, RTSP loses packets wherever the network does.
    options = {"rtsp_transport": "tcp"} if source.lower().startswith("rtsp") else {}
    return {"file": source, "mode": "r", "options": options, "timeout": (_OPEN_TIMEOUT, _READ_TIMEOUT)}


def _name(source: str) -> str:
    return "stdin" if source == STDIN else re.sub(r"//[^/@]*@", "//", source)  # without a password


class _Unseekable:
    """Stdin for FFmpeg: a read returns what is there, and does not wait for a whole buffer."""

    def __init__(self, stream: Any) -> None:
        self._read = stream.read1

    def read(self, count: int) -> bytes:
        data: bytes = self._read(count)
        return data


def _parts(av: Any, container: InputContainer) -> Iterator[Captured]:
    from masklet._protocol.live import VideoPacket  # brings protobuf, without which `masklet --help` is quicker

    stream = container.streams.best("video") or container.streams.video[0]
    context: Any = stream.codec_context
    codec = context.codec.canonical_name
    passed_on = codec in _PACKET_CODECS
    extradata = bytes(context.extradata or b"")
    first: float | None = None
    for packet in container.demux(stream):
        now = time.time_ns()
        if passed_on:
            parts: list[Any] = [packet] if packet.size else []
        else:
            parts = _decoded(av, packet)
        for part in parts:
            seconds = None if part.pts is None or part.time_base is None else float(part.pts * part.time_base)
            first = seconds if first is None else first
            since = None if seconds is None or first is None else seconds - first
            yield Captured(VideoPacket(bytes(part), codec, extradata) if passed_on else _rgb(part), since, now)
            extradata = b""  # in the first packet alone


def _decoded(av: Any, packet: Any) -> list[Any]:
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []  # a damaged picture costs a frame


def _rgb(frame: Any) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return pixels
