"""The tracking loop: frames and prompts in, results out, in order, two frames in flight at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.snapshots import Trail
from masklet_server.engine.memory.tensor_file import Shelf
from masklet_server.engine.serving.jobs import FrameJob, FrameOutput, ObjectTask, RecentFeatures
from masklet_server.masks.pool import MaskPool
from masklet_server.session.automatic.correction_window import KeptFrame, KeptFrames
from masklet_server.session.automatic.corrections import Corrections
from masklet_server.session.automatic.frame_reader import FrameFeed, TakenFrame
from masklet_server.session.automatic.redecoded_frames import EarlierFrames
from masklet_server.session.automatic.tracked_objects import Followed, Outcome
from masklet_server.session.credits import Credits
from masklet_server.session.idle import IdleWatch
from masklet_server.session.limits import SessionLimits
from masklet_server.session.options import TrackerOptions
from masklet_server.session.ports import ClipSource, TrackingEngine
from masklet_server.session.prompts import GivenPrompt, PromptBook
from masklet_server.session.replies import FrameResult, ObjectResult, Problem, PromptResult, Send
from masklet_server.session.results import object_result, timings
from masklet_server.session.sending import Sending
from masklet_server.session.visibility import Sighting, Visibility
from masklet_server.video.frame import Frame


@dataclass(frozen=True)
class _Entry:
    """One object's part in a frame."""

    object_id: int
    followed: Followed
    prompts: tuple[Prompt, ...] = ()

    @property
    def is_idle(self) -> bool:
        """New, and nothing says where it is."""
        return not self.prompts and not self.followed.prompted_frames


