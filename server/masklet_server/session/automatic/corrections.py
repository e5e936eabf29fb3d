"""Change of mind: objects are corrected on frames that were tracked, and tracked again from there to the present.

While something is corrected, new frames wait or, where the latest ones are wanted, are skipped. A *sweep* goes through
the frames from the earliest one with a correction to the last one. On each it tracks the objects that joined it
before, then applies the frame's corrections, whose objects join. Of one object, corrections are applied in the order in
which they came: one for a frame that the sweep has passed, and all that came after it, wait for the next sweep. The
masks are those of a propagation of its own after each correction: tracking a frame reads of later ones their
conditioning memories alone, which corrections do not touch.

A memory bank can be rewound as far as the correction window reaches. For a frame before that, which a spooled clip has,
the sweep begins earlier: the object *returns* on its trail, to the last frame before on which its bank was put away, is
tracked from there without any result to the frame of the correction, as it was the first time, and only then is told
what was said of it on later frames.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from masklet.errors import InvalidArgument, MaskletError, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.snapshots import BankSnapshots
from masklet_server.engine.serving.jobs import (
    ApplyPrompt,
    ConsolidatePrompts,
    FrameInput,
    FrameOutput,
    ObjectOutput,
    ObjectTask,
    StreamContext,
    Track,
    TrackingJob,
)
from masklet_server.masks.pool import MaskPool
from masklet_server.session.automatic.correction_window import KeptFrame, KeptFrames
from masklet_server.session.automatic.tracked_objects import Followed, Found, Outcome, check_prompted_frames
from masklet_server.session.prompts import GivenPrompt, PromptBook
from masklet_server.session.replies import Problem, Send


class CorrectionEngine(Protocol):
    """What corrections need of the tracker."""

    @property
    def stream(self) -> StreamContext:
        """What all jobs of the session have in common."""

    def new_followed(self) -> Followed:
        """A new object."""

    def load_bank(self, data: bytes) -> MemoryBank:
        """A dumped memory; not for the event loop."""

    async def decode(self, given: GivenPrompt) -> Prompt | None:
        """The prompt with its mask, or None where that is broken, which is then told already."""

    async def ask_again(self, job: TrackingJob) -> FrameOutput:
        """Track a frame again, or prompt it, or encode the memories of earlier prompts."""


@dataclass(frozen=True, eq=False)
class _Return:
    """An object on its way back to a correction.

    Attributes:
        followed: It.
        bank: Its memory as it was on the frame that the sweep is on.
        until: The frame of the correction.
    """

    followed: Followed
    bank: MemoryBank
    until: int


class Corrections:
    """Corrects one session's objects, a frame at a time.

    Args:
        objects: The session's, by id; a correction for an id that is not among them begins a new one.
        book: Where corrections wait.
        kept: The frames that can be corrected.
        engine: Does the work.
        pool: For what would hold up the event loop.
        stride: Frames from one state on an object's trail to the next.
        send: Takes what is wrong with a correction.
    """

    def __init__(
        self,
        objects: dict[int, Followed],
        book: PromptBook,
        kept: KeptFrames,
        *,
        engine: CorrectionEngine,
        pool: MaskPool,
        stride: int,
        send: Send,
    ) -> None:
        self._objects = objects
        self._book = book
        self._kept = kept
        self._engine = engine
        self._pool = pool
        self._stride = stride
        self._send = send
        self._answers: list[FrameOutput] = []
        self._swept: dict[int, Followed] = {}
        self._returning: dict[int, _Return] = {}
        self._last: KeptFrame | None = None

    @property
    def are_due(self) -> bool:
        """Whether there is something to correct or to track again, or a sweep to be ended."""
        return bool(self._book.late_frames()) or self._last is not None

    async def step(self) -> Outcome | None:
        """Correct or track again the next frame; None where nothing came of it.

        Raises:
            MaskletError: A frame in the middle of the way can't be decoded again, so that there is no going on.
        """
        while await self._refuse():
            pass
        try:
            frame = await self._next_frame()
        except MaskletError as error:
            if self._swept:
                raise
            await self._give_up(error)
            return None
        if frame is None:
            await self.end()
            return None
        self._answers = []
        await self._begin_returns(frame)
        corrections = [(given, self._followed(given)) for given in self._take(frame)]
        found = await self._track_again(frame)
        prompted = await self._correct(frame, corrections)
        found.update(prompted)
        self._returning = {i: one for i, one in self._returning.items() if one.until > frame.index}
        self._last = frame
        if self._kept.is_last(frame):
            await self.end()
        if not found:
            return None
        objects = sorted(found.items(), key=lambda item: item[0])
        revision = self._kept.sent_again(frame)
        return Outcome(frame.taken, prompted, objects, answers=self._answers, revision=revision)

    def clear(self) -> None:
        """Let go of all memories and frames."""
        self._swept, self._returning = {}, {}
        self._last = None

    async def end(self) -> None:
        """The sweep is over: let go of all that it held."""
        self.clear()
        if self._kept.earlier is not None:
            await self._kept.earlier.close()

    # Which frame comes next

    async def _refuse(self) -> bool:
        """Answer corrections whose frames are out of reach, or went out of it while they waited; whether any did."""
        errors = {one: self._refusal(*one) for one in self._book.late_frames().items()}
        for (object_id, index), error in errors.items():
            if error is not None:
                await self._answer(object_id, index, error)
        return any(errors.values())

    def _refusal(self, object_id: int, frame_index: int) -> MaskletError | None:
        if (refusal := self._kept.refusal(frame_index)) is not None:
            return refusal
        if not self._must_return(object_id, frame_index) or self._objects[object_id].trail is not None:
            return None
        return _lost(object_id, frame_index, self._objects[object_id].lost_trail)

    async def _give_up(self, error: MaskletError) -> None:
        """Earlier frames can't be had: answer the corrections there."""
        for object_id, index in self._book.late_frames().items():
            if self._kept.find(index) is None:
                await self._answer(object_id, index, error)
        await self.end()

    async def _answer(self, object_id: int, frame_index: int, error: MaskletError) -> None:
        """Drop the object's first corrections, which are for that frame."""
        for _ in self._book.take_late(frame_index, frame_index, {object_id}):
            await self._send(Problem(error))

    async def _next_frame(self) -> KeptFrame | None:
        self._swept = {i: one for i, one in self._swept.items() if self._objects.get(i) is one}
        self._returning = {i: one for i, one in self._returning.items() if self._objects.get(i) is one.followed}
        if (self._swept or self._returning) and self._last is not None:
            return await self._kept.after(self._last)
        starts = [self._start(object_id, index) for object_id, index in self._book.late_frames().items()]
        return await self._kept.fetch(min(starts, default=-1))

    def _must_return(self, object_id: int, frame_index: int) -> bool:
        """Whether the object's bank can't be rewound to the frame, and has to be brought back to it."""
        if self._kept.find(frame_index) is not None or self._kept.earlier is None:
            return False
        followed = self._objects.get(object_id)
        return followed is not None and followed.bank.was_tracked(frame_index)

    def _start(self, object_id: int, frame_index: int) -> int:
        """The frame on which the way to a correction begins."""
        if not self._must_return(object_id, frame_index):
            return frame_index
        trail = self._objects[object_id].trail
        assert trail is not None
        return min(trail.before(frame_index) + 1, frame_index)

    # What is done on it

    async def _begin_returns(self, frame: KeptFrame) -> None:
        """Bring back the objects whose way to a correction begins here."""
        for object_id, index in self._book.late_frames().items():
            followed = self._objects.get(object_id)
            if followed is None or followed.trail is None:
                continue
            if self._is_ready(object_id, index) or self._start(object_id, index) != frame.index:
                continue
            bank = await self._pool.run(functools.partial(self._bring_back, followed.trail, index))
            if bank.last_frame == frame.taken.step:
                # It is corrected once more; after the first time tracking has gone on.
                await self._ask(ConsolidatePrompts(self._engine.stream, [bank]))
            self._returning[object_id] = _Return(followed, bank, index)

    def _bring_back(self, trail: BankSnapshots, frame_index: int) -> MemoryBank:
        return self._engine.load_bank(trail.get(trail.before(frame_index)))

    def _take(self, frame: KeptFrame) -> list[GivenPrompt]:
        """The frame's corrections, but for those of objects that only the next sweep can bring back to it."""
        late = self._book.late_frames()
        ready = {object_id for object_id, index in late.items() if self._is_ready(object_id, index)}
        return self._book.take_late(frame.first_index, frame.index, ready)

    def _is_ready(self, object_id: int, frame_index: int) -> bool:
        """Whether the object need not be brought back to the frame, or is on its way."""
        followed = self._objects.get(object_id)
        returning = self._returning.get(object_id)
        is_under_way = self._swept.get(object_id) is followed or (returning and returning.followed is followed)
        return followed is None or bool(is_under_way) or not self._must_return(object_id, frame_index)

    def _followed(self, given: GivenPrompt) -> Followed:
        if given.object_id not in self._objects:
            self._objects[given.object_id] = self._engine.new_followed()
        return self._objects[given.object_id]

    async def _track_again(self, frame: KeptFrame) -> dict[int, ObjectOutput]:
        ids = sorted(self._swept)
        swept = [self._swept[object_id].bank for object_id in ids]
        returning = [one.bank for one in self._returning.values() if one.bank.last_frame != frame.taken.step]
        if not swept and not returning:
            return {}
        for bank in swept:
            bank.correction_window = self._kept.reach(frame)
        tasks = [ObjectTask(bank) for bank in (*swept, *returning)]
        output = await self._ask(Track(self._engine.stream, _frame_input(frame), tasks))
        for followed in self._swept.values():
            await followed.leave_trail(self._pool, stride=self._stride)
        return dict(zip(ids, output.objects, strict=False))

    async def _correct(self, frame: KeptFrame, corrections: Sequence[tuple[GivenPrompt, Followed]]) -> list[Found]:
        """Apply the frame's corrections; their objects are tracked from here on."""
        prompted: list[Found] = []
        joining: dict[int, Followed] = {}
        for given, followed in corrections:
            if self._objects.get(given.object_id) is not followed:
                continue  # removed meanwhile
            output = await self._apply(frame, given, followed)
            if output is not None:
                prompted.append((given.object_id, output))
                joining[given.object_id] = followed
            elif not followed.prompted_frames and given.object_id not in joining:
                self._objects.pop(given.object_id, None)  # new, and nothing says where it is
        for object_id, followed in joining.items():
            if not followed.bank.was_tracked(frame.taken.step):
                followed.prompted_frames.add(frame.index)
            followed.bank.rewind(frame.taken.step)
            in_reach = {index for index in followed.corrected_frames if self._kept.refusal(index) is None}
            followed.corrected_frames = {*in_reach, frame.index}
            await followed.leave_trail(self._pool)
            self._returning.pop(object_id, None)
        self._swept.update(joining)
        return prompted

    async def _apply(self, frame: KeptFrame, given: GivenPrompt, followed: Followed) -> ObjectOutput | None:
        """What the prompt gives, or None where it was answered with an error."""
        try:
            given.check_size(frame.taken.frame.height, frame.taken.frame.width)
            self._check_conditioning(frame, given, followed)
            prompt = await self._engine.decode(given)
            return None if prompt is None else await self._prompt(frame, followed, prompt)
        except (InvalidArgument, ResourceExhausted) as error:
            await self._send(Problem(error))
            return None

    async def _prompt(self, frame: KeptFrame, followed: Followed, prompt: Prompt) -> ObjectOutput:
        bank = followed.bank
        returned = self._returning.get(prompt.object_id)
        if returned is not None and returned.followed is followed:
            bank = returned.bank
            bank.learn_prompts(followed.bank)
        try:
            output = await self._ask(ApplyPrompt(self._engine.stream, _frame_input(frame), bank, prompt))
        except InvalidArgument as error:
            raise error.within("prompt") from None
        followed.bank = bank
        return output.prompts[0][0]

    async def _ask(self, job: TrackingJob) -> FrameOutput:
        output = await self._engine.ask_again(job)
        self._answers.append(output)
        return output

    def _check_conditioning(self, frame: KeptFrame, given: GivenPrompt, followed: Followed) -> None:
        """Keep places for the conditioning frames that prompts wait for."""
        if not followed.bank.was_tracked(frame.taken.step):
            frames = followed.prompted_frames | self._book.frames_of(given.object_id) | {frame.index}
            check_prompted_frames(given.object_id, len(frames) + self._book.times_of(given.object_id))


def _frame_input(kept: KeptFrame) -> FrameInput:
    frame = kept.taken.frame
    return FrameInput(kept.taken.step, frame.pixels, frame.height, frame.width, kept.clip_length)


def _lost(object_id: int, frame_index: int, why: ResourceExhausted | None) -> ResourceExhausted:
    reason = "" if why is None else f": {why.message}"
    return ResourceExhausted(
        f"object {object_id} can no longer be corrected on frame {frame_index}, which lies before the correction window"
        f"{reason}"
    )
