"""A live source as an iterator over its packets or frames, which connects again where the stream breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from masklet._media.capture.clock import StreamClock
from masklet._media.capture.connection import Connection, End, Item
from masklet._media.capture.parts import HowToOpen, Opened, Part
from masklet._media.capture.source import LiveSource
from masklet.errors import DataLoss, InvalidArgument, MaskletError, Unavailable

if TYPE_CHECKING:
    from masklet._protocol.live import VideoPacket

_OPEN_SECONDS = 20.0
_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.5, 15.0
# A video of known length is at its end where not more than this is missing.
_TOLERATED_SECONDS = 1.0


@dataclass(frozen=True)
class Captured:
    """One part of a live video.

    Attributes:
        video: A packet as it came, or a decoded frame ``uint8[H, W, 3]`` RGB.
        pts_seconds: Time since the first part, in seconds; it goes on by the clock where a stream was connected again.
            None where the source has no time stamps.
        capture_time_nanoseconds: When it was read, by `time.time_ns`; each part has another one.
        gap_seconds: Seconds without video before this part, because the stream broke and was connected again; else 0.
    """

    video: VideoPacket | npt.NDArray[np.uint8]
    pts_seconds: float | None
    capture_time_nanoseconds: int
    gap_seconds: float = 0.0

    def __repr__(self) -> str:
        video = f"uint8{list(self.video.shape)}" if isinstance(self.video, np.ndarray) else repr(self.video)
        gap = f", gap_seconds={self.gap_seconds:.1f}" if self.gap_seconds else ""
        time_ = "None" if self.pts_seconds is None else f"{self.pts_seconds:.3f}"
        return f"Captured({video}, pts_seconds={time_}{gap})"


@dataclass(frozen=True)
class CaptureEvent:
    """What happens to a live source beside the video that it gives.

    Attributes:
        kind: "silent": nothing has come for some seconds. "broken": the stream has ended or fallen silent, and is
            connected again. "waiting": that has not worked yet. "connected": video comes again.
        message: A sentence for people. It has no password.
        seconds: How long nothing has come.
    """

    kind: Literal["silent", "broken", "waiting", "connected"]
    message: str
    seconds: float


OnCaptureEvent = Callable[[CaptureEvent], None]
"""Called with what happens to a live source, on the thread that takes its parts."""


def capture(
    source: str,
    *,
    reconnect: bool | None = None,
    silence_seconds: float | None = None,
    on_event: OnCaptureEvent | None = None,
    options: Mapping[str, str] | None = None,
) -> Capture:
    """Read a camera, a network stream or a pipe; iterate over the answer to get its parts for `Live.send`.

        with masklet.capture("rtsp://user:password@camera/stream") as camera, client.live(prompt) as live:
            ...  # on a thread: for part in camera: live.send(part.video, pts_seconds=part.pts_seconds)

    Packets of a codec that servers take (H.264, HEVC, VP8, VP9, AV1) are passed on as they are. Video in other codecs
    (such as the MJPEG or raw pictures of webcams) is decoded into frames; so is video whose container asks to turn it.

    Args:
        source: "-" for stdin, the path of a video device or of a named pipe, or a URL: rtsp, rtmp, http (MJPEG, HLS or
            a video file), udp (also multicast), rtp, tcp; srt where PyAV's FFmpeg has it.
        reconnect: Connect again where the stream breaks, until `close`. None: yes for rtsp:// and devices. Videos of a
            known length, which would begin at their start again, are not connected again.
        silence_seconds: After so many seconds without video, a stream counts as broken; a pipe, which may pause, only
            as silent. None: 10; 30 for http.
        on_event: Called when the source is silent, broken, or connected again.
        options: Further options of FFmpeg's formats and protocols, such as {"rtsp_transport": "udp"}.

    Returns:
        The source, connected.

    Raises:
        InvalidArgument: It is the name of a file, or an argument is wrong.
        Unavailable: PyAV is not installed, or the source cannot be opened.
        DataLoss: The source holds no video.
    """
    found = LiveSource.of(source)
    if found is None:
        raise InvalidArgument.of("source", f"{source} is no live video; give - for stdin, a URL, a device or a pipe")
    if silence_seconds is not None and not 0 < silence_seconds < float("inf"):
        raise InvalidArgument.of("silence_seconds", f"is {silence_seconds!r}, must be a number of seconds above 0")
    if reconnect and found.kind == "pipe":
        raise InvalidArgument.of("reconnect", f"{found} cannot be connected again; leave it out")
    return Capture(
        found,
        HowToOpen(
            read_seconds=silence_seconds or found.silence_seconds,
            reconnect=found.reconnects if reconnect is None else reconnect,
            options=dict(options or {}),
        ),
        on_event or _ignore,
    )


class Capture(Iterator[Captured]):
    """A live source that is being read: an iterator over its parts, and a context manager that ends it.

    Raises, from the loop, `DataLoss` where the stream breaks or falls silent and is not to be connected again.

    Attributes:
        can_wait: True where no video is lost when the parts are taken slowly: pipes, and videos of a known length.
    """

    def __init__(self, source: LiveSource, how: HowToOpen, on_event: OnCaptureEvent) -> None:
        self._source = source
        self._how = how
        self._on_event = on_event
        self._clock = StreamClock(paced=source.kind != "pipe")
        self._closed = threading.Event()
        self._connection = Connection(source, how)
        self._opened = self._open()
        self._needs_key = False
        self.can_wait = source.kind == "pipe" or (self._opened.seconds is not None and source.scheme[:4] == "http")

    def __repr__(self) -> str:
        return f"Capture({str(self._source)!r}, {'packets' if self._opened.passed_on else 'frames'})"

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self.close()

    def close(self) -> None:
        """Read no more; a loop over the parts ends. May be called twice, from any thread."""
        self._closed.set()
        self._connection.close()

    def __iter__(self) -> Capture:
        return self

    def __next__(self) -> Captured:
        while not self._closed.is_set():
            item = self._next_item()
            if isinstance(item, Part):
                if not self._needs_key or item.is_key:
                    return self._captured(item)
            elif isinstance(item, Opened):
                self._opened = item
            elif not item.reason and self._may_end():
                break
            else:
                self._break(item)
        self.close()
        raise StopIteration

    def _open(self) -> Opened:
        """Wait for the first connection.

        Raises:
            Unavailable: It cannot be made.
            DataLoss: There is no video.
        """
        if self._source.kind == "pipe":
            return Opened(None, "", passed_on=True)  # its writer may come later
        item = self._first_item()
        if isinstance(item, Opened):
            return item
        self.close()
        raise self._cannot_be_opened(item)

    def _first_item(self) -> Item:
        deadline = time.monotonic() + _OPEN_SECONDS
        while not self._closed.is_set() and time.monotonic() < deadline:
            if (item := self._connection.next(0.1)) is not None:
                return item
        return End("does not answer")

    def _cannot_be_opened(self, item: Item) -> MaskletError:
        reason = item.reason if isinstance(item, End) else ""
        if reason == "holds no video":
            return DataLoss(f"{self._source} holds no video")
        if reason.startswith("cannot be read"):
            return Unavailable(f"{self._source} {reason}")
        return Unavailable(f"{self._source} cannot be opened: {reason or 'it ended at once'}")

    def _next_item(self) -> Item:
        waited = 0.0
        tick = min(0.2, self._how.read_seconds / 4)
        while True:
            if (item := self._connection.next(tick)) is not None:
                return item
            waited += tick
            if self._closed.is_set():
                return End()
            if waited >= self._how.read_seconds:
                waited = 0.0
                if self._source.kind != "pipe":
                    return End(f"has sent nothing for {self._how.read_seconds:g} s")
                self._tell("silent", f"{self._source} has sent nothing for {self._clock.silent_seconds:.0f} s")

    def _may_end(self) -> bool:
        """Whether a source that just ended was at its end."""
        if self._closed.is_set() or self._source.kind == "pipe":
            return True
        length = self._opened.seconds
        if length is not None:
            return self._source.scheme[:4] != "rtsp" or self._clock.video_seconds > length - _TOLERATED_SECONDS
        if self._opened.container == "hls":
            return self._is_complete_now()
        # Cameras have no end; others may.
        return not (self._how.reconnect or self._source.reconnects or self._opened.container == "mpjpeg")

    def _is_complete_now(self) -> bool:
        """Whether a playlist that was open names its end now: then the stream has ended, and not the connection."""
        self._connection = Connection(self._source, self._how)
        item = self._first_item()
        self._connection.close()
        return isinstance(item, Opened) and item.seconds is not None

    def _break(self, end: End) -> None:
        """Connect again, or raise what has happened."""
        self._connection.close()
        if self._clock.is_new and self._source.kind == "pipe":
            raise self._cannot_be_opened(end)
        what = end.reason or "ended, and a camera's stream has no end"
        if not end.reason and self._opened.seconds is not None:
            what = f"ended, and should be {self._opened.seconds:.1f} s long"
        if not self._how.reconnect or self._opened.seconds is not None:  # which would begin at its start again
            self._fail(what)
        begun = time.monotonic()
        self._tell("broken", f"{self._source} broke off ({what}); connecting again")
        delay = _FIRST_DELAY_SECONDS
        while not self._closed.wait(delay):
            delay = min(2 * delay, _MAX_DELAY_SECONDS)
            self._connection = Connection(self._source, self._how)
            item = self._first_item()
            if isinstance(item, Opened):
                self._opened = item
                self._needs_key = True
                self._clock.break_off()
                self._tell("connected", f"{self._source} is connected again after {time.monotonic() - begun:.0f} s")
                return
            self._connection.close()
            reason = item.reason if isinstance(item, End) else ""
            if isinstance(item, End) and item.is_final:
                self._fail(reason)
            self._tell("waiting", f"{self._source} cannot be opened: {reason}; next try in {delay:g} s")

    def _fail(self, what: str) -> NoReturn:
        self.close()
        has_end = self._source.kind == "pipe" or self._opened.seconds is not None
        hint = "" if self._how.reconnect or has_end else "; reconnect would connect it again"
        raise DataLoss(f"{self._source} broke off after {self._clock.video_seconds:.1f} s of video: {what}{hint}")

    def _tell(self, kind: Literal["silent", "broken", "waiting", "connected"], message: str) -> None:
        self._on_event(CaptureEvent(kind, message, self._clock.silent_seconds))

    def _captured(self, part: Part) -> Captured:
        from masklet._protocol.live import VideoPacket  # brings protobuf, without which `masklet --help` is quicker

        again, self._needs_key = self._needs_key, False
        stamp = self._clock.stamp(part.seconds, part.read_nanoseconds)
        if isinstance(part.video, np.ndarray):
            return Captured(part.video, stamp.pts_seconds, stamp.nanoseconds, stamp.gap_seconds)
        data, extradata = part.video, part.extradata
        if again and extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
            data, extradata = extradata + data, b""  # servers take extradata only once
        packet = VideoPacket(data, part.codec, b"" if again else extradata)
        return Captured(packet, stamp.pts_seconds, stamp.nanoseconds, stamp.gap_seconds)


def _ignore(event: CaptureEvent) -> None:
    """Nobody wants to know of events."""
