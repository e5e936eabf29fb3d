"""Builds the engine's jobs for one session, for both modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from masklet.errors import MaskletError
from masklet.prompts import Prompt
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.object_memory import ObjectMemory
from masklet_server.engine.serving.jobs import (
    ApplyPrompt,
    ClearPrompts,
    ConsolidatePrompts,
    EncodeFrame,
    FrameInput,
    FrameOutput,
    ObjectTask,
    StreamContext,
    Track,
    TrackBackward,
    TrackingJob,
)
from masklet_server.engine.serving.recent_features import RecentFeatures
from masklet_server.session.context import SessionContext
from masklet_server.video.frame import Frame

# SAM 2.1 encodes the age of an object's pointers relative to min(frames in the clip, 16). So the length of a shorter
# clip must be known before its first object is tracked. `max_obj_ptrs_in_encoder` in SAM 2's configurations.
POINTER_FRAMES = 16


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame, and its place in the order in which frames are tracked.

    Attributes:
        frame: The decoded frame.
        step: Number of frames taken before it, by which the engine counts. It is the frame's index if none was skipped.
        skipped: Indices of the frames before it that were skipped, up to the frame taken before.
        clip_length: Frames in the clip if fewer than 16, else None.
    """

    frame: Frame
    step: int
    skipped: tuple[int, ...] = ()
    clip_length: int | None = None

    @property
    def index(self) -> int:
        """The frame's index in the video."""
        return self.frame.index

    @property
    def first_index(self) -> int:
        """Index of the first frame whose prompts this frame takes: of the skipped frames before it, or its own."""
        return min(self.skipped, default=self.index)


class SessionJobs:
    """Builds the jobs of one session, and waits for the engine's answers.

    While the engine works, the session does not count as idle.

    Args:
        context: The session's.
    """

    def __init__(self, context: SessionContext) -> None:
        options = context.options
        self._engine = context.engine
        self._idle = context.idle
        self._recent = RecentFeatures(options.encode_ahead)
        self._stream = StreamContext(
            options.session_id,
            options.model.name,
            deterministic=options.config.deterministic,
            return_logits=options.config.return_logits,
            edges=options.edges,
            recent=self._recent,
        )

    def has_features(self, frame_index: int) -> bool:
        """Whether the frame was encoded a short time ago, so that it need not be encoded again."""
        return frame_index in self._recent

    def clear(self) -> None:
        """Let the features of recent frames go."""
        self._recent = RecentFeatures()
        self._stream = replace(self._stream, recent=None)

    async def track(
        self, frame: TrackedFrame, tasks: Sequence[ObjectTask], upcoming: Sequence[npt.NDArray[np.uint8]] = ()
    ) -> FrameOutput:
        """Apply prompts on a frame, if there are any, and track the objects there.

        Args:
            frame: The frame.
            tasks: One for each object.
            upcoming: Pictures ``uint8[S, S, 3]`` of the next frames, to be encoded before their turn.

        Raises:
            MaskletError: The engine can't do it. Each object's memory is as it was.
        """
        return await self._run(Track(self._stream, _input(frame), tasks, upcoming))

    async def track_backward(
        self, frame: TrackedFrame, histories: Sequence[History], upcoming: Sequence[npt.NDArray[np.uint8]] = ()
    ) -> FrameOutput:
        """As `track`, while time runs backward: `upcoming` are the frames before this one."""
        return await self._run(TrackBackward(self._stream, _input(frame), histories, upcoming))

    async def apply_prompt(self, frame: TrackedFrame, memory: ObjectMemory, prompt: Prompt) -> FrameOutput:
        """Apply a prompt to an object on a frame, without tracking the frame. Raises as `track` does."""
        return await self._run(ApplyPrompt(self._stream, _input(frame), memory, prompt))

    async def clear_prompts(self, frame: TrackedFrame, history: History) -> FrameOutput:
        """Take back an object's prompts on a frame. Raises as `track` does."""
        return await self._run(ClearPrompts(self._stream, _input(frame), history))

    async def consolidate_prompts(self, memories: Sequence[ObjectMemory]) -> FrameOutput:
        """Encode the memories of applied prompts, for objects that no step follows. Raises as `track` does."""
        return await self._run(ConsolidatePrompts(self._stream, memories))

    async def encode(self, frame: TrackedFrame) -> None:
        """Encode a frame that a prompt may follow on. Raises as `track` does."""
        await self._run(EncodeFrame(self._stream, _input(frame)))

    async def _run(self, job: TrackingJob) -> FrameOutput:
        try:
            with self._idle.busy():
                return await self._engine.run(job)
        except MaskletError as error:
            # The traceback refers to memories, and would keep them until a garbage collection.
            raise error.with_traceback(None) from error.__cause__


def _input(frame: TrackedFrame) -> FrameInput:
    """What the engine needs of a frame. It counts steps, and knows nothing of skipped frames."""
    decoded = frame.frame
    return FrameInput(frame.step, decoded.pixels, decoded.height, decoded.width, frame.clip_length)
