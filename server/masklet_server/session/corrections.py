"""Change of mind: objects are corrected on frames that were tracked, and tracked again from there to the present.

While something is corrected, new frames wait or, where the latest ones are wanted, are skipped. A *sweep* goes through
the kept frames from the earliest one with a correction to the last one. On each it tracks the objects that joined it
before, then applies the frame's corrections, whose objects join. Of one object, corrections are applied in the order in
which they came: one for a frame that the sweep has passed, and all that came after it, wait for the next sweep. The
masks are those of a propagation of its own after each correction: tracking a frame reads of later ones their
conditioning memories alone, which corrections do not touch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from masklet.errors import InvalidArgument, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.bank import MemoryBank
from masklet_server.engine.jobs import FrameOutput, ObjectOutput, ObjectTask
from masklet_server.session.followed import Followed, Found, Outcome, check_prompted_frames
from masklet_server.session.kept import KeptFrame, KeptFrames
from masklet_server.session.prompts import GivenPrompt, PromptBook
from masklet_server.session.replies import Problem, Send

# Tracks a kept frame, or with False only prompts it.
Ask = Callable[[KeptFrame, Sequence[ObjectTask], bool], Awaitable[FrameOutput]]
# The prompt with its mask, or None where that is broken, which is then told already.
Decode = Callable[[GivenPrompt], Awaitable[Prompt | None]]


class Corrections:
    """Corrects one session's objects, a frame at a time.

    Args:
        objects: The session's, by id; a correction for an id that is not among them begins a new one.
        book: Where corrections wait.
        kept: The frames that can be corrected.
        ask: The engine.
        decode: Reads masks.
        new_bank: Makes a memory.
        send: Takes what is wrong with a correction.
    """

    def __init__(
        self,
        objects: dict[int, Followed],
        book: PromptBook,
        kept: KeptFrames,
        *,
        ask: Ask,
        decode: Decode,
        new_bank: Callable[[], MemoryBank],
        send: Send,
    ) -> None:
        self._objects = objects
        self._book = book
        self._kept = kept
        self._ask = ask
        self._decode = decode
        self._new_bank = new_bank
        self._send = send
        self._answers: list[FrameOutput] = []
        self._swept: dict[int, Followed] = {}
        self._last: KeptFrame | None = None

    @property
    def are_due(self) -> bool:
        """Whether there is something to correct or to track again."""
        return bool(self._book.late_frames()) or bool(self._still_swept())

    async def step(self) -> Outcome | None:
        """Correct or track again the next frame; None where nothing came of it."""
        await self._refuse_old()
        frame = self._next_frame()
        if frame is None:
            return None
        corrections = [(given, self._followed(given)) for given in self._book.take_late(frame.first_index, frame.index)]
        self._answers = []
        found = await self._track_again(frame)
        prompted = await self._correct(frame, corrections)
        found.update(prompted)
        self._last = frame
        if self._kept.after(frame) is None:
            self.clear()
        if not found:
            return None
        frame.revision += 1
        objects = sorted(found.items(), key=lambda item: item[0])
        return Outcome(frame.taken, prompted, objects, answers=self._answers, revision=frame.revision)

    def clear(self) -> None:
        """Let go of all memories and frames."""
        self._swept = {}
        self._last = None

    def _still_swept(self) -> dict[int, Followed]:
        return {i: followed for i, followed in self._swept.items() if self._objects.get(i) is followed}

    async def _refuse_old(self) -> None:
        """Answer corrections whose frames went out of reach after they were taken."""
        reach = [index for index in self._book.late_frames() if self._kept.find(index) is None]
        for given in self._book.take_late(0, max(reach, default=-1)):
            if (refusal := self._kept.refusal(given.frame_index)) is not None:
                await self._send(Problem(refusal))

    def _next_frame(self) -> KeptFrame | None:
        self._swept = self._still_swept()
        if self._swept and self._last is not None:
            return self._kept.after(self._last)
        return self._kept.find(min(self._book.late_frames(), default=-1))

    def _followed(self, given: GivenPrompt) -> Followed:
        if given.object_id not in self._objects:
            self._objects[given.object_id] = Followed(self._new_bank())
        return self._objects[given.object_id]

    async def _track_again(self, frame: KeptFrame) -> dict[int, ObjectOutput]:
        if not self._swept:
            return {}
        ids = sorted(self._swept)
        output = await self._ask_engine(frame, [ObjectTask(self._swept[i].bank) for i in ids], track=True)
        return dict(zip(ids, output.objects, strict=True))

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
            frame.corrected.add(object_id)
        self._swept.update(joining)
        return prompted

    async def _apply(self, frame: KeptFrame, given: GivenPrompt, followed: Followed) -> ObjectOutput | None:
        """What the prompt gives, or None where it was answered with an error."""
        try:
            given.check_size(frame.taken.frame.height, frame.taken.frame.width)
            self._check_conditioning(frame, given, followed)
            prompt = await self._decode(given)
            return None if prompt is None else await self._prompt(frame, followed, prompt)
        except (InvalidArgument, ResourceExhausted) as error:
            await self._send(Problem(error))
            return None

    async def _prompt(self, frame: KeptFrame, followed: Followed, prompt: Prompt) -> ObjectOutput:
        try:
            output = await self._ask_engine(frame, [ObjectTask(followed.bank, (prompt,))], track=False)
        except InvalidArgument as error:
            raise error.within("prompt") from None
        return output.prompts[0][0]

    async def _ask_engine(self, frame: KeptFrame, tasks: Sequence[ObjectTask], *, track: bool) -> FrameOutput:
        output = await self._ask(frame, tasks, track)
        self._answers.append(output)
        return output

    def _check_conditioning(self, frame: KeptFrame, given: GivenPrompt, followed: Followed) -> None:
        """Keep places for the conditioning frames that prompts wait for."""
        if not followed.bank.was_tracked(frame.taken.step):
            frames = followed.prompted_frames | self._book.frames_of(given.object_id) | {frame.index}
            check_prompted_frames(given.object_id, len(frames) + self._book.times_of(given.object_id))
