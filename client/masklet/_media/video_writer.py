"""Writes pictures into an H.264 file, each shown at its own time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

_TIME_BASE = Fraction(1, 90_000)
_FALLBACK_STEP = round(1 / 30 / _TIME_BASE)
_BT709 = 1  # FFmpeg's number for both the primaries and the transfer curve
# The quality is close to what the eye can tell; drawing should take longer than encoding. Without B-frames, packets
# come in order of presentation, and the last packet's duration is the last frame's.
_X264 = {"preset": "veryfast", "crf": "18", "bf": "0"}
# Fragments, which need no index at the end of the file; one for each group of frames.
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_LIVE_GROUP_FRAMES = 48


class VideoWriter:
    """An H.264 file (MP4, MOV or MKV) that takes one frame at a time; its size is that of the first frame.

    Sides of an odd length grow by one pixel, because most players need even ones.

    Args:
        path: The file, overwritten if it exists; its suffix decides the container.
        live: The video may take long and may be cut off: what was written can be played at any time.

    Attributes:
        count: Frames written so far.
    """

    def __init__(self, path: Path, *, live: bool = False) -> None:
        self.count = 0
        self._container = av.open(str(path), "w", options=_FRAGMENTS if live and path.suffix.lower() != ".mkv" else {})
        self._group_frames = _LIVE_GROUP_FRAMES if live else None
        self._stream: av.VideoStream | None = None
        self._start_seconds = 0.0
        self._pts = 0
        self._step = _FALLBACK_STEP

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._container.close()

    def write(self, picture: npt.NDArray[np.uint8], pts_seconds: float) -> None:
        """Append a picture.

        Args:
            picture: ``uint8[H, W, 3]`` RGB.
            pts_seconds: From when it is shown.
        """
        picture = _even(picture)
        if self._stream is None:
            self._stream = self._open_stream(*picture.shape[:2])
            self._start_seconds = pts_seconds
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts, frame.time_base = self._next_pts(pts_seconds), _TIME_BASE
        self._mux(frame)
        self.count += 1

    def finish(self) -> None:
        """Write the frames that the encoder still holds."""
        self._mux(None)

    def _open_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=30, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        if self._group_frames is not None:
            context.gop_size = self._group_frames
        context.time_base = _TIME_BASE
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = context.color_trc = _BT709
        return stream

    def _next_pts(self, pts_seconds: float) -> int:
        """The time stamp in units of the time base; time stamps must grow."""
        pts = round((pts_seconds - self._start_seconds) / _TIME_BASE)
        if self.count:
            pts = max(pts, self._pts + 1)
            self._step = pts - self._pts
        self._pts = pts
        return pts

    def _mux(self, frame: av.VideoFrame | None) -> None:
        if self._stream is None:
            return
        for packet in self._stream.encode(frame):
            # The encoder leaves the durations out; the last packet's decides when the file ends.
            packet.duration = packet.duration or self._step
            self._container.mux(packet)


def _even(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return picture
