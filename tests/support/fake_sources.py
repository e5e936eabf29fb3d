"""Video sources without a decoder, for tests of what reads them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from masklet.errors import DataLoss, InvalidArgument, ResourceExhausted, Unavailable
from masklet_server.video.frame import Frame, KeyFrame
from masklet_server.video.info import VideoInfo
from masklet_server.video.model_input import ModelInput
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture
from masklet_server.video.sources.latest_queue import LatestQueue
from tests.support.fakes import HEIGHT, WIDTH

# A byte of a fake clip that cannot be decoded; every other byte is one frame.
BROKEN = 0xFF
# A byte at which the process that decodes is lost, without any fault of the clip.
LOST = 0xFE


class FakeSource:
    """A source that gives one frame for each byte of a chunk, or for each picture, that it is fed.

    Attributes:
        entered: It was entered, so that a real one's process would run.
        closed: It was left.
        taken: Number of frames that were taken from it.
        fed: Number of frames that it was given.
    """

    def __init__(self, image_size: int, *, start: asyncio.Event | None = None) -> None:
        self.image_size = image_size
        self.entered = self.closed = False
        self.undecoded_at_end: tuple[int, ...] = ()
        self.taken = 0
        self._start = start
        self.fed = 0
        self._taken = asyncio.Event()
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._first: Frame | None = None
        self._info: VideoInfo | None = None

    async def __aenter__(self) -> FakeSource:
        if self._start is not None:
            await self._start.wait()
        self.entered = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.closed = True

    async def put(self, value: int, pts_seconds: float | None = None) -> None:
        pixels = np.full((self.image_size, self.image_size, 3), value, np.uint8)
        pts = self.fed * 40 if pts_seconds is None else round(1000 * pts_seconds)
        await self.put_frame(Frame(self.fed, pts, Fraction(1, 1000), pixels, HEIGHT, WIDTH, time.monotonic()))

    async def put_frame(self, frame: Frame) -> None:
        """Give the source a frame of any kind."""
        self.fed += 1
        await self._frames.put(frame)

    def _begin_at(self, index: int) -> None:
        """The first frame that is fed has this index."""
        self.fed = index

    async def info(self) -> VideoInfo:
        if self._info is None:
            self._first = await self._next()
            if self._first is None:
                raise DataLoss("no frame could be decoded")
            self._info = VideoInfo(HEIGHT, WIDTH, frame_rate=25.0, container="fake", codec="fake")
        return self._info

    async def next_frame(self) -> Frame | None:
        frame, self._first = (self._first, None) if self._first is not None else (await self._next(), None)
        self.taken += frame is not None
        return frame

    async def _next(self) -> Frame | None:
        frame = await self._frames.get()
        self._taken.set()
        if frame is None:
            self._frames.put_nowait(None)
            return None
        return self._whole(frame)

    @staticmethod
    def _whole(frame: Frame) -> Frame:
        if frame.pixels[0, 0, 0] == BROKEN:
            raise DataLoss("a frame is broken")
        if frame.pixels[0, 0, 0] == LOST:
            raise Unavailable("the decoding process was lost", retry_after_seconds=1.0)
        return frame

    async def end(self) -> None:
        await self._frames.put(None)


class FakeClip(FakeSource):
    """Takes a file's bytes, each of which is one frame.

    Attributes:
        redecoded: The frames that each redecoder gave, in the order in which the redecoders were opened.
        open_redecoders: Number of redecoders that are not closed.
        changed: A frame that is not the same when it is decoded again.
    """

    def __init__(self, image_size: int, *, start: asyncio.Event | None = None) -> None:
        super().__init__(image_size, start=start)
        self.redecoded: list[list[int]] = []
        self.open_redecoders = 0
        self.changed: int | None = None
        self._given: list[Frame] = []

    async def feed(self, chunk: bytes) -> None:
        for value in chunk:
            await self.put(value)

    async def next_frame(self) -> Frame | None:
        if (frame := await super().next_frame()) is not None:
            self._given.append(frame)
        return frame

    def redecode(self, frame_index: int) -> FakeRedecoder:
        return FakeRedecoder(self, self._given, frame_index)


class FakeRedecoder:
    """Gives a clip's frames a second time."""

    def __init__(self, clip: FakeClip, given: Sequence[Frame], frame_index: int) -> None:
        self._clip = clip
        self._given = given
        self._next = frame_index
        self._taken: list[int] = []

    async def __aenter__(self) -> FakeRedecoder:
        self._clip.redecoded.append(self._taken)
        self._clip.open_redecoders += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._clip.open_redecoders -= 1

    async def next_frame(self) -> Frame:
        await asyncio.sleep(0)
        if self._next == self._clip.changed:
            raise DataLoss(f"frame {self._next} is not the same")
        frame = self._given[self._next]
        self._taken.append(self._next)
        self._next += 1
        return frame


