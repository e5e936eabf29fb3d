"""`Annotation` for asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Generator
from typing import TypeVar

from masklet._annotation import Annotation
from masklet._annotation_protocol import Direction
from masklet._results import FrameResult, PromptResult, VideoInfo
from masklet.errors import FailedPrecondition
from masklet.prompts import Prompt

_T = TypeVar("_T")


class AsyncAnnotation:
    """A running `AsyncClient.annotate`: as `Annotation`, but requests are awaited; tasks that share it take turns.

    Cancelling a task that awaits an answer leaves the request to itself: it may still take effect.
    """

    def __init__(self, annotation: Annotation) -> None:
        self._annotation = annotation
        # Of its own: many sessions that wait would fill the loop's.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "masklet-annotate")
        self._closed = False

    @property
    def session_id(self) -> str:
        """The server's name for this session, as in its log; empty until the first answer is here."""
        return self._annotation.session_id

    @property
    def model(self) -> str:
        """The model in use; empty until the first answer is here."""
        return self._annotation.model

    async def video(self) -> VideoInfo:
        """What is known of the video; as `Annotation.video`."""
        return await self._run(lambda: self._annotation.video)

    async def frame_count(self) -> int:
        """Frames of the video; as `Annotation.frame_count`."""
        return await self._run(lambda: self._annotation.frame_count)

    async def prompt(self, prompt: Prompt) -> PromptResult:
        """Say where an object is, or correct it; as `Annotation.prompt`."""
        return await self._run(lambda: self._annotation.prompt(prompt))

    async def clear_prompts(self, object_id: int, frame_index: int) -> PromptResult:
        """Take back what was said of an object on a frame; as `Annotation.clear_prompts`."""
        return await self._run(lambda: self._annotation.clear_prompts(object_id, frame_index))

    async def remove_object(self, object_id: int) -> None:
        """Forget an object; as `Annotation.remove_object`."""
        await self._run(lambda: self._annotation.remove_object(object_id))

    async def reset(self) -> None:
        """Forget all objects, prompts and results; as `Annotation.reset`."""
        await self._run(self._annotation.reset)

    def propagate(
        self,
        start_frame_index: int | None = None,
        max_frames: int | None = None,
        direction: Direction = "forward",
    ) -> AsyncIterator[FrameResult]:
        """Track all objects over a range of frames; as `Annotation.propagate`, for `async for`."""
        frames = self._annotation.propagate(start_frame_index, max_frames, direction)
        return self._frames(frames)

    def stop(self) -> None:
        """End the propagation under way, if there is one; as `Annotation.stop`."""
        self._annotation.stop()

    async def aclose(self) -> None:
        """End the session and free the server; requests that wait raise. May be called twice."""
        self._closed = True
        self._annotation.close()
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> AsyncAnnotation:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _frames(self, frames: Generator[FrameResult, None, None]) -> AsyncIterator[FrameResult]:
        try:
            while (frame := await self._run(lambda: next(frames, None))) is not None:
                yield frame
        finally:
            if not self._closed:  # by a thread of its own: results on their way are waited for
                await self._run(frames.close)

    async def _run(self, call: Callable[[], _T]) -> _T:
        if self._closed:
            raise FailedPrecondition("this annotation is closed; client.annotate(...) begins another one")
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
