"""The process that reads one camera or stream, and gives its newest picture as JPEG whenever the gateway asks.

Whatever the camera sends is decoded here and not in the gateway. Before it reads anything of that, the process confines
itself as decoders do (`masklet_media.confinement`); only the network, or its device, is left to it. It ends when its
standard input ends, so that the camera is free as soon as the gateway is gone, however that happened.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.bitstream
import av.error
import numpy as np
import numpy.typing as npt
import PIL.Image

from masklet._media import frames  # noqa: F401 - `capture` imports it when it needs it, which is too late
from masklet._media.capture.capture import Capture, Captured, CaptureEvent, capture
from masklet._media.capture.source import LiveSource
from masklet._protocol.live import VideoPacket
from masklet.errors import DataLoss, InvalidArgument, MaskletError
from masklet_media import picture_readers  # noqa: F401 - see there
from masklet_media.confinement import Outside, confine
from masklet_studio.frames import messages
from masklet_studio.live.pictures import MAX_SIDE

MAX_MEMORY_BYTES = 6 << 30
"""Of address space, which is more than what is used."""
_QUALITY = 90
_MAX_WAITING_PACKETS = 64  # of which a decoder keeps the times, until it has given their frames


@dataclass(frozen=True)
class _Shown:
    """A decoded picture that nobody has asked for yet."""

    pixels: av.VideoFrame | npt.NDArray[np.uint8]
    pts_seconds: float | None
    taken_nanoseconds: int


def main() -> None:
    """Read the source that the first message names; answer requests until the input ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    first = messages.read(requests)
    if first is None:
        return
    source = LiveSource.of(first[0]["source"])
    newest = _Newest(answers)
    newest.tell({"kind": "confined", "missing": confine_for(source)})
    threading.Thread(target=newest.film, args=(first[0]["source"],), daemon=True).start()
    threading.Thread(target=newest.answer, daemon=True).start()
    while messages.read(requests) is not None:
        newest.ask()
    os._exit(0)  # a read from a camera that sends nothing is not waited for


def confine_for(source: LiveSource | None) -> list[str]:
    """Give up all that reading this source does not need; returns the layers that are not possible here."""
    if source is not None and source.kind == "network":
        # The resolver loads what it needs while it still can.
        with contextlib.suppress(OSError, ValueError):
            socket.getaddrinfo(urllib.parse.urlsplit(source.name).hostname, None)
    device = source.name if source is not None and source.kind == "device" else ""
    outside = Outside(network=source is not None and source.kind == "network", device=device)
    return confine(memory_bytes=MAX_MEMORY_BYTES, cpu_seconds=0, nice=0, outside=outside)


class _Newest:
    """The newest picture, and whether it was asked for."""

    def __init__(self, answers: io.BufferedWriter) -> None:
        self._answers = answers
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._shown: _Shown | None = None
        self._asked = 0

    def ask(self) -> None:
        """Take note that one more picture is wanted."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def film(self, source: str) -> None:
        """Read the source to its end; tell what happens to it."""
        try:
            # A device that comes back has another entry in /dev, which is closed to this process.
            again = None if "://" in source else False
            with capture(source, reconnect=again, on_event=self._tell_event) as camera:
                self.tell({"kind": "opened"})
                for shown in _decoded(camera):
                    with self._changed:
                        self._shown = shown
                        self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - the gateway is told, whatever it is
            self.tell({"kind": "end", "error": _words(error)})
        else:
            self.tell({"kind": "end", "error": ""})

    def answer(self) -> None:
        """Give a picture for each request: the newest one, and none twice."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > 0 and self._shown is not None)
                shown, self._shown = self._shown, None
                self._asked -= 1
            assert shown is not None
            picture = _picture(shown.pixels)
            data = io.BytesIO()
            picture.save(data, "JPEG", quality=_QUALITY)
            message = {
                "kind": "picture", "pts": shown.pts_seconds, "taken": shown.taken_nanoseconds, "width": picture.width,
                "height": picture.height,
            }  # fmt: skip
            self.tell(message, data.getvalue())

    def _tell_event(self, event: CaptureEvent) -> None:
        self.tell({"kind": "event", "event": event.kind, "message": event.message})

    def tell(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message to the gateway."""
        with self._writing:
            self._answers.write(messages.pack(message, payload))
            self._answers.flush()


def _decoded(camera: Capture) -> Iterator[_Shown]:
    """The frames of a source, decoded where they come as packets."""
    codec: av.VideoCodecContext | None = None
    waiting: dict[int, Captured] = {}
    for index, part in enumerate(camera):
        if not isinstance(part.video, VideoPacket):
            yield _Shown(part.video, part.pts_seconds, part.capture_time_nanoseconds)
            continue
        if codec is None:
            codec = _decoder(part.video)
        packet = av.Packet(part.video.data)
        packet.pts = index
        waiting[index] = part
        try:
            frames = codec.decode(packet)
        except av.FFmpegError:
            continue  # a damaged picture costs a frame
        for frame in frames:
            told = waiting.pop(frame.pts, part) if frame.pts is not None else part
            yield _Shown(frame, told.pts_seconds, told.capture_time_nanoseconds)
        while len(waiting) > _MAX_WAITING_PACKETS:
            waiting.pop(next(iter(waiting)))


def _decoder(packet: VideoPacket) -> av.VideoCodecContext:
    codec = av.CodecContext.create("libdav1d" if packet.codec == "av1" else packet.codec, "r")
    assert isinstance(codec, av.VideoCodecContext)
    codec.thread_type = "SLICE"  # frame threads would hold frames back
    if packet.extradata:
        codec.extradata = packet.extradata
    return codec


def _picture(pixels: av.VideoFrame | npt.NDArray[np.uint8]) -> PIL.Image.Image:
    """The frame as a picture of at most `MAX_SIDE` pixels a side."""
    if isinstance(pixels, np.ndarray):
        picture = PIL.Image.fromarray(pixels)
        if max(picture.size) > MAX_SIDE:
            picture.thumbnail((MAX_SIDE, MAX_SIDE), PIL.Image.Resampling.BILINEAR)
        return picture
    scale = min(1.0, MAX_SIDE / max(pixels.width, pixels.height))
    width, height = round(pixels.width * scale), round(pixels.height * scale)
    return PIL.Image.fromarray(pixels.reformat(width=width, height=height, format="rgb24").to_ndarray())


def _words(error: Exception) -> str:
    if isinstance(error, InvalidArgument) and error.violations:
        return error.violations[0].description
    if isinstance(error, (MaskletError, DataLoss)):
        return error.message
    return f"the camera cannot be read: {error or type(error).__name__}"


if __name__ == "__main__":
    main()
