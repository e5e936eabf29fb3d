"""The client for asyncio programs: `Connection` again, awaited.

It stands on gRPC's synchronous API, not on grpc.aio: there, a message written to a stream that the server has just
ended throws away the results that are not read yet, and the status that says why it ended; an "Internal error from
Core" takes its place. Acknowledgements and uploads meet that moment at the end of every stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable

import numpy as np
import numpy.typing as npt
from grpc_health.v1 import health_pb2

from masklet import _server_info
from masklet._aio_annotation import AsyncAnnotation
from masklet._aio_live import AsyncLive
from masklet._aio_tracking import AsyncTracking, OnLoop, on_loop
from masklet._base_client import BaseClient
from masklet._live_protocol import Delivery
from masklet._options import CallOptions, MemoryPolicy
from masklet._pictures import ImageSource
from masklet._segmentation import ImageId, Segmentation, segment_request, segmentation_from_wire
from masklet._server_info import ServerInfo
from masklet._tracking import OnError, OnPrompt
from masklet._video import VideoSource, open_upload
from masklet.prompts import Prompt
from masklet.v1 import server_info_pb2


class AsyncClient(BaseClient):
    """`masklet.Client` for asyncio: the same arguments, results and exceptions.

    Use it with `async with`, or await `close`.
    """

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every running call and the connection; may be called twice."""
        self._connection.close()

    def track(
        self,
        video: VideoSource | AsyncIterable[npt.NDArray[np.uint8]],
        prompts: Prompt | Iterable[Prompt],
        *,
        model: str = "",
        deterministic: bool = False,
        memory_policy: MemoryPolicy = "sam2",
        window: int = 0,
        correction_window: int = 0,
        timeout: float | None = None,
        timings: bool = False,
        on_prompt: OnPrompt | None = None,
        on_error: OnError | None = None,
    ) -> AsyncTracking:
        """Follow objects through a video; `async for` over the answer gives a `FrameResult` for every frame, in order.

        As `Client.track`; the video may also be an asynchronous iterable of arrays, which is drawn from on this event
        loop. Cancelling the task ends the call at once. Call it on the event loop, and use `async with` where the loop
        over the frames may be left early:

            async with client.track("clip.mp4", Prompt(point_coords=[[360, 480]])) as tracking:
                async for frame in tracking:
                    print(frame.frame_index, frame.objects[1].area)
        """
        loop = asyncio.get_running_loop()
        source = OnLoop(video, loop) if isinstance(video, AsyncIterable) else None
        options = CallOptions(
            model=model,
            deterministic=deterministic,
            memory_policy=memory_policy,
            window=window,
            correction_window=correction_window,
            timeout=timeout,
            timings=timings,
        )
        tracking = self._connection.track(
            open_upload(video if source is None else source),
            prompts,
            options,
            on_prompt=on_loop(loop, on_prompt),
            on_error=on_loop(loop, on_error),
        )
        return AsyncTracking(tracking, source)

    def live(
        self,
        prompts: Prompt | Iterable[Prompt] = (),
        *,
        delivery: Delivery = "latest",
        max_latency: float = 0.0,
        model: str = "",
        deterministic: bool = False,
        memory_policy: MemoryPolicy = "sam2",
        window: int = 0,
        correction_window: int = 0,
        timeout: float | None = None,
        timings: bool = False,
        on_prompt: OnPrompt | None = None,
        on_error: OnError | None = None,
    ) -> AsyncLive:
        """Follow objects through video that is not there yet; as `Client.live`, with callbacks on this event loop.

        async with client.live(prompt) as live:
            sending = asyncio.create_task(film(live))  # awaits live.send(...) and at last calls live.end()
            async for frame in live:
                print(frame.frame_index, frame.latency_seconds)
        """
        loop = asyncio.get_running_loop()
        options = CallOptions(
            model=model,
            deterministic=deterministic,
            memory_policy=memory_policy,
            window=window,
            correction_window=correction_window,
            timeout=timeout,
            timings=timings,
        )
        live = self._connection.live(
            prompts,
            options,
            delivery=delivery,
            max_latency=max_latency,
            on_prompt=on_loop(loop, on_prompt),
            on_error=on_loop(loop, on_error),
        )
        return AsyncLive(live)

    def annotate(
        self,
        video: VideoSource,
        *,
        model: str = "",
        deterministic: bool = False,
        return_logits: bool = False,
        window: int = 0,
        timeout: float | None = None,
    ) -> AsyncAnnotation:
        """Work on a video as ``SAM2VideoPredictor`` does; as `Client.annotate`, with requests awaited.

        async with client.annotate("clip.mp4") as annotation:
            seen = await annotation.prompt(Prompt(point_coords=[[360, 480]]))
            async for frame in annotation.propagate():
                print(frame.frame_index, frame.objects[1].area)
        """
        options = CallOptions(model=model, deterministic=deterministic, window=window, timeout=timeout)
        return AsyncAnnotation(self._connection.annotate(open_upload(video), options, return_logits=return_logits))

    async def segment(
        self,
        image: ImageSource | Segmentation | ImageId,
        *,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool | None = None,
        model: str = "",
    ) -> Segmentation:
        """Segment one picture; as `Client.segment`."""
        request = await asyncio.to_thread(
            segment_request,
            image,
            point_coords=point_coords,
            point_labels=point_labels,
            box=box,
            mask_input=mask_input,
            mask=mask,
            multimask_output=multimask_output,
            return_logits=return_logits,
            model=model,
        )
        return segmentation_from_wire(await self._connection.ask_async(self._connection.stub.SegmentImage, request))

    async def info(self) -> ServerInfo:
        """The server's models, device, versions and limits; as `Client.info`."""
        request = server_info_pb2.GetServerInfoRequest()
        return _server_info.from_wire(await self._connection.ask_async(self._connection.stub.GetServerInfo, request))

    async def health(self) -> bool:
        """Whether the server takes requests now; as `Client.health`."""
        request = health_pb2.HealthCheckRequest()
        answer = await self._connection.ask_async(self._connection.health.Check, request)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
