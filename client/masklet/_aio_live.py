"""`Live` for asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools

from masklet._aio_tracking import AsyncTracking
from masklet._live import Live
from masklet._live_protocol import VideoPacket
from masklet._pictures import ImageSource, Layout
from masklet.prompts import Prompt


class AsyncLive(AsyncTracking):
    """A running `AsyncClient.live`: as `Live`, but `send` is awaited, and `async for` gives the results."""

    def __init__(self, live: Live) -> None:
        super().__init__(live, None)
        self._live = live
        # Of its own: many streams that wait would fill the loop's.
        self._sender = concurrent.futures.ThreadPoolExecutor(1, "masklet-live")

    async def send(
        self,
        video: ImageSource | VideoPacket,
        *,
        pts_seconds: float | None = None,
        capture_time_nanoseconds: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Send the next frame or packet; as `Live.send`, whose waiting other tasks do not notice."""
        send = functools.partial(
            self._live.send,
            video,
            pts_seconds=pts_seconds,
            capture_time_nanoseconds=capture_time_nanoseconds,
            layout=layout,
        )
        await asyncio.get_running_loop().run_in_executor(self._sender, send)

    def prompt(self, prompt: Prompt, *, frame_index: int | None = None) -> None:
        """Follow an object, or follow it better, from now on; as `Live.prompt`."""
        self._live.prompt(prompt, frame_index=frame_index)

    def remove(self, object_id: int) -> None:
        """Stop following an object from the next frame to be tracked."""
        self._live.remove(object_id)

    def end(self) -> None:
        """Say that no more video will come; as `Live.end`."""
        self._live.end()

    async def aclose(self) -> None:
        """End the call and free the server; iteration stops. May be called twice."""
        await super().aclose()
        self._sender.shutdown(wait=False)
