"""Frames of a video file, by PyAV, as the server tracks them and as the client draws on them.

These rules are kept:

- The video stream is the one that FFmpeg calls the best, except for cover pictures. Audio, subtitles and data are not
  read.
- Frames come in order of presentation; `frame_times` says when each of them is shown.
- Packets that cannot be decoded give no frame. The frames that are lost this way are named with the frame that follows.
- The same frames come out whatever the number of threads. So no frames are decoded at the same time: with damaged data
  FFmpeg then loses others than those that are damaged. The parts of one frame are.
- If the file is cut off, or its container is damaged, `ClipReader.damage` says so after the last frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

# PyAV imports these when it first meets such a stream; a decoding process can import nothing then.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream
from av.stream import Disposition

from masklet_media.container_end import Contents, ReadAt, what_is_missing
from masklet_media.frame_times import FrameClock, PromisedFrames

_FALLBACK_RATE = Fraction(30)
_CLOCK_MAY_RESTART = 512  # FFmpeg's AVFMT_TS_DISCONT
_SHOW_FRAME = 0x10  # in the first byte of a VP8 frame (RFC 6386, 9.1)


class NoVideo(Exception):  # noqa: N818 - it is a verdict on the file, not a fault of the program
    """The file has no stream of video; the message says which streams it has."""


@dataclass(frozen=True)
class ClipFrame:
    """One decoded frame.

    Attributes:
        pts: When it is shown, in units of the reader's time base.
        picture: As FFmpeg decoded it: neither turned nor converted.
        undecoded: Times of the frames between the one before and this one that the container has and that could not be
            decoded.
    """

    pts: int
    picture: av.VideoFrame
    undecoded: tuple[int, ...] = ()


def may_be_transparent(picture: av.VideoFrame) -> bool:
    """Whether a frame may have pixels that are not opaque, which are put on black."""
    return picture.format.has_palette or any(component.is_alpha for component in picture.format.components)


def best_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The stream of video in a file that is meant to be watched.

    Raises:
        NoVideo: There is none.
    """
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not videos:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise NoVideo(f"the file has no video stream (streams found: {found})")
    best = container.streams.best("video")
    return best if best in videos else videos[0]


class ClipReader:
    """Reads all frames of an open video file.

    Attributes:
        stream: The stream of video.
        time_base: Seconds in a unit of the frames' times.
        damage: After the last frame: why frames are missing behind it, in words; empty if none are.
        undecoded: After the last frame: the times of the frames behind it that could not be decoded.

    Args:
        container: The open file.
        threads: Threads that decode, if one frame has work for several.
        options: For the decoder.

    Raises:
        NoVideo: The file has no stream of video.
    """

    def __init__(
        self, container: av.container.InputContainer, *, threads: int = 1, options: dict[str, str] | None = None
    ) -> None:
        self.stream = best_stream(container)
        self.time_base = self.stream.time_base or Fraction(1, 1000)
        self.damage = ""
        self.undecoded: tuple[int, ...] = ()
        self._container = container
        self._found = 0
        self._promised = PromisedFrames(in_decoding_order=container.format.name == "avi")
        context = self.stream.codec_context
        if context is not None:
            # What PyAV ignores among the options of `av.open`, except while it probes.
            context.options = {**(options or {}), **_one_frame_at_a_time(context.codec.name)}
            # FFmpeg's decoder of VP8 with several threads gives up frames that it decodes with one.
            context.thread_count = 1 if context.codec.name == "vp8" else threads
            context.thread_type = "SLICE"

    @property
    def rate(self) -> Fraction:
        """Frames a second; 0 if that is not known."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(0)

    def frames(self) -> Iterator[ClipFrame]:
        """Every frame in order; to be called once.

        Raises:
            MemoryError: FFmpeg got no memory.
        """
        may_restart = bool(self._container.format.flags & _CLOCK_MAY_RESTART)
        step = max(Fraction(1), 1 / ((self.rate or _FALLBACK_RATE) * self.time_base))
        clock = FrameClock(step, self.time_base, may_restart=may_restart)
        for picture in self._decoded(may_restart):
            stamp = self._promised.stamp_of(picture.pts)
            time = clock.time_of(stamp)
            lost = self._promised.give(clock.restarts, stamp)
            yield ClipFrame(time, picture, tuple(clock.time_of_undecoded(one) for one in lost))
        self.undecoded = tuple(clock.time_of_undecoded(one) for one in self._promised.rest())

    def check_end(self, size: int, read_at: ReadAt) -> str:
        """After the last frame: what is known to be missing of the file, in words; see `damage`.

        Args:
            size: Bytes of the file.
            read_at: Reads from an offset up to so many bytes.
        """
        if not self.damage:
            contents = Contents(self._container.format.name, self.stream.frames, self._found, size, read_at)
            self.damage = what_is_missing(contents)
        return self.damage

    def _decoded(self, may_restart: bool) -> Iterator[av.VideoFrame]:
        """Frames as FFmpeg makes them; sets `damage` if the container is damaged."""
        for packet in self._packets():
            if packet is not None and self._shows(packet):
                self._promised.add(packet.pts, packet.dts, may_restart=may_restart)
            try:
                frames = self.stream.decode(packet)
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                # This packet is damaged; from the next key frame on, frames are right again.
                self._promised.fail(None if packet is None else packet.dts)
                continue
            yield from frames

    def _shows(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet has a frame that is meant to be seen."""
        if not packet.size or packet.is_discard:
            return False
        return self.stream.codec_context.codec.name != "vp8" or bool(bytes(packet)[0] & _SHOW_FRAME)

    def _packets(self) -> Iterator[av.Packet[Any] | None]:
        """Packets of the container. If it is damaged, None follows the last one, to drain the decoder."""
        packets = self._container.demux(self.stream)
        cut = False
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self.damage = f"the container is damaged: {error.strerror}"
                packet = None
            if packet is None:
                break
            if packet.size:
                self._found += 1
                cut = packet.is_corrupt
            yield packet
        if self.damage:
            yield None
        elif cut:
            self.damage = "its last packet is not whole"


def _one_frame_at_a_time(decoder: str) -> dict[str, str]:
    """What keeps a decoder of another library from working on several frames at once."""
    return {"max_frame_delay": "1"} if decoder == "libdav1d" else {}
