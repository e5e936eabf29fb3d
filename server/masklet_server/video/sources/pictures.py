"""Frames of a video that comes as pictures, one a frame."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from masklet.errors import FailedPrecondition, ResourceExhausted
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import DecodePicture, Mode, Setup
from masklet_server.video.picture import DEFAULT_RATE, NANOSECONDS, Picture
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.sandboxed import Arrival, SandboxedSource


class PictureSource(SandboxedSource):
    """Gives one frame for each picture. The time base is one nanosecond.

    Time stamps are passed on as they are, and so may repeat or go back; the order of arrival is the order of frames.

    Args:
        image_size: Side S of the frames that come out.
        limits: What the stream may cost. For a live one, only what each picture may cost.
        frames_ahead: Frames that are decoded before they are asked for; also bounds the pictures that wait.
        live: Pictures may differ in size, and their number has no limit.
    """

    def __init__(self, image_size: int, limits: VideoLimits, *, frames_ahead: int = 4, live: bool = False) -> None:
        super().__init__(image_size, limits.of_live_stream() if live else limits, frames_ahead=frames_ahead)
        self._live = live
        self._arrivals: deque[Arrival] = deque()  # of pictures whose frames were not taken yet
        self._places = asyncio.Semaphore(frames_ahead)
        self._fed = 0
        self._first_pts = 0

    async def _start(self) -> DecoderProcess:
        mode: Mode = "live pictures" if self._live else "pictures"
        return await DecoderProcess.start(Setup.for_frames(mode, self._image_size, self._frames_ahead, self._limits))

    async def feed(self, picture: Picture) -> None:
        """Take the next picture; wait while the frames of `frames_ahead` pictures have not been taken.

        The picture is dropped if the decoder has ended, for which `next_frame` has the error.

        Raises:
            FailedPrecondition: `end` was called before.
            ResourceExhausted: There are more pictures than the limits allow, or they span a longer time.
        """
        arrival = self._admit(picture)
        await self._places.acquire()
        if self._over:
            self._places.release()
            return
        self._arrivals.append(arrival)
        await self._send_picture(picture, arrival)

    def _admit(self, picture: Picture) -> Arrival:
        """Number a picture; raises what `feed` raises."""
        if self._ended:
            raise FailedPrecondition("frame: came after end_of_video; send all pictures before it")
        pts = self._pts_of(picture)
        self._check_limits(pts)
        index, self._fed = self._fed, self._fed + 1
        return Arrival(index, pts, time.monotonic(), picture.capture_time_nanoseconds)

    async def _send_picture(self, picture: Picture, arrival: Arrival) -> None:
        await self._decoder.send(
            DecodePicture(picture.format, picture.height, picture.width, picture.data, arrival.index, arrival.pts)
        )

    def _pts_of(self, picture: Picture) -> int:
        if picture.pts_seconds is None:
            return round(self._fed * NANOSECONDS / DEFAULT_RATE)
        return round(picture.pts_seconds * NANOSECONDS)

    def _check_limits(self, pts: int) -> None:
        if self._fed == 0:
            self._first_pts = pts
        if 0 < self._limits.max_frames <= self._fed:
            raise ResourceExhausted(
                f"the video has more than max_frames = {self._limits.max_frames} pictures; send it in parts"
            )
        longest = self._limits.max_duration_seconds
        if 0 < longest < (pts - self._first_pts) / NANOSECONDS:
            raise ResourceExhausted(f"the video lasts longer than max_duration_seconds = {longest:g}; send it in parts")

    def _arrival_of(self, index: int, pts: int) -> Arrival:
        return self._arrivals.popleft() if self._arrivals else super()._arrival_of(index, pts)

    def _on_taken(self) -> None:
        self._places.release()

    def _finished(self) -> None:
        super()._finished()
        self._places.release()  # wakes one `feed` that waits, which wakes the next
