"""Tracks all objects on one frame, with the prompts that are for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument, MaskletError, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.serving.jobs import FrameOutput, ObjectTask
from masklet_server.session.automatic.tracked_objects import TrackedObject, TrackedObjects
from masklet_server.session.context import SessionContext
from masklet_server.session.jobs import SessionJobs, TrackedFrame
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.replies import Problem, Response, Taken, answering
from masklet_server.session.sending import FoundObject, FrameOutcome


@dataclass(frozen=True)
class _DecodedPrompt:
    """A prompt whose mask is decoded, and when the session has taken it."""

    prompt: Prompt
    taken: Taken | None

    def problem(self, error: MaskletError) -> Response:
        """The answer that it is wrong."""
        return answering(0 if self.taken is None else self.taken.request_id, Problem(error))


@dataclass(frozen=True)
class _Entry:
    """One object's part in a frame."""

    object_id: int
    tracked: TrackedObject
    prompts: tuple[_DecodedPrompt, ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether nothing says where the object is: it is new, and has no valid prompt."""
        return not self.prompts and not self.tracked.conditioning_frames


class FrameTracker:
    """Tracks one session's objects, a frame at a time.

    Args:
        context: The session's.
        objects: The objects. One joins on the frame of its first prompt.
        jobs: Builds jobs for the engine.
    """

    def __init__(self, context: SessionContext, objects: TrackedObjects, jobs: SessionJobs) -> None:
        self._context = context
        self._objects = objects
        self._jobs = jobs

    async def track(
        self, frame: TrackedFrame, prompts: Sequence[GivenPrompt], upcoming: Sequence[npt.NDArray[np.uint8]]
    ) -> FrameOutcome:
        """Track all objects on a frame. A prompt that is wrong is answered with an error, and left out.

        Args:
            frame: The frame.
            prompts: For this frame, in order.
            upcoming: Pictures ``uint8[S, S, 3]`` of the next frames, as far as they are there.

        Raises:
            MaskletError: The engine can't track the frame.
        """
        entries = await self._decode_prompts(self._line_up(prompts), prompts)
        self._objects.window.before_tracking(self._objects.banks)
        outcome = await self._ask_engine(frame, entries, upcoming)
        await self._objects.save_snapshots(frame.index)
        self._objects.window.add(frame, self._objects.banks)
        return outcome

    def _line_up(self, prompts: Sequence[GivenPrompt]) -> list[_Entry]:
        entries = {object_id: self._objects.get_or_add(object_id) for object_id in self._objects}
        for given in prompts:
            tracked = entries[given.object_id] = self._objects.get_or_add(given.object_id)
            tracked.is_prompted_now = True
        return [_Entry(object_id, entries[object_id]) for object_id in sorted(entries)]

    async def _decode_prompts(self, entries: Sequence[_Entry], prompts: Sequence[GivenPrompt]) -> list[_Entry]:
        """Give each entry its prompts, without those whose mask is malformed."""
        decoded: dict[int, list[_DecodedPrompt]] = {}
        for given in prompts:
            prompt = await self._decode(given)
            if prompt is not None:
                decoded.setdefault(given.object_id, []).append(_DecodedPrompt(prompt, given.taken))
        return self._without_unknown([replace(e, prompts=tuple(decoded.get(e.object_id, ()))) for e in entries])

    async def _decode(self, given: GivenPrompt) -> Prompt | None:
        """The prompt, or None if its mask cannot be decoded and the client was told so."""
        try:
            return await given.decode_in(self._context.pool, self._context.options.model.image_size)
        except (InvalidArgument, ResourceExhausted) as error:
            await self._context.send(answering(given.request_id, Problem(error)))
            return None

    def _without_unknown(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Only the objects that can be tracked; the others are removed."""
        for entry in entries:
            if entry.is_unknown and self._objects.has(entry.object_id, entry.tracked):
                self._objects.remove(entry.object_id)
        return [entry for entry in entries if not entry.is_unknown]

    async def _ask_engine(
        self, frame: TrackedFrame, entries: list[_Entry], upcoming: Sequence[npt.NDArray[np.uint8]]
    ) -> FrameOutcome:
        was_refused = False
        while entries:
            tasks = [ObjectTask(one.tracked.bank, tuple(given.prompt for given in one.prompts)) for one in entries]
            try:
                output = await self._jobs.track(frame, tasks, upcoming)
            except InvalidArgument:
                if was_refused:
                    raise
                entries, was_refused = await self._leave_out_refused(frame, entries), True
                continue
            return self._outcome(frame, entries, output)
        return FrameOutcome(frame)

    async def _leave_out_refused(self, frame: TrackedFrame, entries: Sequence[_Entry]) -> list[_Entry]:
        """The engine has refused a frame: leave out the prompts that are to blame, and answer each with its error.

        A failed job changes no memory, but does not say which prompt was wrong. So each prompt is tried alone, on a new
        memory. Prompts that only the engine can refuse, such as a mask of one pixel, are rare.
        """
        accepted = []
        for entry in entries:
            good = [given for given in entry.prompts if await self._is_accepted(frame, given)]
            accepted.append(replace(entry, prompts=tuple(good)))
        return self._without_unknown(accepted)

    async def _is_accepted(self, frame: TrackedFrame, given: _DecodedPrompt) -> bool:
        """Whether the engine accepts the prompt; if not, the client is told why."""
        try:
            await self._jobs.track(frame, [ObjectTask(self._objects.new_bank(), (given.prompt,))])
        except InvalidArgument as error:
            await self._context.send(given.problem(error.within("prompt")))
            return False
        return True

    @staticmethod
    def _outcome(frame: TrackedFrame, entries: Sequence[_Entry], output: FrameOutput) -> FrameOutcome:
        for entry in entries:
            if entry.prompts:
                entry.tracked.conditioning_frames.add(frame.index)
            entry.tracked.is_prompted_now = False
        prompted = [
            FoundObject(entry.object_id, found, taken=given.taken)
            for entry, outputs in zip(entries, output.prompts, strict=True)
            for given, found in zip(entry.prompts, outputs, strict=True)
        ]
        objects = [
            FoundObject(entry.object_id, found, entry.tracked.observe)
            for entry, found in zip(entries, output.objects, strict=True)
        ]
        return FrameOutcome(frame, prompted, objects, [output])
