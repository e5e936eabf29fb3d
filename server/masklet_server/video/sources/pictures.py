"""Frames that come one by one as pictures."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from masklet.errors import FailedPrecondition, ResourceExhausted
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import DEFAULT_RATE, NANOSECONDS, Picture
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.sandboxed import Arrival, SandboxedSource


class PictureSource(SandboxedSource):
    """A series of pictures, decoded in a process of their own. The time base is one nanosecond.

    Time stamps are passed on as they are, and so may repeat or go back; what counts is the order of arrival.
    """

    def __init__(self, image_size: int, limits: VideoLimits, *, frames_ahead: int = 4, live: bool = False) -> None:
        """See `SandboxedSource`.

        Args:
            image_size: Side S of the frames that come out.
            limits: What the stream may cost; of a live one, only what each picture may.
            frames_ahead: Also bounds the pictures that wait.
            live: Pictures may differ in size.
        """
        super().__init__(image_size, limits.of_live_stream() if live else limits, frames_ahead=frames_ahead)
        self._live = live
        self._arrivals: deque[Arrival] = deque()  # of pictures that were not taken yet
        self._credits = asyncio.Semaphore(frames_ahead)
        self._fed = 0
        self._first_pts = 0

    async def _start(self) -> DecoderProcess:
        return await DecoderProcess.start(
            "live pictures" if self._live else "pictures",
            image_size=self._image_size,
            slots=self._frames_ahead,
            limits=self._limits,
        )

    async def feed(self, picture: Picture) -> None:
        """Take the next picture; waits while `frames_ahead` pictures have not been taken from the other end.

        Dropped once the decoder has had its last word, which `next_frame` gives.

        Raises:
            FailedPrecondition: After `end`.
            ResourceExhausted: More pictures, or a longer time, than the limits allow.
        """
        arrival = self._admit(picture)
        await self._credits.acquire()
        if self._over:
            self._credits.release()
            return
        self._arrivals.append(arrival)
        await self._send_picture(picture, arrival)

    def _admit(self, picture: Picture) -> Arrival:
        """Number a picture, or refuse it; see `feed`."""
        if self._ended:
            raise FailedPrecondition("frame: the video was ended; nothing may follow end_of_video")
        pts = self._pts_of(picture)
        self._check_limits(pts)
        index, self._fed = self._fed, self._fed + 1
        return Arrival(index, pts, time.monotonic(), picture.capture_time_nanoseconds)

    async def _send_picture(self, picture: Picture, arrival: Arrival) -> None:
        await self._decoder.send(
            "picture",
            picture.data,
            format=picture.format,
            height=picture.height,
            width=picture.width,
            size=len(picture.data),
            index=arrival.index,
            pts=arrival.pts,
        )

    def _pts_of(self, picture: Picture) -> int:
        if picture.pts_seconds is None:
            return round(self._fed * NANOSECONDS / DEFAULT_RATE)
        return round(picture.pts_seconds * NANOSECONDS)

    def _check_limits(self, pts: int) -> None:
        if self._fed == 0:
            self._first_pts = pts
        if 0 < self._limits.max_frames <= self._fed:
            raise ResourceExhausted(f"the video has more than max_frames = {self._limits.max_frames} pictures")
        longest = self._limits.max_duration_seconds
        if 0 < longest < (pts - self._first_pts) / NANOSECONDS:
            raise ResourceExhausted(f"the video lasts longer than max_duration_seconds = {longest:g}")

    def _arrival_of(self, index: int, pts: int) -> Arrival:
        return self._arrivals.popleft() if self._arrivals else super()._arrival_of(index, pts)

    def _on_taken(self) -> None:
        self._credits.release()

    def _finished(self) -> None:
        super()._finished()
        self._credits.release()  # wakes a `feed` that waits; it wakes the next
