"""The client for asyncio programs: `Connection` again, awaited.

It stands on gRPC's synchronous API, not on grpc.aio: there, a message written to a stream that the server has just
ended throws away the results that are not read yet, and the status that says why it ended; an "Internal error from
Core" takes its place. Acknowledgements and uploads meet that moment at the end of every stream.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from grpc_health.v1 import health_pb2

from masklet import _server_info
from masklet._connection import Connection
from masklet._endpoint import DEFAULT_ADDRESS, Endpoint, Pem
from masklet._live_protocol import Delivery
from masklet._pictures import ImageSource
from masklet._protocol import MemoryPolicy
from masklet._results import FrameResult, PromptResult, VideoInfo
from masklet._segmentation import ImageId, Segmentation, segment_request, segmentation_from_wire
from masklet._server_info import ServerInfo
from masklet._tracking import OnError, OnPrompt, Tracking
from masklet._video import VideoSource, open_upload
from masklet.prompts import Prompt
from masklet.v1 import server_info_pb2

if TYPE_CHECKING:
    from masklet._aio_annotation import AsyncAnnotation
    from masklet._aio_live import AsyncLive

_Entered = TypeVar("_Entered", bound="AsyncTracking")
_T = TypeVar("_T")


class AsyncClient:
    """`masklet.Client` for asyncio: the same arguments, results and exceptions.

    Use it with `async with`, or await `close`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        timeout: float | None = 60.0,
        secure: bool | None = None,
    ) -> None:
        endpoint = Endpoint.of(
            address,
            token=token,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
            secure=secure,
        )
        self._connection = Connection(endpoint, timeout)

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
        source = _OnLoop(video, loop) if isinstance(video, AsyncIterable) else None

        def prompted(result: PromptResult) -> None:
            if on_prompt is not None:
                loop.call_soon_threadsafe(on_prompt, result)

        tracking = self._connection.track(
            open_upload(video if source is None else source),
            prompts,
            model=model,
            deterministic=deterministic,
            memory_policy=memory_policy,
            window=window,
            correction_window=correction_window,
            timeout=timeout,
            timings=timings,
            on_prompt=prompted,
            on_error=None if on_error is None else _on_loop(loop, on_error),
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
        from masklet._aio_live import AsyncLive

        loop = asyncio.get_running_loop()
        live = self._connection.live(
            prompts,
            delivery=delivery,
            max_latency=max_latency,
            model=model,
            deterministic=deterministic,
            memory_policy=memory_policy,
            window=window,
            correction_window=correction_window,
            timeout=timeout,
            timings=timings,
            on_prompt=None if on_prompt is None else _on_loop(loop, on_prompt),
            on_error=None if on_error is None else _on_loop(loop, on_error),
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
        from masklet._aio_annotation import AsyncAnnotation

        annotation = self._connection.annotate(
            open_upload(video),
            model=model,
            deterministic=deterministic,
            return_logits=return_logits,
            window=window,
            timeout=timeout,
        )
        return AsyncAnnotation(annotation)

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


class AsyncTracking(AsyncIterator[FrameResult]):
    """A running `AsyncClient.track`: an asynchronous iterator over frames, and a context manager that ends the call."""

    def __init__(self, tracking: Tracking, source: _OnLoop | None) -> None:
        self._tracking = tracking
        self._source = source
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "masklet-track")
        self._ended = False

    @property
    def session_id(self) -> str:
        """The server's name for this session, as in its log; empty until the first result is here."""
        return self._tracking.session_id

    @property
    def model(self) -> str:
        """The model in use; empty until the first result is here."""
        return self._tracking.model

    @property
    def video(self) -> VideoInfo | None:
        """What the video's header says; None until the first result is here."""
        return self._tracking.video

    def add_prompt(self, prompt: Prompt) -> None:
        """Prompt while the video runs, or correct a frame that was tracked; as `Tracking.add_prompt`."""
        self._tracking.add_prompt(prompt)

    def remove_object(self, object_id: int) -> None:
        """Stop following an object from the next frame to be tracked."""
        self._tracking.remove_object(object_id)

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back what was said of an object on a frame, if it was not applied yet."""
        self._tracking.clear_prompts(object_id, frame_index)

    def cancel(self) -> None:
        """End the call; a loop that waits for a frame raises `Cancelled`."""
        self._tracking.cancel()
        if self._source is not None:
            self._source.close()

    async def aclose(self) -> None:
        """End the call and free the server; iteration stops. May be called twice."""
        self._ended = True
        self.cancel()
        self._thread.shutdown(wait=False)

    async def __aenter__(self: _Entered) -> _Entered:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._tracking.cancel()

    def __aiter__(self) -> AsyncTracking:
        return self

    async def __anext__(self) -> FrameResult:
        frame = None
        if not self._ended:
            loop = asyncio.get_running_loop()
            try:
                frame = await loop.run_in_executor(self._thread, next, self._tracking, None)
            finally:
                if frame is None:  # the end, an error, or this task was cancelled
                    await self.aclose()
        if frame is None:
            raise StopAsyncIteration
        return frame


def _on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[_T], None]) -> Callable[[_T], None]:
    """The callback for other threads than the loop's."""

    def call(value: _T) -> None:
        loop.call_soon_threadsafe(callback, value)

    return call


class _OnLoop(Iterator[npt.NDArray[np.uint8]]):
    """An asynchronous iterable as an ordinary one, for the thread that sends it."""

    def __init__(self, items: AsyncIterable[npt.NDArray[np.uint8]], loop: asyncio.AbstractEventLoop) -> None:
        self._items = aiter(items)
        self._loop = loop
        self._pending: concurrent.futures.Future[npt.NDArray[np.uint8] | None] | None = None
        self._closed = False

    def __next__(self) -> npt.NDArray[np.uint8]:
        if self._closed:
            raise StopIteration
        self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        item = self._pending.result()
        if item is None:
            raise StopIteration
        return item

    async def _next(self) -> npt.NDArray[np.uint8] | None:
        return await anext(self._items, None)

    def close(self) -> None:
        """Give up waiting for the next item."""
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()
