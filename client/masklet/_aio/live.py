"""`Live` for asyncio: sending is awaited, too."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools

from masklet._aio.tracking import AsyncTracking
from masklet._media.pictures import PictureLike
from masklet._protocol.live import VideoPacket
from masklet._protocol.pictures import Layout
from masklet._sync.live import Live
from masklet.prompts import Prompt


class AsyncLive(AsyncTracking):
    """A running `AsyncClient.live`: as `Live`, but `send` is awaited, and `async for` gives the results."""

    def __init__(self, live: Live) -> None:
        super().__init__(live, None)
        self._live = live
        # A second thread: `send` may wait until a result is taken on the first one.
        self._sending_thread = concurrent.futures.ThreadPoolExecutor(1, "masklet-send")

    async def send(
        self,
        video: PictureLike | VideoPacket,
        *,
        pts_seconds: float | None = None,
        capture_time_nanoseconds: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Send the next frame or packet; as `Live.send`. Other tasks go on while it waits."""
        send = functools.partial(
            self._live.send,
            video,
            pts_seconds=pts_seconds,
            capture_time_nanoseconds=capture_time_nanoseconds,
            layout=layout,
        )
        await asyncio.get_running_loop().run_in_executor(self._sending_thread, send)

    def prompt(self, prompt: Prompt, *, frame_index: int | None = None) -> None:
        """Prompt an object, or correct it; as `Live.prompt`."""
        self._live.prompt(prompt, frame_index=frame_index)

    def keep_alive(self) -> None:
        """Say that the video goes on although none comes at the moment; as `Live.keep_alive`."""
        self._live.keep_alive()

    def remove(self, object_id: int) -> None:
        """The older name of `remove_object`."""
        self.remove_object(object_id)

    def end(self) -> None:
        """Say that no more video will come; as `Live.end`."""
        self._live.end()

    async def close(self) -> None:
        """End the call and free the server; iteration stops. May be called twice."""
        await super().close()
        self._sending_thread.shutdown(wait=False)
