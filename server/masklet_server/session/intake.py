"""The client's video on its way in: a file's bytes, pictures or packets that it sends, or a file that is fetched."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import enum
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from masklet.errors import InvalidArgument
from masklet_server.session import events
from masklet_server.session.context import SessionContext, either
from masklet_server.session.ports import (
    ClipSource,
    Download,
    LatestPictureSource,
    PacketSource,
    PictureSource,
    SourceFactory,
)
from masklet_server.session.restoring.state import Restored
from masklet_server.session.state import State, StateMachine, Step, refusal
from masklet_server.video.frame import KeyFrame
from masklet_server.video.model_input import ModelInput
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture


class VideoKind(enum.Enum):
    """How a client's video comes. The value is the request's field that carries it."""

    FILE = "video_chunk"
    """As the bytes of a video file, in chunks."""

    PICTURES = "frame"
    """As pictures, one a frame."""

    PACKETS = "packet"
    """As the packets of a codec, without a container."""

    URL = "source_url"
    """As the address of a video file, which the server fetches."""


@dataclass(frozen=True)
class FileVideo:
    """A video file, sent or fetched, that is being decoded."""

    source: ClipSource


@dataclass(frozen=True)
class PictureVideo:
    """A series of pictures, all of which are decoded."""

    source: PictureSource


@dataclass(frozen=True)
class LatestPictureVideo:
    """A live series of pictures, of which only the latest are decoded."""

    source: LatestPictureSource


@dataclass(frozen=True)
class PacketVideo:
    """A live stream of packets that is being decoded."""

    source: PacketSource


Video: TypeAlias = FileVideo | PictureVideo | LatestPictureVideo | PacketVideo

_V = TypeVar("_V", FileVideo, PictureVideo, LatestPictureVideo, PacketVideo)


class VideoIntake:
    """Feeds one session's source. It makes the source when the first piece of the video arrives.

    It waits while the source has no room for pictures or packets, so that a client which sends too fast has to wait.
    But it never waits while results wait for the client: what the client sends then goes to the source's disk.

    Attributes:
        opened: The video, once its source is made and entered. Its class says how the video comes.
        is_fetching: The server fetches the video itself, and has begun.
        is_complete: All of the video was fed to the source.

    Args:
        context: The session's.
        sources: Makes the source.
        machine: The session's state, which says what may arrive when.
        on_complete: Called when all of the video was fed.

    Raises:
        InvalidArgument: The server may not fetch from `config.source_url`.
    """

    def __init__(
        self,
        context: SessionContext,
        sources: SourceFactory,
        machine: StateMachine,
        on_complete: Callable[[], None],
    ) -> None:
        self.opened: asyncio.Future[Video] = asyncio.get_running_loop().create_future()
        self.is_fetching = self.is_complete = False
        self._is_released = False
        self._config = config = context.options.config
        self._options = context.options
        self._restored = context.survival.restored
        self._tasks = context.tasks
        self._idle = context.idle
        self._results_wait = context.credits.results_wait
        self._sources = sources
        self._machine = machine
        self._on_complete = on_complete
        self._download: Download | None = None
        self._kind: VideoKind | None = None
        if config.source_url:
            self._download = sources.download(config.source_url)
            self._kind = VideoKind.URL
        self._resources = AsyncExitStack()

    @property
    def is_live(self) -> bool:
        """Whether the video is known to have no known end, whatever the configuration says."""
        return self._kind is VideoKind.PACKETS

    async def close(self) -> None:
        """Free the source: its process, its files, and the memory that it shares."""
        await self._resources.aclose()

    async def release(self) -> None:
        """No more frames are wanted: free the source as soon as all of the video was fed."""
        self._is_released = True
        if self.is_complete:
            await self.close()

    async def on_chunk(self, chunk: bytes) -> None:
        """Take the next bytes of a file.

        Raises:
            InvalidArgument: The video came in another way so far.
            FailedPrecondition: The video has ended already.
        """
        self._check_kind(VideoKind.FILE)
        self._machine.step(Step.VIDEO)
        video = await self._open(FileVideo, self._new_clip)
        with self._idle.waiting("the decoder to take more video"):
            await video.source.feed(chunk)

    async def on_picture(self, picture: Picture) -> None:
        """Take the next picture; raises as `on_chunk` does."""
        self._check_kind(VideoKind.PICTURES)
        self._machine.step(Step.VIDEO)
        if not self._options.latest:
            video: PictureVideo | LatestPictureVideo = await self._open(PictureVideo, self._new_pictures)
        else:
            video = await self._open(LatestPictureVideo, self._new_latest_pictures)
        if not video.source.has_room_for(picture):
            with self._idle.waiting("earlier pictures to be tracked, to make room for the next"):
                await either(video.source.wait_for_room(picture), self._results_wait.begun())
        await video.source.feed(picture)

    async def on_packet(self, packet: Packet) -> None:
        """Take the next packet; raises as `on_chunk` does, and where the configuration needs a video that ends."""
        self._check_kind(VideoKind.PACKETS)
        if self._config.propagation is events.Propagation.ON_REQUEST:
            raise InvalidArgument.of(
                "packet",
                "cannot be used with PROPAGATION_ON_REQUEST, which needs a video with an end; send a file or pictures",
            )
        if self._config.frame_count:
            raise InvalidArgument.of(
                "config.frame_count", "cannot be used with packets, which have no known end; leave it out"
            )
        self._machine.step(Step.VIDEO)
        if self._restored is not None and not self.opened.done():
            packet = _as_first(packet, self._restored)
        video = await self._open(PacketVideo, self._new_packets)
        if not video.source.has_room_for(packet):
            with self._idle.waiting("earlier packets to be decoded, to make room for the next"):
                await either(video.source.wait_for_room(packet), self._results_wait.begun())
        await video.source.feed(packet)

    async def on_end(self) -> None:
        """The client sends no more video. If the server fetches the video, fetching begins now.

        Raises:
            FailedPrecondition: The client has said so already.
            DataLoss: There was no video.
        """
        if self._download is None:
            await self._complete()
            return
        if self.is_fetching:
            raise refusal(State.DRAINING, Step.END_OF_VIDEO)
        self.is_fetching = True
        self._tasks.begin(self._fetch(self._download), "fetch")

    def _check_kind(self, kind: VideoKind) -> None:
        if self._kind not in (None, kind):
            assert self._kind is not None
            raise InvalidArgument.of(
                kind.value, f"cannot follow {self._kind.value}: a stream takes its video in one way only"
            )
        self._kind = kind

    async def _open(self, kind: type[_V], make: Callable[[], _V]) -> _V:
        """The session's video, which is made and entered if this is its first piece."""
        if not self.opened.done():
            new = make()
            await self._resources.enter_async_context(new.source)
            self.opened.set_result(new)
        video = self.opened.result()
        assert isinstance(video, kind), "_check_kind lets one kind through"
        return video

    @property
    def _model_input(self) -> ModelInput:
        model = self._options.model
        return ModelInput(model.image_size, model.scaling)

    def _new_clip(self) -> FileVideo:
        return FileVideo(self._sources.clip(self._model_input))

    def _new_pictures(self) -> PictureVideo:
        video = PictureVideo(self._sources.pictures(self._model_input, live=self._config.live))
        if self._restored is not None:
            video.source.begin_at(self._restored.state.video.first_index)
        return video

    def _new_latest_pictures(self) -> LatestPictureVideo:
        options = self._options
        video = LatestPictureVideo(
            self._sources.latest_pictures(self._model_input, max_latency_seconds=options.max_latency_seconds)
        )
        if self._restored is not None:
            video.source.begin_at(self._restored.first_index)
        return video

    def _new_packets(self) -> PacketVideo:
        video = PacketVideo(self._sources.packets(self._model_input, latest=self._options.latest))
        if self._restored is not None:
            state = self._restored.state.video
            video.source.begin_at(KeyFrame(state.first_index, state.count))
        return video

    async def _fetch(self, download: Download) -> None:
        self._machine.step(Step.VIDEO)
        video = await self._open(FileVideo, self._new_clip)
        async with contextlib.aclosing(download.chunks()) as chunks:
            async for chunk in chunks:
                self._idle.touch()
                await video.source.feed(chunk)
        await self._complete()

    async def _complete(self) -> None:
        self._machine.step(Step.END_OF_VIDEO)
        video = await self.opened
        await video.source.end()
        self.is_complete = True
        self._on_complete()
        if self._is_released:
            await self.close()


def _as_first(packet: Packet, restored: Restored) -> Packet:
    """The packet with which a restored session begins, with what only the stream's first packet had."""
    state = restored.state.video
    extradata = packet.extradata or base64.b64decode(state.extradata)
    return replace(packet, codec=packet.codec or state.codec, extradata=extradata)
