"""Corrections: prompts for tracked frames, after which their objects are tracked again up to the last tracked frame.

While something is corrected, new frames wait, or are skipped if only the latest ones are wanted. A *retracking* goes
through the frames, from the earliest one with a correction to the last one. On each frame it first tracks its objects,
then applies the corrections of the frame, and the corrected objects join. Corrections of one object are applied in the
order in which they came. A correction for a frame that the retracking has passed waits for the next retracking, and so
do all later corrections of that object. The masks are the same as if each correction had a retracking of its own: when
a frame is tracked, only the conditioning memories of later frames are read, and corrections do not change those.

A memory bank can be rewound as far as the correction window reaches. For a frame before the window, which only a
spooled clip has, its object *returns*: the bank is loaded from the last snapshot before the frame, and tracked from
there up to the frame, without results, as it was the first time. Only then it learns the prompts of later frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masklet.errors import InvalidArgument, MaskletError, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.serving.jobs import FrameOutput, ObjectOutput, ObjectTask
from masklet_server.session.automatic.tracked_objects import (
    TrackedObject,
    TrackedObjects,
    check_conditioning_frames,
)
from masklet_server.session.automatic.waiting_prompts import WaitingPrompts
from masklet_server.session.context import SessionContext
from masklet_server.session.jobs import SessionJobs, TrackedFrame
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.replies import Problem, answering
from masklet_server.session.sending import FoundObject, FrameOutcome


@dataclass(frozen=True, eq=False)
class _Return:
    """An object on its way to a correction before the window.

    Attributes:
        tracked: The object.
        bank: Its memory as it was on the frame that the retracking has reached.
        until: The frame of the correction.
    """

    tracked: TrackedObject
    bank: MemoryBank
    until: int


class Corrections:
    """Corrects one session's objects, a frame at a time.

    Args:
        context: The session's.
        objects: The objects. A correction for an id that is not among them begins a new one.
        prompts: Where corrections wait.
        jobs: Builds jobs for the engine.
    """

    def __init__(
        self, context: SessionContext, objects: TrackedObjects, prompts: WaitingPrompts, jobs: SessionJobs
    ) -> None:
        self._context = context
        self._objects = objects
        self._window = objects.window
        self._prompts = prompts
        self._jobs = jobs
        self._answers: list[FrameOutput] = []
        self._retracked: dict[int, TrackedObject] = {}
        self._returning: dict[int, _Return] = {}
        self._last: TrackedFrame | None = None

    @property
    def are_due(self) -> bool:
        """Whether there is something to correct or to track again, or a retracking to end."""
        return bool(self._prompts.first_corrections()) or self._last is not None

    @property
    def under_way(self) -> set[int]:
        """Ids of the objects that are tracked again, or return to a correction."""
        return {*self._retracked, *self._returning}

    async def step(self) -> FrameOutcome | None:
        """Correct or track again the next frame; None if there is nothing to send of it.

        Raises:
            MaskletError: A frame can't be decoded again in the middle of a retracking, so the session can't go on.
        """
        while await self._refuse():
            pass
        try:
            frame = await self._next_frame()
        except MaskletError as error:
            if self._retracked:
                raise
            await self._give_up(error)
            return None
        if frame is None:
            await self.end()
            return None
        self._answers = []
        await self._begin_returns(frame)
        corrections = [(given, self._objects.get_or_add(given.object_id)) for given in self._take(frame)]
        found = await self._track_again(frame)
        prompted = await self._correct(frame, corrections)
        found.update({one.object_id: one.output for one in prompted})
        self._returning = {i: one for i, one in self._returning.items() if one.until > frame.index}
        self._last = frame
        if self._window.is_last(frame):
            await self.end()
        if not found:
            return None
        return FrameOutcome(
            frame,
            prompted,
            [FoundObject(object_id, found[object_id]) for object_id in sorted(found)],
            self._answers,
            self._window.count_revision(frame),
        )

    def clear(self) -> None:
        """Let all memories and frames go."""
        self._retracked, self._returning = {}, {}
        self._last = None

    async def end(self) -> None:
        """End the retracking, and let go of everything it used."""
        self.clear()
        await self._window.end_redecoding()

    # Which frame comes next

    async def _refuse(self) -> bool:
        """Answer corrections whose frames can't be corrected, or not any more. Returns whether there were any."""
        errors = {one: self._refusal(*one) for one in self._prompts.first_corrections().items()}
        for (object_id, index), error in errors.items():
            if error is not None:
                await self._answer(object_id, index, error)
        return any(errors.values())

    def _refusal(self, object_id: int, frame_index: int) -> MaskletError | None:
        if (refusal := self._window.refusal(frame_index)) is not None:
            return refusal
        tracked = self._returnee(object_id, frame_index)
        if tracked is None or tracked.snapshots is not None:
            return None
        return _no_snapshots(object_id, frame_index, tracked.snapshots_error)

    async def _give_up(self, error: MaskletError) -> None:
        """Frames before the window can't be decoded again: answer the corrections there."""
        for object_id, index in self._prompts.first_corrections().items():
            if self._window.find(index) is None:
                await self._answer(object_id, index, error)
        await self.end()

    async def _answer(self, object_id: int, frame_index: int, error: MaskletError) -> None:
        """Drop the object's first corrections, which are for that frame."""
        for given in self._prompts.take_corrections(frame_index, frame_index, {object_id}):
            await self._context.send(answering(given.request_id, Problem(error)))

    async def _next_frame(self) -> TrackedFrame | None:
        self._retracked = {i: one for i, one in self._retracked.items() if self._objects.has(i, one)}
        self._returning = {i: one for i, one in self._returning.items() if self._objects.has(i, one.tracked)}
        if (self._retracked or self._returning) and self._last is not None:
            return await self._window.after(self._last)
        starts = [self._start(object_id, index) for object_id, index in self._prompts.first_corrections().items()]
        return await self._window.fetch(min(starts, default=-1))

    def _returnee(self, object_id: int, frame_index: int) -> TrackedObject | None:
        """The object, if its bank can't be rewound to the frame, and must return to it from a snapshot."""
        tracked = self._objects.get(object_id)
        if tracked is None or not self._window.must_redecode(frame_index):
            return None
        return tracked if tracked.bank.was_tracked(frame_index) else None

    def _start(self, object_id: int, frame_index: int) -> int:
        """The frame on which the way to a correction begins."""
        tracked = self._returnee(object_id, frame_index)
        if tracked is None:
            return frame_index
        assert tracked.snapshots is not None
        return min(tracked.snapshots.before(frame_index) + 1, frame_index)

    # What is done on it

    async def _begin_returns(self, frame: TrackedFrame) -> None:
        """Load the snapshots of the objects whose way to a correction begins here."""
        for object_id, index in self._prompts.first_corrections().items():
            tracked = self._objects.get(object_id)
            if tracked is None or tracked.snapshots is None:
                continue
            if self._is_ready(object_id, index) or self._start(object_id, index) != frame.index:
                continue
            bank = await self._objects.load_snapshot(tracked.snapshots, index)
            if bank.last_frame == frame.step:
                # The frame is corrected for a second time. After the first time, tracking has gone on.
                self._answers.append(await self._jobs.consolidate_prompts([bank]))
            self._returning[object_id] = _Return(tracked, bank, index)

    def _take(self, frame: TrackedFrame) -> list[GivenPrompt]:
        """Take the frame's corrections, without those of objects that can return to it only in the next retracking."""
        first = self._prompts.first_corrections()
        ready = {object_id for object_id, index in first.items() if self._is_ready(object_id, index)}
        return self._prompts.take_corrections(frame.first_index, frame.index, ready)

    def _is_ready(self, object_id: int, frame_index: int) -> bool:
        """Whether the object need not return to the frame, or is under way already."""
        tracked = self._objects.get(object_id)
        returning = self._returning.get(object_id)
        is_under_way = self._retracked.get(object_id) is tracked or (returning and returning.tracked is tracked)
        return tracked is None or bool(is_under_way) or self._returnee(object_id, frame_index) is None

    async def _track_again(self, frame: TrackedFrame) -> dict[int, ObjectOutput]:
        """Track the objects of the retracking. Those that return are tracked too, but give no result."""
        ids = sorted(self._retracked)
        retracked = [self._retracked[object_id].bank for object_id in ids]
        returning = [one.bank for one in self._returning.values() if one.bank.last_frame != frame.step]
        if not retracked and not returning:
            return {}
        self._window.before_tracking_again(frame, retracked)
        output = await self._jobs.track(frame, [ObjectTask(bank) for bank in (*retracked, *returning)])
        self._answers.append(output)
        for tracked in self._retracked.values():
            await self._objects.save_snapshot(tracked, is_prompted=False)
        return dict(zip(ids, output.objects, strict=False))

    async def _correct(
        self, frame: TrackedFrame, corrections: Sequence[tuple[GivenPrompt, TrackedObject]]
    ) -> list[FoundObject]:
        """Apply the frame's corrections. Their objects are tracked from here on."""
        prompted: list[FoundObject] = []
        joining: dict[int, TrackedObject] = {}
        for given, tracked in corrections:
            if not self._objects.has(given.object_id, tracked):
                continue  # removed meanwhile
            output = await self._apply(frame, given, tracked)
            if output is not None:
                prompted.append(FoundObject(given.object_id, output, taken=given.taken))
                joining[given.object_id] = tracked
            elif not tracked.conditioning_frames and given.object_id not in joining:
                self._objects.remove(given.object_id)  # it is new, and nothing says where it is
        for object_id, tracked in joining.items():
            await self._join(frame, object_id, tracked)
        return prompted

    async def _join(self, frame: TrackedFrame, object_id: int, tracked: TrackedObject) -> None:
        """A corrected object joins the retracking."""
        if not tracked.bank.was_tracked(frame.step):
            tracked.conditioning_frames.add(frame.index)
        tracked.bank.rewind(frame.step)
        correctable = {index for index in tracked.corrected_frames if self._window.refusal(index) is None}
        tracked.corrected_frames = {*correctable, frame.index}
        await self._objects.save_snapshot(tracked, is_prompted=True)
        self._returning.pop(object_id, None)
        self._retracked[object_id] = tracked

    async def _apply(self, frame: TrackedFrame, given: GivenPrompt, tracked: TrackedObject) -> ObjectOutput | None:
        """What the prompt gives, or None if it was answered with an error."""
        try:
            given.check_size(frame.frame.height, frame.frame.width)
            self._check_conditioning(frame, given, tracked)
            return await self._prompt(
                frame, tracked, await given.decode_in(self._context.pool, self._context.options.model.image_size)
            )
        except (InvalidArgument, ResourceExhausted) as error:
            await self._context.send(answering(given.request_id, Problem(error)))
            return None

    async def _prompt(self, frame: TrackedFrame, tracked: TrackedObject, prompt: Prompt) -> ObjectOutput:
        bank = tracked.bank
        returned = self._returning.get(prompt.object_id)
        if returned is not None and returned.tracked is tracked:
            bank = returned.bank
            bank.learn_prompts(tracked.bank)
        try:
            output = await self._jobs.apply_prompt(frame, bank, prompt)
        except InvalidArgument as error:
            raise error.within("prompt") from None
        self._answers.append(output)
        tracked.bank = bank
        return output.prompts[0][0]

    def _check_conditioning(self, frame: TrackedFrame, given: GivenPrompt, tracked: TrackedObject) -> None:
        """Keep room for the conditioning frames that prompts wait for."""
        if not tracked.bank.was_tracked(frame.step):
            frames = tracked.conditioning_frames | self._prompts.frames_of(given.object_id) | {frame.index}
            check_conditioning_frames(given.object_id, len(frames) + self._prompts.times_of(given.object_id))


def _no_snapshots(object_id: int, frame_index: int, why: ResourceExhausted | None) -> ResourceExhausted:
    reason = "" if why is None else f": {why.message}"
    return ResourceExhausted(
        f"object {object_id} can no longer be corrected on frame {frame_index}, which lies before the correction window"
        f"{reason}"
    )
