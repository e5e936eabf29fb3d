"""Encodes the frame that a person looks at, while nothing else is asked for."""

from __future__ import annotations

import asyncio
import logging

from masklet.errors import InvalidArgument, ResourceExhausted
from masklet_server.session.context import either
from masklet_server.session.jobs import SessionJobs, TrackedFrame
from masklet_server.video.frame_store import FrameStore

logger = logging.getLogger(__name__)


class FramePreparation:
    """Prepares one frame at a time: the one that was named last. Those named before it, and not begun, are forgotten.

    Args:
        frames: The video's frames, which are stored meanwhile.
        jobs: Builds the engine's jobs.
    """

    def __init__(self, frames: FrameStore, jobs: SessionJobs) -> None:
        self._frames = frames
        self._jobs = jobs
        self._wanted: int | None = None
        self._named = asyncio.Event()

    def name(self, frame_index: int) -> None:
        """Name the frame that is looked at now."""
        self._wanted = frame_index
        self._named.set()

    async def run(self) -> None:
        """Prepare frames until cancelled. A frame that was not finished then is taken up again by the next `run`.

        Raises:
            MaskletError: The engine can't go on. What concerns only this frame is left to the prompt that follows.
        """
        while True:
            while (index := self._wanted) is None:
                self._named.clear()
                await self._named.wait()
            await self._prepare(index)
            if self._wanted == index:
                self._wanted = None

    async def _prepare(self, index: int) -> None:
        self._named.clear()
        if not self._jobs.has_features(index):
            await either(self._frames.reach(index + 1), self._named.wait())
        if self._wanted != index or self._jobs.has_features(index):
            return
        frame = await self._frames.frame(index) if index < len(self._frames) else None
        if frame is None:
            return  # the video ends before it
        try:
            await self._jobs.encode(TrackedFrame(frame, index))
        except (InvalidArgument, ResourceExhausted) as error:
            # A prompt on the frame meets the same error, and is answered with it.
            logger.info("frame %d could not be prepared: %s", index, error)
