"""Writes pictures, with transparency where there is any, and the sound of the video that they come from."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

from masklet._media.uploads import VideoSource
from masklet.errors import DataLoss, InvalidArgument

_TIME_BASE = Fraction(1, 90_000)
_BT709 = 1  # FFmpeg's number for the primaries and the transfer curve
_OPUS_RATE = 48_000


@dataclass(frozen=True)
class Codec:
    """How a movie is encoded.

    Attributes:
        name: FFmpeg's name of the encoder.
        pixel_format: What it encodes.
        options: The encoder's options.
        copied: Codecs of sound that go into the file as they are; the first one is what other sound is encoded in.
        even: True: sides must be even; they grow by a pixel.
        width_step: The width must be a multiple of this; it grows at the right, by transparent or black pixels.
    """

    name: str
    pixel_format: str
    options: dict[str, str] = field(default_factory=dict)
    copied: tuple[str, ...] = ()
    even: bool = True
    width_step: int = 1


class Movie:
    """A file with one video and perhaps sound, written one picture at a time.

    Args:
        path: The file, overwritten if it exists; its suffix decides the container.
        codec: How it is encoded.
        sound: The video whose sound is taken; None: no sound.

    Raises:
        DataLoss: The video with the sound cannot be read.
    """

    def __init__(self, path: Path, codec: Codec, sound: VideoSource | None = None) -> None:
        self._codec = codec
        self._sound_of = sound
        self._stack = contextlib.ExitStack()
        self._container = self._stack.enter_context(av.open(str(path), "w"))
        self._stream: Any = None
        self._sound: _Sound | None = None
        self._start_seconds = 0.0
        self._pts, self._step = -1, round(1 / 30 / _TIME_BASE)

    def __enter__(self) -> Movie:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def write(self, picture: npt.NDArray[np.uint8], pts_seconds: float) -> None:
        """Append a picture.

        Args:
            picture: ``uint8[H, W, 3]`` RGB, ``uint8[H, W, 4]`` RGBA (straight alpha) or ``uint8[H, W]`` gray.
            pts_seconds: From when it is shown, by the clock of the video.
        """
        picture = _widened(_even(picture) if self._codec.even else picture, self._codec.width_step)
        if self._stream is None:
            self._start_seconds = pts_seconds
            self._open(*picture.shape[:2])
        pts = max(self._pts + 1, round((pts_seconds - self._start_seconds) / _TIME_BASE))
        if self._pts >= 0:
            self._step = pts - self._pts
        self._pts = pts
        name = {2: "gray", 3: {3: "rgb24", 4: "rgba"}.get(picture.shape[-1], "")}[picture.ndim]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=name)
        if self._codec.pixel_format != name:
            frame = frame.reformat(
                format=self._codec.pixel_format, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
        frame.pts, frame.time_base = pts, _TIME_BASE
        if self._sound is not None:
            self._sound.write_until(pts_seconds)
        self._mux(frame)

    def finish(self) -> None:
        """Write what the encoders still hold, and the sound up to the end of the last picture.

        Raises:
            InvalidArgument: No picture was written; a movie without pictures could not be opened.
        """
        if self._stream is None:
            raise InvalidArgument.of("recording", "has no frame, so there is no video to write")
        self._mux(None)
        if self._sound is not None:
            self._sound.write_until(self._start_seconds + float((self._pts + self._step) * _TIME_BASE))
            self._sound.finish()

    def _open(self, height: int, width: int) -> None:
        stream: Any = self._container.add_stream(self._codec.name, rate=30, options=self._codec.options)
        stream.width, stream.height, stream.pix_fmt = width, height, self._codec.pixel_format
        stream.codec_context.time_base = _TIME_BASE
        if self._codec.pixel_format != "gray":
            context = stream.codec_context
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            context.color_primaries = context.color_trc = _BT709
        self._stream = stream
        if self._sound_of is not None and self._codec.copied:
            opened = self._stack.enter_context(_opened(self._sound_of))
            if opened is not None and opened.streams.audio:
                self._sound = _Sound(opened, self._container, self._codec, self._start_seconds)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            packet.duration = packet.duration or self._step  # the last packet's decides when the file ends
            self._container.mux(packet)


class _Sound:
    """The sound of one file on its way into another, from a time on: copied where that is possible, else encoded."""

    def __init__(
        self,
        source: av.container.InputContainer,
        target: av.container.OutputContainer,
        codec: Codec,
        start_seconds: float,
    ) -> None:
        stream: Any = source.streams.best("audio") or source.streams.audio[0]
        self._target, self._start = target, start_seconds
        self._packets = source.demux(stream)
        self._pending: Any = None
        self._resampler: Any = None
        if stream.codec_context.name in codec.copied:
            self._stream: Any = target.add_stream_from_template(stream)
        else:
            name = codec.copied[0]
            rate = _OPUS_RATE if name == "libopus" else stream.rate
            layout = "stereo" if len(stream.layout.channels) > 1 else "mono"
            self._stream = target.add_stream(name, rate=rate, layout=layout)
            context = self._stream.codec_context
            self._resampler = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or None)

    def write_until(self, seconds: float) -> None:
        """Write the sound that is heard before a time, by the clock of the source."""
        while (packet := self._next()) is not None:
            begin = float(packet.pts * packet.time_base)
            if begin >= seconds:
                return
            self._pending = None
            if begin + float((packet.duration or 0) * packet.time_base) > self._start:
                self._write(packet)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                self._target.mux(self._stream.encode(frame))
            self._target.mux(self._stream.encode(None))

    def _next(self) -> Any:
        while self._pending is None:
            packet = next(self._packets, None)
            if packet is None:
                return None
            if packet.pts is not None and packet.dts is not None:  # the last one, which flushes, has none
                self._pending = packet
        return self._pending

    def _write(self, packet: Any) -> None:
        shift = round(self._start / packet.time_base)
        if self._resampler is None:
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = self._stream
            self._target.mux(packet)
            return
        for frame in packet.decode():
            if frame.pts is not None:
                frame.pts -= round(self._start / frame.time_base)
            for resampled in self._resampler.resample(frame):
                self._target.mux(self._stream.encode(resampled))


@contextlib.contextmanager
def _opened(video: VideoSource) -> Iterator[av.container.InputContainer | None]:
    """The video as a container; None where it is not one file, and so has no sound."""
    file: Any = video
    if isinstance(video, (bytes, bytearray, memoryview)):
        file = io.BytesIO(video)
    elif isinstance(video, (str, os.PathLike)):
        file = None if Path(video).is_dir() else str(video)
    else:
        file = None
    if file is None:
        yield None
        return
    try:
        options = {} if isinstance(file, io.BytesIO) else {"protocol_whitelist": "file"}
        container = av.open(file, "r", options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        raise DataLoss(f"the video's sound cannot be read: {error.strerror}") from error
    with container:
        yield container


def _widened(picture: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    missing = -picture.shape[1] % step
    return np.pad(picture, [(0, 0), (0, missing), *[(0, 0)] * (picture.ndim - 2)]) if missing else picture


def _even(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        missing = [(0, height % 2), (0, width % 2), (0, 0)][: picture.ndim]
        picture = np.pad(picture, missing, mode="edge")
    return picture