class Tracker:
    """Tracks one session's objects through its frames.

    While the masks of one frame are encoded and sent, the engine works on the next one; there is never more under way.
    Corrections of frames that were tracked come before new frames.

    Attributes:
        objects: Followed now, by id. An object joins when a frame with its first prompt is taken, and leaves through
            `remove`; frames that are under way keep those they began with.
    """

    def __init__(
        self,
        options: TrackerOptions,
        *,
        engine: TrackingEngine,
        pool: MaskPool,
        book: PromptBook,
        kept: KeptFrames,
        ledger: Credits,
        idle: IdleWatch,
        limits: SessionLimits,
        send: Send,
    ) -> None:
        self.objects: dict[int, Followed] = {}
        self._options = options
        self._engine = engine
        self._pool = pool
        self._book = book
        self._kept = kept
        self._credits = ledger
        self._idle = idle
        self._send = send
        self._size: tuple[int, int] | None = None
        self._encode_ahead = 1 if options.deterministic else engine.models[options.model].encode_ahead
        self._recent = RecentFeatures(self._encode_ahead)
        self._shelf = Shelf(limits.max_history_bytes)
        self._stride = limits.correction_window
        self._corrections = Corrections(
            self.objects, book, kept, engine=self, pool=pool, stride=self._stride, send=send
        )
        self._send_seconds = 0.0

    def remove(self, object_id: int) -> bool:
        """Stop following the object from the next frame on; whether it was followed."""
        return self.objects.pop(object_id, None) is not None

    def was_prompted(self, object_id: int, frame_index: int) -> bool:
        """Whether a prompt for the object was applied on the frame; of corrections, as long as more could be."""
        followed = self.objects.get(object_id)
        return followed is not None and frame_index in followed.prompted_frames | followed.corrected_frames

    def clear(self) -> None:
        """Let go of all memories and frames."""
        self.objects.clear()
        self._corrections.clear()
        self._kept.clear()
        self._recent = RecentFeatures()
        self._shelf = Shelf(0)

    async def run(self, frames: FrameFeed, clip: ClipSource | None = None) -> None:
        """Track every frame to the end of the video and send all results.

        Args:
            frames: All of them.
            clip: Where they come from, if they can be had again.

        Raises:
            MaskletError: Whatever the source or the engine raise.
        """
        if clip is not None and self._kept.window:
            self._kept.earlier = EarlierFrames(clip, self._idle)
        try:
            # A fault further on does not take back what was tracked before it.
            async with Sending() as sending:
                while await self._has_work(frames):
                    await self._take_credit(frames)
                    outcome = await self._work(frames)
                    if outcome is None:
                        self._credits.give_back()
                    else:
                        await sending.next(self._emit(outcome))
        finally:
            await self._corrections.end()

    async def _has_work(self, frames: FrameFeed) -> bool:
        """Wait for a frame or a correction; False where neither will come."""
        while not self._corrections.are_due and not frames.has_next:
            if not frames.at_end:
                with self._idle.waiting("the next frame of the video, or end_of_video"):
                    await self._unless_corrected(frames.ready())
                continue
            self._book.end_times()
            if self._options.waits_for_acks and not self._corrections.are_due:
                with self._idle.waiting("acks of the last results, or corrections"):
                    await self._unless_corrected(self._credits.settled())
            if not self._corrections.are_due:
                return False
        return True

    async def _unless_corrected(self, awaited: Coroutine[Any, Any, object]) -> None:
        """Wait for something, or for a correction, which may well come first."""
        waiting = asyncio.create_task(awaited)
        corrected = asyncio.create_task(self._book.corrected.wait())
        try:
            await asyncio.wait((waiting, corrected), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        finally:
            corrected.cancel()
            waiting.cancel()
            await asyncio.gather(waiting, corrected, return_exceptions=True)
            # What it raised refers to this frame: together they would keep memory banks for the garbage collector.
            del waiting

    async def _take_credit(self, frames: FrameFeed) -> None:
        if self._credits.available:
            await self._credits.take()
            return
        waits = f"an ack, because the window of {self._credits.window} frame results is full"
        if self._options.latest:
            await self._idle.patiently(self._credits.take(), waits)
            return
        drawing = asyncio.create_task(frames.draw())
        try:
            with self._idle.waiting(waits):
                await self._credits.take()
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)
            del drawing

    async def _work(self, frames: FrameFeed) -> Outcome | None:
        """Correct something, if there is anything, or else track the next frame; None where nothing came of it."""
        if self._corrections.are_due:
            return await self._corrections.step()
        return await self._track(frames) if frames.has_next else None

    async def _track(self, frames: FrameFeed) -> Outcome:
        taken = frames.take()
        frame = taken.frame
        # Asked on the first frame even if nothing is to be tracked yet: later, a client that sends pictures only as far
        # ahead as its window reaches would wait for results and never send those that tell.
        with self._idle.waiting("further frames, which tell how long the clip is, or end_of_video"):
            clip_length = await frames.clip_length()
        await self._place_times(frame, frames)
        # From here on, prompts for this frame are too late to come before its tracking.
        await self._fit(frame)
        prompts = self._book.take(frame.index)
        entries = self._line_up(prompts)
        entries = await self._decode_prompts(entries, prompts)
        self._kept.make_room([followed.bank for followed in self.objects.values()])
        upcoming = [frame.pixels for frame in frames.upcoming[: self._encode_ahead - 1]]
        outcome = await self._ask_engine(taken, entries, clip_length, upcoming)
        for followed in self.objects.values():
            is_prompted = frame.index in followed.prompted_frames
            await followed.leave_trail(self._pool, stride=0 if is_prompted else self._stride)
        self._kept.add(taken, clip_length, [followed.bank for followed in self.objects.values()])
        return outcome

    async def _place_times(self, frame: Frame, frames: FrameFeed) -> None:
        """Give the frame the prompts for times that it is nearest to."""
        upcoming = None
        if self._book.waits_for_times:
            with self._idle.waiting("the next frame, which tells whose a prompt for a time between the two is"):
                upcoming = await frames.peek()
        self._book.place(
            frame.index,
            frame.pts_nanoseconds,
            upcoming=None if upcoming is None else upcoming.pts_nanoseconds,
            last=frames.at_end,
        )

    async def _fit(self, frame: Frame) -> None:
        """Hold waiting prompts against the size of the frame, where that is not the size of the one before."""
        size = (frame.height, frame.width)
        if self._size not in (None, size):
            for error in self._book.fit(*size):
                await self._send(Problem(error))
        self._size = size

    def _line_up(self, prompts: Sequence[GivenPrompt]) -> list[_Entry]:
        for given in prompts:
            if given.object_id not in self.objects:
                self.objects[given.object_id] = self.new_followed()
            self.objects[given.object_id].is_prompted_now = True
        return [_Entry(object_id, self.objects[object_id]) for object_id in sorted(self.objects)]

    async def _decode_prompts(self, entries: Sequence[_Entry], prompts: Sequence[GivenPrompt]) -> list[_Entry]:
        """Give each entry its prompts; those whose mask is broken are answered with an error."""
        decoded: dict[int, list[Prompt]] = {}
        for given in prompts:
            prompt = await self.decode(given)
            if prompt is not None:
                decoded.setdefault(given.object_id, []).append(prompt)
        return self._without_idle([replace(e, prompts=tuple(decoded.get(e.object_id, ()))) for e in entries])

    async def decode(self, given: GivenPrompt) -> Prompt | None:
        """See `CorrectionEngine`."""
        if given.mask is None:
            return given.prompt
        try:
            return await self._pool.run(given.decoded)
        except InvalidArgument as error:
            await self._send(Problem(error))
            return None

    def _without_idle(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Only those that can be tracked; the others are not followed any longer."""
        for entry in entries:
            if entry.is_idle and self.objects.get(entry.object_id) is entry.followed:
                del self.objects[entry.object_id]
        return [entry for entry in entries if not entry.is_idle]

    def new_followed(self) -> Followed:
        """A new object."""
        bank = self._new_bank()
        if self._kept.earlier is None:
            return Followed(bank)
        bank.keeps_prompts = True
        return Followed(bank, trail=Trail(self._shelf))

    def load_bank(self, data: bytes) -> MemoryBank:
        """See `CorrectionEngine`."""
        return self._engine.load_bank(self._options.model, data)

    def _new_bank(self) -> MemoryBank:
        return self._engine.new_bank(
            self._options.model, correction_window=self._kept.window, memory_policy=self._options.memory_policy
        )

    async def _ask_engine(
        self,
        taken: TakenFrame,
        entries: list[_Entry],
        clip_length: int | None,
        upcoming: Sequence[npt.NDArray[np.uint8]],
    ) -> Outcome:
        sifted = False
        while entries:
            job = self._job(taken, [ObjectTask(e.followed.bank, e.prompts) for e in entries], clip_length)
            job = replace(job, upcoming=upcoming)
            try:
                with self._idle.busy():
                    output = await self._engine.track(job)
            except InvalidArgument:
                if sifted:
                    raise
                entries, sifted = await self._sift(job, entries), True
                continue
            for entry in entries:
                if entry.prompts:
                    entry.followed.prompted_frames.add(taken.frame.index)
                entry.followed.is_prompted_now = False
            ids = [entry.object_id for entry in entries]
            prompted = [(i, found) for i, outputs in zip(ids, output.prompts, strict=True) for found in outputs]
            objects = list(zip(ids, output.objects, strict=True))
            return Outcome(taken, prompted, objects, [entry.followed.visibility for entry in entries], [output])
        return Outcome(taken)

    async def ask_again(
        self, kept: KeptFrame, tasks: Sequence[ObjectTask], *, track: bool, settle: bool = False
    ) -> FrameOutput:
        """See `CorrectionEngine`."""
        job = self._job(kept.taken, tasks, kept.clip_length)
        with self._idle.busy():
            return await self._engine.track(replace(job, track=track, settle=settle))

    def _job(self, taken: TakenFrame, tasks: Sequence[ObjectTask], clip_length: int | None) -> FrameJob:
        frame = taken.frame
        return FrameJob(
            model=self._options.model,
            stream=self._options.stream,
            frame_index=taken.step,  # memory knows nothing of skipped frames
            pixels=frame.pixels,
            height=frame.height,
            width=frame.width,
            tasks=tasks,
            clip_length=clip_length,
            deterministic=self._options.deterministic,
            recent=self._recent,
            return_logits=self._options.return_logits,
        )

    async def _sift(self, job: FrameJob, entries: Sequence[_Entry]) -> list[_Entry]:
        """The engine refused a frame: leave out the prompts that are to blame, answering each with its error.

        A failed job leaves all memories as they were, but says nothing of which prompt it was; so each is tried alone,
        on a memory of its own. That happens to a prompt such as a mask of one pixel, and rarely.
        """
        sifted = []
        for entry in entries:
            good = []
            for prompt in entry.prompts:
                task = ObjectTask(self._new_bank(), (prompt,))
                try:
                    with self._idle.busy():
                        await self._engine.track(replace(job, tasks=[task]))
                except InvalidArgument as error:
                    await self._send(Problem(error.within("prompt")))
                else:
                    good.append(prompt)
            sifted.append(replace(entry, prompts=tuple(good)))
        return self._without_idle(sifted)

    async def _emit(self, outcome: Outcome) -> None:
        frame = outcome.taken.frame
        start = time.perf_counter()
        with self._idle.busy():
            found = [*outcome.prompted, *outcome.objects]
            results = await asyncio.gather(
                *(object_result(self._pool, self._options.mask_encoding, *one) for one in found)
            )
        mask_seconds = time.perf_counter() - start
        prompted, objects = results[: len(outcome.prompted)], results[len(outcome.prompted) :]
        for result in prompted:
            await self._send(PromptResult(self._credits.number_prompt(), frame.index, result))
        if not outcome.revision:
            objects = [_with_event(one, by, frame) for one, by in zip(objects, outcome.deciding, strict=True)]
        times = timings(frame, outcome.answers, mask=mask_seconds, send=self._send_seconds)
        start = time.perf_counter()
        await self._send(
            FrameResult(
                sequence=self._credits.number_frame(),
                frame_index=frame.index,
                pts=frame.pts,
                time_base=frame.time_base,
                pts_nanoseconds=frame.pts_nanoseconds,
                objects=tuple(objects),
                skipped=() if outcome.revision else outcome.taken.skipped,
                capture_time_nanoseconds=frame.capture_time_nanoseconds,
                latency_seconds=time.monotonic() - frame.arrived_seconds,
                revision=outcome.revision,
                timings=times if self._options.timings else None,
            )
        )
        self._send_seconds = time.perf_counter() - start


def _with_event(result: ObjectResult, visibility: Visibility, frame: Frame) -> ObjectResult:
    """A frame's first result for an object, which decides what has happened to it."""
    sighting = Sighting(result.object_score, result.predicted_iou, result.box, frame.height, frame.width)
    return replace(result, event=visibility.update(sighting))
