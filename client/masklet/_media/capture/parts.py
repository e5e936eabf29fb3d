"""The video of one connection to a live source, as packets or as decoded frames."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from masklet._media.capture.source import STDIN, LiveSource

if TYPE_CHECKING:
    from av.container import InputContainer

# Codecs whose packets servers take; video in any other codec is decoded here and sent as frames.
_PACKET_CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
_TO_START_CODES = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_DEVICE_FORMAT = "v4l2"
_OPEN_SECONDS = 15.0
_AFTER_SILENCE_SECONDS = 2.0
# Containers that can ask for a rotation, and how many packets may pass until the first frame tells of it.
_ROTATING = ("mov", "matroska")
_MAX_PEEKED = 64
# Formats without time stamps, for which FFmpeg assumes 25 frames a second.
_WITHOUT_TIMES = ("mpjpeg",)


@dataclass(frozen=True)
class Opened:
    """A connection was made.

    Attributes:
        seconds: Length of the video, where it has one that is known.
        container: FFmpeg's name of the format.
        passed_on: True where the parts are packets.
    """

    seconds: float | None
    container: str
    passed_on: bool


@dataclass(frozen=True)
class Part:
    """A packet or a frame, as it came.

    Attributes:
        video: A packet's data, or pixels ``uint8[H, W, 3]`` RGB.
        seconds: Its time by the source's own clock; None where it has none.
        codec: Of a packet; empty for pixels.
        extradata: What the codec needs beforehand; in a connection's first packet alone.
        is_key: Decoding can begin here.
        read_nanoseconds: When it was read, by `time.time_ns`.
    """

    video: bytes | npt.NDArray[np.uint8]
    seconds: float | None
    codec: str = ""
    extradata: bytes = b""
    is_key: bool = True
    read_nanoseconds: int = field(default_factory=time.time_ns)


class NoVideoError(Exception):
    """The source holds no video."""


@dataclass(frozen=True)
class HowToOpen:
    """What FFmpeg is told.

    Attributes:
        read_seconds: Seconds without video after which a source counts as silent.
        reconnect: Whether the stream is connected again where it breaks. Then packets are given that need nothing said
            beforehand, so that those of a later connection can follow.
        options: Further options of FFmpeg's formats and protocols.
    """

    read_seconds: float
    reconnect: bool
    options: Mapping[str, str]


def read_parts(source: LiveSource, how: HowToOpen) -> Iterator[Opened | Part]:
    """Connect to a source, and give its parts until it ends.

    Raises:
        av.FFmpegError, OSError: It cannot be opened, or breaks.
        NoVideoError: It holds no video.
    """
    import av

    with ExitStack() as stack:
        container = stack.enter_context(av.open(**_arguments(source, how, stack)))
        if not container.streams.video:
            raise NoVideoError
        stream = container.streams.best("video") or container.streams.video[0]
        demuxed = container.demux(stream)
        peeked, rotated = _peek(container, stream, demuxed)
        codec = stream.codec_context.codec.canonical_name
        passed_on = codec in _PACKET_CODECS and not rotated
        seconds = None if container.duration is None else container.duration / av.time_base
        yield Opened(seconds if seconds and seconds > 0 else None, container.format.name, passed_on)
        timed = container.format.name not in _WITHOUT_TIMES
        if passed_on:
            parts = _packets(stream, [packet for packet, _ in peeked], demuxed, codec, how)
        else:
            parts = _frames(peeked, demuxed)
        for part in parts:
            yield part if timed else replace(part, seconds=None)


def _arguments(source: LiveSource, how: HowToOpen, stack: ExitStack) -> dict[str, Any]:
    options = dict(how.options)
    if source.kind == "pipe":
        # No protocol has this name: a playlist that comes through a pipe opens no file.
        return {"file": _Pipe(source, stack), "mode": "r", "options": {"protocol_whitelist": "none", **options}}
    if source.kind == "device":
        return {"file": source.name, "mode": "r", "format": _DEVICE_FORMAT, "options": options}
    if source.scheme.startswith("rtsp"):
        options = {"rtsp_transport": "tcp", **options}  # over UDP, RTSP loses packets wherever the network does
    if source.scheme.startswith("http"):
        options = {"protocol_whitelist": "http,https,tcp,tls,crypto,httpproxy", **options}
    # Whoever takes the parts notices silence first, and says so.
    seconds = how.read_seconds + _AFTER_SILENCE_SECONDS
    return {"file": source.name, "mode": "r", "options": options, "timeout": (_OPEN_SECONDS, seconds)}


class _Pipe:
    """A pipe for FFmpeg: a read returns what is there, and does not wait for a whole buffer."""

    def __init__(self, source: LiveSource, stack: ExitStack) -> None:
        if source.name == STDIN:
            self._descriptor = sys.stdin.fileno()
        else:
            self._descriptor = os.open(source.name, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, self._descriptor)

    def read(self, count: int) -> bytes:
        return os.read(self._descriptor, count)


def _peek(container: InputContainer, stream: Any, demuxed: Iterator[Any]) -> tuple[list[tuple[Any, list[Any]]], bool]:
    """Read on until the first frame tells whether the container asks to turn frames, where it can do so.

    Returns:
        The packets that were read, each with the frames that it gave; whether frames are to be turned.
    """
    from masklet._media.frames import is_turned

    peeked: list[tuple[Any, list[Any]]] = []
    if any(name in container.format.name for name in _ROTATING):
        stream.codec_context.thread_type = "SLICE"  # frame threads would hold frames back
        for packet in demuxed:
            peeked.append((packet, _decoded(packet)))
            frames = peeked[-1][1]
            if frames:
                return peeked, is_turned(frames[0])
            if len(peeked) == _MAX_PEEKED:
                break
    return peeked, False


def _packets(stream: Any, peeked: list[Any], demuxed: Iterator[Any], codec: str, how: HowToOpen) -> Iterator[Part]:
    extradata = bytes(stream.codec_context.extradata or b"")
    to_start_codes = None
    if how.reconnect and codec in _TO_START_CODES and extradata[:1] == b"\x01":
        from av.bitstream import BitStreamFilterContext

        to_start_codes, extradata = BitStreamFilterContext(_TO_START_CODES[codec], stream), b""
    for packets in (peeked, demuxed):
        for packet in packets:
            for one in [packet] if to_start_codes is None else to_start_codes.filter(packet):
                if one.size:
                    yield Part(bytes(one), _seconds(one), codec, extradata, bool(one.is_keyframe))
                    extradata = b""


def _frames(peeked: list[tuple[Any, list[Any]]], demuxed: Iterator[Any]) -> Iterator[Part]:
    from masklet._media.frames import shown_pixels

    for _, frames in peeked:
        for frame in frames:
            yield Part(shown_pixels(frame), _seconds(frame))
    for packet in demuxed:
        for frame in _decoded(packet):
            yield Part(shown_pixels(frame), _seconds(frame))


def _decoded(packet: Any) -> list[Any]:
    import av

    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []  # a damaged picture costs a frame


def _seconds(part: Any) -> float | None:
    return None if part.pts is None or part.time_base is None else float(part.pts * part.time_base)
