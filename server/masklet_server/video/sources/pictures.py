"""Frames of a video that comes as pictures, one a frame."""

from __future__ import annotations

import dataclasses
import time
from collections import deque

from masklet.errors import FailedPrecondition, ResourceExhausted
from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import DecodePicture, Mode, Setup
from masklet_server.video.picture import DEFAULT_RATE, NANOSECONDS, Picture
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.fed_source import FedSource
from masklet_server.video.sources.sandboxed import Arrival


@dataclasses.dataclass(frozen=True, eq=False)
class _FedPicture:
    """A picture as the decoder gets it, without its data, and what is known of its frame."""

    message: DecodePicture
    arrival: Arrival


class PictureSource(FedSource[_FedPicture]):
    """Gives one frame for each picture. The time base is one nanosecond.

    Time stamps are passed on as they are, and so may repeat or go back; the order of arrival is the order of frames.

    Args:
        image_size: Side S of the frames that come out.
        limits: What the stream may cost. For a live one, only what each picture may cost.
        frames_ahead: Frames that are decoded before they are asked for.
        live: Pictures may differ in size, and their number has no limit.
        share: What the client may have of disk and of decoders' memory.
    """

    def __init__(
        self,
        image_size: int,
        limits: VideoLimits,
        *,
        frames_ahead: int = 4,
        live: bool = False,
        share: ClientShare = UNBOUNDED,
    ) -> None:
        limits = limits.of_live_stream() if live else limits
        super().__init__(image_size, limits, frames_ahead=frames_ahead, what="frame", share=share)
        self._live = live
        self._arrivals: deque[Arrival] = deque()  # of pictures at the decoder whose frames were not taken yet
        self._fed = 0
        self._first_index = self._first_pts = 0

    def begin_at(self, index: int) -> None:
        """The first picture that will be fed has this index, because the video began elsewhere."""
        self._fed = self._taken = self._first_index = index

    async def _start(self) -> DecoderProcess:
        mode: Mode = "live pictures" if self._live else "pictures"
        return await DecoderProcess.start(Setup.for_frames(mode, self._image_size, self._frames_ahead, self._limits))

    def has_room_for(self, picture: Picture) -> bool:
        """Whether the picture need not wait on disk. Its frame is then among the `frames_ahead` next ones."""
        return self._over or (not self._backlog and self._has_place)

    async def wait_for_room(self, picture: Picture) -> None:
        """Wait until the picture has room."""
        await self._until(lambda: self.has_room_for(picture))

    async def feed(self, picture: Picture) -> None:
        """Take the next picture. Where there is no room for it, it waits on disk.

        The picture is dropped if the decoder has ended, for which `next_frame` has the error.

        Raises:
            FailedPrecondition: `end` was called before.
            ResourceExhausted: There are more pictures than the limits allow, they span a longer time, or those that
                wait take more than `max_upload_bytes`.
        """
        arrival = self._admit(picture)
        await self._feed(_FedPicture(message_of(picture, arrival, b""), arrival), picture.data)

    @property
    def _has_place(self) -> bool:
        return len(self._arrivals) < self._frames_ahead

    def _fits(self, item: _FedPicture) -> bool:
        return self._has_place

    def _send_item(self, item: _FedPicture, data: bytes) -> None:
        self._arrivals.append(item.arrival)
        self._decoder.write(dataclasses.replace(item.message, data=data))

    def _admit(self, picture: Picture) -> Arrival:
        """Number a picture; raises what `feed` raises."""
        if self._ended:
            raise FailedPrecondition("frame: came after end_of_video; send all pictures before it")
        pts = self._pts_of(picture)
        self._check_limits(pts)
        index, self._fed = self._fed, self._fed + 1
        return Arrival(index, pts, time.monotonic(), picture.capture_time_nanoseconds)

    def _pts_of(self, picture: Picture) -> int:
        if picture.pts_seconds is None:
            return round(self._fed * NANOSECONDS / DEFAULT_RATE)
        return round(picture.pts_seconds * NANOSECONDS)

    def _check_limits(self, pts: int) -> None:
        if self._fed == self._first_index:
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


def message_of(picture: Picture, arrival: Arrival, data: bytes) -> DecodePicture:
    """The picture as the decoder gets it.

    Args:
        picture: The picture.
        arrival: What is known of its frame.
        data: Its data, or empty where they are kept elsewhere.
    """
    return DecodePicture(picture.format, picture.height, picture.width, data, arrival.index, arrival.pts)
