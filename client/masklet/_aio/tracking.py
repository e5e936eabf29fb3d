"""`Tracking` for asyncio: results come by `async for`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from masklet._aio.bridge import FromLoop
from masklet._aio.stream import AsyncStream
from masklet._progress import bar
from masklet._protocol.results import FrameResult, VideoInfo
from masklet._sync.tracking import Tracking
from masklet.prompts import Prompt
from masklet.recording import Recording


class AsyncTracking(AsyncStream, AsyncIterator[FrameResult]):
    """A running `AsyncClient.track`: an asynchronous iterator over frames, and a context manager that ends the call."""

    def __init__(self, tracking: Tracking, pictures: FromLoop | None) -> None:
        super().__init__(tracking)
        self._tracking = tracking
        self._pictures = pictures

    def __repr__(self) -> str:
        state = "ended" if self._closed else "running"
        return f"{type(self).__name__}(session_id={self.session_id!r}, model={self.model!r}, {state})"

    async def video(self) -> VideoInfo:
        """What the video's header says; as `Tracking.video`."""
        return await self._run(lambda: self._tracking.video)

    @property
    def video_so_far(self) -> VideoInfo | None:
        """What the video's header says; None while that is not known."""
        return self._tracking.video_so_far

    @property
    def undecoded_pts_seconds(self) -> tuple[float, ...]:
        """Times of the frames so far that could not be decoded; as `Tracking.undecoded_pts_seconds`."""
        return self._tracking.undecoded_pts_seconds

    @property
    def source(self) -> str:
        """The video's path; empty if it has none."""
        return self._tracking.source

    def prompt(self, prompt: Prompt) -> None:
        """Prompt an object while the video runs, or correct it; as `Tracking.prompt`."""
        self._tracking.prompt(prompt)

    def add_prompt(self, prompt: Prompt) -> None:
        """The older name of `prompt`; as `Tracking.add_prompt`."""
        self._tracking.add_prompt(prompt)

    def remove_object(self, object_id: int) -> None:
        """Stop tracking an object from the next frame on; as `Tracking.remove_object`."""
        self._tracking.remove_object(object_id)

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back an object's prompts on a frame, if they were not applied yet; as `Tracking.clear_prompts`."""
        self._tracking.clear_prompts(object_id, frame_index)

    def cancel(self) -> None:
        """End the call. A loop that waits for a frame raises `Cancelled`."""
        super().cancel()
        if self._pictures is not None:
            self._pictures.close()

    async def close(self) -> None:
        """End the call and free the server; iteration stops. May be called twice."""
        self._closed = True
        self.cancel()
        self._thread.shutdown(wait=False)

    def __del__(self) -> None:
        self._tracking.cancel()

    async def recording(self, *, progress: bool | None = None) -> Recording:
        """Take all results to the end of the video, and return them as one object; as `Tracking.recording`."""
        recording = Recording(source=self._tracking.source)
        with bar("tracking", progress) as advance:
            async for frame in self:
                recording.add(frame)
                recording.video = self.video_so_far
                advance(len(recording), recording.video.frame_count if recording.video is not None else 0)
        return recording

    def __aiter__(self) -> AsyncTracking:
        return self

    async def __anext__(self) -> FrameResult:
        frame: FrameResult | None = None
        if not self._closed:
            try:
                frame = await self._run(partial(next, self._tracking, None))  # without self, for `__del__`
            finally:
                if frame is None:  # the end, an error, or this task was cancelled
                    await self.close()
        if frame is None:
            raise StopAsyncIteration
        return frame
