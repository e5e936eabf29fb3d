"""The client for asyncio programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable

import numpy as np
import numpy.typing as npt
from grpc_health.v1 import health_pb2
from typing_extensions import Unpack

from masklet._aio.annotation import AsyncAnnotation
from masklet._aio.bridge import FromLoop, on_this_loop
from masklet._aio.live import AsyncLive
from masklet._aio.tracking import AsyncTracking
from masklet._media.pictures import PictureLike
from masklet._media.uploads import VideoSource, open_upload
from masklet._protocol.options import AnnotateOptions, LiveOptions, SegmentOptions, TrackOptions
from masklet._protocol.segmentation import ImageId, Segmentation, segmentation_from_wire
from masklet._protocol.server_info import ServerInfo, server_info_from_wire
from masklet._sync.annotation import start_annotation
from masklet._sync.live import start_live
from masklet._sync.tracking import start_tracking
from masklet._transport.base_client import BaseClient
from masklet.prompts import Prompt
from masklet.v1 import server_info_pb2


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same arguments, results and exceptions.

    Use it with `async with`, or await `close`.
    """

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every running call and the connection. May be called twice."""
        await asyncio.to_thread(self._channel.close)

    async def aclose(self) -> None:
        """Another name of `close`, for `contextlib.aclosing`."""
        await self.close()

    def track(
        self,
        video: VideoSource | AsyncIterable[npt.NDArray[np.uint8]],
        prompts: Prompt | Iterable[Prompt] = (),
        *more: Prompt | Iterable[Prompt],
        **options: Unpack[TrackOptions],
    ) -> AsyncTracking:
        """Track objects through a video; `async for` over the answer gives a `FrameResult` for every frame, in order.

        It does as `Client.track` does. Cancelling the task ends the call at once. Call it on the event loop, and use
        `async with` where the loop over the frames may be left early:

            async with client.track("clip.mp4", Prompt(point_coords=[[360, 480]])) as tracking:
                async for frame in tracking:
                    print(frame.frame_index, frame.objects[1].area)

        Args:
            video: As for `Client.track`, or an asynchronous iterable of arrays, which is read on this event loop.
            prompts: What to track: a prompt or a list of prompts. There may be none; see `AsyncTracking.prompt`.
            *more: More prompts.
            **options: See `TrackOptions`. Functions among them are called on this event loop.

        Returns:
            The running call.

        Raises:
            MaskletError: As for `Client.track`.
            OSError: The video cannot be read.
        """
        pictures = FromLoop(video, asyncio.get_running_loop()) if isinstance(video, AsyncIterable) else None
        upload = open_upload(video if pictures is None else pictures)
        return AsyncTracking(start_tracking(self._channel, upload, (prompts, *more), on_this_loop(options)), pictures)

    def live(
        self, prompts: Prompt | Iterable[Prompt] = (), *more: Prompt | Iterable[Prompt], **options: Unpack[LiveOptions]
    ) -> AsyncLive:
        """Track objects through video that is still being taken; does as `Client.live` does.

            async with client.live(prompt) as live:
                sending = asyncio.create_task(film(live))  # awaits live.send(...), and calls live.end() at the end
                async for frame in live:
                    print(frame.frame_index, frame.latency_seconds)

        Args:
            prompts: What to track, on frames that are still to be sent; see `AsyncLive.prompt` for later ones.
            *more: More prompts.
            **options: See `LiveOptions`. Functions among them are called on this event loop.

        Returns:
            The running call.

        Raises:
            InvalidArgument: An argument is wrong.
        """
        return AsyncLive(start_live(self._channel, (prompts, *more), on_this_loop(options)))

    def annotate(self, video: VideoSource, **options: Unpack[AnnotateOptions]) -> AsyncAnnotation:
        """Work on a video as with ``SAM2VideoPredictor``; does as `Client.annotate` does, with requests awaited.

            async with client.annotate("clip.mp4") as annotation:
                seen = await annotation.prompt(Prompt(point_coords=[[360, 480]]))
                async for frame in annotation.propagate():
                    print(frame.frame_index, frame.objects[1].area)

        Args:
            video: As for `Client.annotate`.
            **options: See `AnnotateOptions`.

        Returns:
            The running session.

        Raises:
            MaskletError: As for `Client.annotate`.
            OSError: The video cannot be read.
        """
        return AsyncAnnotation(start_annotation(self._channel, open_upload(video), on_this_loop(options)))

    async def segment(
        self, image: PictureLike | Segmentation | ImageId, **options: Unpack[SegmentOptions]
    ) -> Segmentation:
        """Segment one picture; arguments, result and exceptions are those of `Client.segment`."""
        request = await asyncio.to_thread(self._segment_request, image, options)
        return segmentation_from_wire(await self._channel.ask_async(self._channel.stub.SegmentImage, request))

    async def info(self) -> ServerInfo:
        """Ask what the server is and allows; as `Client.info`."""
        request = server_info_pb2.GetServerInfoRequest()
        return server_info_from_wire(await self._channel.ask_async(self._channel.stub.GetServerInfo, request))

    async def health(self) -> bool:
        """Ask whether the server takes requests now; as `Client.health`."""
        answer = await self._channel.ask_async(self._channel.health.Check, health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
