"""The client's video on its way in, whichever kind it is of: a file's bytes, pictures, packets, or a URL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack

from masklet.errors import InvalidArgument
from masklet_server.session import events
from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import ClipInput, Download, LatestInput, PacketInput, PictureInput, Source, Sources
from masklet_server.session.state import State, StateMachine, Step, refusal
from masklet_server.video.sources.packets import Packet
from masklet_server.video.sources.pictures import Picture


class VideoIntake:
    """Feeds one session's source, which it makes when the first of the video is there.

    Attributes:
        source: The source, once it is made.
        pictures: The same, if the video comes as pictures.
        latest: The same, if only the latest of them are wanted.
        packets: The same, if it comes as packets.
        clip: The same, if it is a file.
        is_fetching: The server fetches the video itself, and has begun.
        is_complete: All of the video was fed.

    Args:
        config: Says what the video is like.
        sources: Makes the source.
        image_size: Side of the model's square in pixels.
        max_latency_seconds: How long a frame may wait, where only the latest ones are wanted; else None.
        machine: Says what may come when.
        idle: Told of what is awaited.
        begin: Begins a task that ends with the session.
        on_complete: Called when all of the video was fed.

    Raises:
        InvalidArgument: The video lies where the server does not fetch from.
    """

    def __init__(
        self,
        config: events.Configure,
        sources: Sources,
        image_size: int,
        *,
        max_latency_seconds: float | None = None,
        machine: StateMachine,
        idle: IdleWatch,
        begin: Callable[[Coroutine[None, None, None], str], object],
        on_complete: Callable[[], Awaitable[None]],
    ) -> None:
        self.source: asyncio.Future[Source] = asyncio.get_running_loop().create_future()
        self.pictures: PictureInput | None = None
        self.latest: LatestInput | None = None
        self.packets: PacketInput | None = None
        self.is_fetching = self.is_complete = False
        self.clip: ClipInput | None = None
        self._config = config
        self._sources = sources
        self._image_size = image_size
        self._max_latency = max_latency_seconds
        self._machine = machine
        self._idle = idle
        self._begin = begin
        self._on_complete = on_complete
        self._download = sources.download(config.source_url) if config.source_url else None
        self._kind = "" if self._download is None else "source_url"
        self._held = AsyncExitStack()

    async def close(self) -> None:
        """Free the source: its process, its files, and the memory that it shares."""
        await self._held.aclose()

    async def on_chunk(self, chunk: bytes) -> None:
        """Take the next bytes of a file.

        Raises:
            InvalidArgument: The video was of another kind so far.
            FailedPrecondition: It has ended already.
        """
        self._check_kind("video_chunk")
        self._machine.step(Step.VIDEO)
        if self.clip is None:
            self.clip = self._sources.clip(self._image_size)
            await self._open(self.clip)
        with self._idle.waiting("the decoder to take more video"):
            await self.clip.feed(chunk)

    async def on_picture(self, picture: Picture) -> None:
        """Take the next picture; see `on_chunk`."""
        self._check_kind("frame")
        self._machine.step(Step.VIDEO)
        if self.pictures is None:
            self.pictures = self._new_pictures()
            await self._open(self.pictures)
        with self._idle.waiting("earlier pictures to be tracked, to make room for the next"):
            await self.pictures.feed(picture)

    async def on_packet(self, packet: Packet) -> None:
        """Take the next packet; see `on_chunk`. Packets have no known end, and do not go with options that want one."""
        self._check_kind("packet")
        if self._config.propagation is events.Propagation.ON_REQUEST:
            raise InvalidArgument.of("packet", "excludes PROPAGATION_ON_REQUEST, for which a video must end")
        if self._config.frame_count:
            raise InvalidArgument.of("config.frame_count", "is not for packets, which have no known end; leave it out")
        self._machine.step(Step.VIDEO)
        if self.packets is None:
            self.packets = self._sources.packets(self._image_size)
            await self._open(self.packets)
        with self._idle.waiting("earlier packets to be decoded, to make room for the next"):
            await self.packets.feed(packet)

    async def on_end(self) -> None:
        """The client sends no more video; of one that the server fetches, it has said all beforehand.

        Raises:
            FailedPrecondition: It has said so already.
            DataLoss: There was no video.
        """
        if self._download is None:
            await self._complete()
            return
        if self.is_fetching:
            raise refusal(State.DRAINING, Step.END_OF_VIDEO)
        self.is_fetching = True
        self._begin(self._fetch(self._download), "fetch")

    def _check_kind(self, kind: str) -> None:
        if self._kind not in ("", kind):
            raise InvalidArgument.of(kind, f"excludes {self._kind}, which this stream's video came by so far")
        self._kind = kind

    def _new_pictures(self) -> PictureInput:
        if self._max_latency is None:
            return self._sources.pictures(self._image_size, live=self._config.live)
        self.latest = self._sources.latest_pictures(self._image_size, max_latency_seconds=self._max_latency)
        return self.latest

    async def _open(self, source: Source) -> None:
        await self._held.enter_async_context(source)
        self.source.set_result(source)

    async def _fetch(self, download: Download) -> None:
        self.clip = clip = self._sources.clip(self._image_size)
        self._machine.step(Step.VIDEO)
        await self._open(clip)
        async with contextlib.aclosing(download.chunks()) as chunks:
            async for chunk in chunks:
                self._idle.touch()
                await clip.feed(chunk)
        await self._complete()

    async def _complete(self) -> None:
        self._machine.step(Step.END_OF_VIDEO)
        source = await self.source
        await source.end()
        self.is_complete = True
        await self._on_complete()