class FakePictures(FakeSource):
    """Takes pictures, and has room for a few that are not taken.

    Attributes:
        most_waiting: The most pictures that ever waited.
        max_waiting: How many may wait.
    """

    def __init__(self, image_size: int, *, start: asyncio.Event | None = None) -> None:
        super().__init__(image_size, start=start)
        self.most_waiting = 0
        self.max_waiting = 1_000_000

    def begin_at(self, index: int) -> None:
        self._begin_at(index)

    def has_room_for(self, picture: Picture) -> bool:
        return self._frames.qsize() < 4

    async def wait_for_room(self, picture: Picture) -> None:
        while not self.has_room_for(picture):
            self._taken.clear()
            await self._taken.wait()

    async def feed(self, picture: Picture) -> None:
        self.most_waiting = max(self.most_waiting, self._frames.qsize())
        if self._frames.qsize() >= self.max_waiting:
            raise ResourceExhausted(f"frame: {self.max_waiting} pictures wait already")
        await self.put(picture.data[0], picture.pts_seconds)


class FakeLatestPictures(FakePictures):
    """Takes pictures, and gives the latest of them when it is asked for one."""

    def __init__(self, image_size: int, *, max_latency_seconds: float, start: asyncio.Event | None = None) -> None:
        super().__init__(image_size, start=start)
        self.queue: LatestQueue[Frame] = LatestQueue(max_latency_seconds)

    def has_room_for(self, picture: Picture) -> bool:
        return True

    @property
    def has_waiting(self) -> bool:
        self._sort()
        return len(self.queue) > 0

    async def _next(self) -> Frame | None:
        if self.has_waiting:
            return self._whole(self.queue.pop())
        return await super()._next()

    def _sort(self) -> None:
        """Move the frames that were fed into the queue that skips old ones. The end of the video stays where it is."""
        while not self._frames.empty():
            frame = self._frames.get_nowait()
            if frame is None:
                self._frames.put_nowait(None)
                return
            self.queue.push(frame, frame.arrived_seconds, frame.pixels.nbytes)


class FakePackets(FakeSource):
    """Takes packets, each of which is one frame. Every fourth one is a key frame."""

    codec = ("fake", b"extra")

    def __init__(self, image_size: int, *, start: asyncio.Event | None = None) -> None:
        super().__init__(image_size, start=start)
        self.packets: list[Packet] = []
        self._missing = 0

    def begin_at(self, start: KeyFrame) -> None:
        assert start.index % 4 == 0, "decoding can begin with key frames only"
        self._begin_at(start.index)
        self._missing = start.packet - start.index

    async def put_frame(self, frame: Frame) -> None:
        first = frame.index - frame.index % 4
        await super().put_frame(replace(frame, key_frame=KeyFrame(first, first + self._missing)))

    def has_room_for(self, packet: Packet) -> bool:
        return True

    async def wait_for_room(self, packet: Packet) -> None:
        return None

    async def feed(self, packet: Packet) -> None:
        self.packets.append(packet)
        await self.put(packet.data[0])

    async def packets_taken(self) -> int:
        await asyncio.Event().wait()
        return 0


class FakeDownload:
    """A download of as many frames as the path of its URL says."""

    def __init__(self, url: str) -> None:
        number = url.rpartition("/")[2]
        if not number.isdecimal():
            raise InvalidArgument.of("config.source_url", "is not fetched here; end it with a number of frames")
        self._frames = int(number)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for _ in range(self._frames):
            yield b"\0"


class FakeSources:
    """Makes fake sources.

    Attributes:
        made: All of them.
        start: Entering a source waits for it.
    """

    def __init__(self) -> None:
        self.made: list[FakeSource] = []
        self.start: asyncio.Event | None = None

    def clip(self, model: ModelInput) -> FakeClip:
        source = FakeClip(model.size, start=self.start)
        self.made.append(source)
        return source

    def pictures(self, model: ModelInput, *, live: bool = False) -> FakePictures:
        source = FakePictures(model.size, start=self.start)
        self.made.append(source)
        return source

    def latest_pictures(self, model: ModelInput, *, max_latency_seconds: float) -> FakeLatestPictures:
        source = FakeLatestPictures(model.size, max_latency_seconds=max_latency_seconds, start=self.start)
        self.made.append(source)
        return source

    def download(self, url: str) -> FakeDownload:
        return FakeDownload(url)

    def packets(self, model: ModelInput, *, latest: bool) -> FakePackets:
        source = FakePackets(model.size, start=self.start)
        self.made.append(source)
        return source
