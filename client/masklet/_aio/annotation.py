"""`Annotation` for asyncio: requests are awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import TypeVar

from masklet._aio.stream import AsyncStream
from masklet._protocol.annotation import Direction
from masklet._protocol.results import FrameResult, PromptResult, VideoInfo
from masklet._sync.annotation import Annotation
from masklet.errors import FailedPrecondition
from masklet.prompts import Prompt

_T = TypeVar("_T")


class AsyncAnnotation(AsyncStream):
    """A running `AsyncClient.annotate`: as `Annotation`, but requests are awaited; tasks that share it take turns.

    A task that is cancelled while it awaits an answer does not take its request back: the request may still take
    effect.
    """

    def __init__(self, annotation: Annotation) -> None:
        super().__init__(annotation)
        self._annotation = annotation

    async def video(self) -> VideoInfo:
        """What is known of the video; as `Annotation.video`."""
        return await self._run(lambda: self._annotation.video)

    async def frame_count(self) -> int:
        """The number of frames in the video; as `Annotation.frame_count`."""
        return await self._run(lambda: self._annotation.frame_count)

    async def prompt(self, prompt: Prompt) -> PromptResult:
        """Prompt an object on any frame, or correct it there; as `Annotation.prompt`."""
        return await self._run(lambda: self._annotation.prompt(prompt))

    async def clear_prompts(self, object_id: int, frame_index: int) -> PromptResult:
        """Take back an object's prompts on a frame; as `Annotation.clear_prompts`."""
        return await self._run(lambda: self._annotation.clear_prompts(object_id, frame_index))

    async def remove_object(self, object_id: int) -> None:
        """Forget an object with its prompts and results; as `Annotation.remove_object`."""
        await self._run(lambda: self._annotation.remove_object(object_id))

    async def reset(self) -> None:
        """Forget all objects, prompts and results; as `Annotation.reset`."""
        await self._run(self._annotation.reset)

    def prepare(self, frame_index: int) -> None:
        """Have the server encode a frame that a person looks at; as `Annotation.prepare`."""
        self._annotation.prepare(frame_index)

    def propagate(
        self,
        start_frame_index: int | None = None,
        max_frames: int | None = None,
        direction: Direction = "forward",
        object_ids: Iterable[int] | None = None,
    ) -> AsyncIterator[FrameResult]:
        """Track all objects over a range of frames; as `Annotation.propagate`, for `async for`."""
        return self._frames(self._annotation.propagate(start_frame_index, max_frames, direction, object_ids))

    def stop(self) -> None:
        """End the running propagation, if there is one; as `Annotation.stop`."""
        self._annotation.stop()

    async def _frames(self, frames: Generator[FrameResult, None, None]) -> AsyncIterator[FrameResult]:
        try:
            while (frame := await self._run(lambda: next(frames, None))) is not None:
                yield frame
        finally:
            if not self._closed:  # on the stream's thread, because it waits for results that are on their way
                await self._run(frames.close)

    async def _run(self, call: Callable[[], _T]) -> _T:
        if self._closed:
            raise FailedPrecondition("this annotation is closed; client.annotate(...) begins another one")
        return await super()._run(call)
