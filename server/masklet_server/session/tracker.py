"""The tracking loop: frames and prompts in, results out, in order, two frames in flight at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from masklet.errors import InvalidArgument, MaskletError
from masklet.prompts import Prompt
from masklet_server.engine.bank import MemoryBank
from masklet_server.engine.jobs import FrameJob, FrameOutput, ObjectOutput, ObjectTask
from masklet_server.engine.policies import MemoryPolicy
from masklet_server.masks.encoding import MaskEncoding
from masklet_server.masks.pool import MaskPool
from masklet_server.session.credits import Credits
from masklet_server.session.events import FrameResult, ObjectResult, Problem, PromptResult, Send, Timings
from masklet_server.session.frames import FrameFeed, TakenFrame
from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import TrackingEngine
from masklet_server.session.prompts import GivenPrompt, PromptBook
from masklet_server.session.visibility import Sighting, Visibility
from masklet_server.video.source import Frame


@dataclass
class Followed:
    """An object that is being tracked.

    Attributes:
        bank: Its memory.
        prompted_frames: On how many frames it was prompted; 0 until its first one is tracked.
        is_prompted_now: The frame under way has prompts for it, which `prompted_frames` does not count yet.
        visibility: Whether it is seen, as results go out.
    """

    bank: MemoryBank
    prompted_frames: int = 0
    is_prompted_now: bool = False
    visibility: Visibility = field(default_factory=Visibility)


@dataclass(frozen=True)
class _Entry:
    """One object's part in a frame."""

    object_id: int
    followed: Followed
    prompts: tuple[Prompt, ...] = ()

    @property
    def is_idle(self) -> bool:
        """New, and nothing says where it is."""
        return not self.prompts and self.followed.prompted_frames == 0


@dataclass(frozen=True)
class _Tracked:
    """A frame and what the engine made of it; without entries where it was not asked."""

    taken: TakenFrame
    entries: Sequence[_Entry] = ()
    output: FrameOutput = field(default_factory=lambda: FrameOutput((), ()))


@dataclass(frozen=True)
class TrackerOptions:
    """What holds for all frames of one session.

    Attributes:
        stream: The session's id.
        model: A loaded model.
        mask_encoding: Of the results.
        deterministic: Never batched with other streams.
        latest: Frames go on coming whether or not the client takes results, so that its silence must be noticed by
            itself.
        return_logits: Results carry logits, too.
        timings: Results say where their time went.
        memory_policy: What the objects' memories keep.
    """

    stream: str
    model: str
    mask_encoding: MaskEncoding
    deterministic: bool
    latest: bool = False
    return_logits: bool = False
    timings: bool = False
    memory_policy: MemoryPolicy = MemoryPolicy.SAM2


class Tracker:
    """Tracks one session's objects through its frames.

    While the masks of one frame are encoded and sent, the engine works on the next one; there is never more under way.

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
        ledger: Credits,
        idle: IdleWatch,
        send: Send,
    ) -> None:
        self.objects: dict[int, Followed] = {}
        self._options = options
        self._engine = engine
        self._pool = pool
        self._book = book
        self._credits = ledger
        self._idle = idle
        self._send = send
        self._size: tuple[int, int] | None = None
        self._send_seconds = 0.0

    def remove(self, object_id: int) -> bool:
        """Stop following the object from the next frame on; whether it was followed."""
        return self.objects.pop(object_id, None) is not None

    async def run(self, frames: FrameFeed) -> None:
        """Track every frame to the end of the video and send all results.

        Raises:
            MaskletError: Whatever the source or the engine raise.
        """
        sending: asyncio.Task[None] | None = None
        try:
            while True:
                with self._idle.waiting("the next frame of the video, or end_of_video"):
                    ready = await frames.ready()
                if not ready:
                    break
                tracked = await self._track(frames)
                if sending is not None:
                    await sending
                sending = asyncio.create_task(self._emit(tracked))
            if sending is not None:
                await sending
        except MaskletError:
            if sending is not None:
                await sending  # a fault further on does not take back what was tracked before it
            raise
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _track(self, frames: FrameFeed) -> _Tracked:
        await self._take_credit()
        taken = frames.take()
        frame = taken.frame
        # Asked on the first frame even if nothing is to be tracked yet: later, a client that sends pictures only as far
        # ahead as its window reaches would wait for results and never send those that tell.
        with self._idle.waiting("further frames, which tell how long the clip is, or end_of_video"):
            clip_length = await frames.clip_length()
        # From here on, prompts for this frame are too late.
        await self._fit(frame)
        prompts = self._book.take(frame.index)
        entries = self._line_up(prompts)
        entries = await self._decode_prompts(entries, prompts)
        return await self._ask_engine(taken, entries, clip_length)

    async def _take_credit(self) -> None:
        waits = f"an ack, because the window of {self._credits.window} frame results is full"
        if self._options.latest:
            await self._idle.patiently(self._credits.take(), waits)
        else:
            with self._idle.waiting(waits):
                await self._credits.take()

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
                self.objects[given.object_id] = Followed(self._new_bank())
            self.objects[given.object_id].is_prompted_now = True
        return [_Entry(object_id, self.objects[object_id]) for object_id in sorted(self.objects)]

    def _new_bank(self) -> MemoryBank:
        return self._engine.new_bank(self._options.model, memory_policy=self._options.memory_policy)

    async def _decode_prompts(self, entries: Sequence[_Entry], prompts: Sequence[GivenPrompt]) -> list[_Entry]:
        """Give each entry its prompts; those whose mask is broken are answered with an error."""
        decoded: dict[int, list[Prompt]] = {}
        for given in prompts:
            prompt = await self._decode(given)
            if prompt is not None:
                decoded.setdefault(given.object_id, []).append(prompt)
        return self._without_idle([replace(e, prompts=tuple(decoded.get(e.object_id, ()))) for e in entries])

    async def _decode(self, given: GivenPrompt) -> Prompt | None:
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

    async def _ask_engine(self, taken: TakenFrame, entries: list[_Entry], clip_length: int | None) -> _Tracked:
        sifted = False
        while entries:
            job = self._job(taken, [ObjectTask(e.followed.bank, e.prompts) for e in entries], clip_length)
            try:
                with self._idle.busy():
                    output = await self._engine.track(job)
            except InvalidArgument:
                if sifted:
                    raise
                entries, sifted = await self._sift(job, entries), True
                continue
            for entry in entries:
                entry.followed.prompted_frames += bool(entry.prompts)
                entry.followed.is_prompted_now = False
            return _Tracked(taken, entries, output)
        return _Tracked(taken)

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

    async def _emit(self, tracked: _Tracked) -> None:
        frame = tracked.taken.frame
        start = time.perf_counter()
        with self._idle.busy():
            prompted = [
                (entry.object_id, output)
                for entry, outputs in zip(tracked.entries, tracked.output.prompts, strict=True)
                for output in outputs
            ]
            followed = [(e.object_id, o) for e, o in zip(tracked.entries, tracked.output.objects, strict=True)]
            results = await asyncio.gather(*(self._result(*found) for found in prompted + followed))
        timings = self._timings(tracked, time.perf_counter() - start) if self._options.timings else None
        for result in results[: len(prompted)]:
            await self._send(PromptResult(self._credits.number_prompt(), frame.index, result))
        start = time.perf_counter()
        await self._send(
            FrameResult(
                sequence=self._credits.number_frame(),
                frame_index=frame.index,
                pts=frame.pts,
                time_base=frame.time_base,
                pts_nanoseconds=frame.pts_nanoseconds,
                objects=tuple(
                    _with_event(result, entry.followed.visibility, frame)
                    for result, entry in zip(results[len(prompted) :], tracked.entries, strict=True)
                ),
                skipped=tracked.taken.skipped,
                capture_time_nanoseconds=frame.capture_time_nanoseconds,
                latency_seconds=time.monotonic() - frame.arrived_seconds,
                timings=timings,
            )
        )
        self._send_seconds = time.perf_counter() - start

    def _timings(self, tracked: _Tracked, mask_seconds: float) -> Timings:
        output = tracked.output
        return Timings(
            decode=tracked.taken.frame.decode_seconds,
            queue=output.queue_seconds,
            encode=output.encode_seconds,
            step=output.step_seconds,
            mask=mask_seconds,
            send=self._send_seconds,
        )

    async def _result(self, object_id: int, output: ObjectOutput) -> ObjectResult:
        prepared = await self._pool.prepare(output.mask, self._options.mask_encoding)
        return ObjectResult(
            object_id=object_id,
            mask=prepared.encoded,
            box=prepared.geometry.box,
            area=prepared.geometry.area,
            predicted_iou=output.predicted_iou,
            object_score=output.object_score,
            logits=output.logits,
        )


def _with_event(result: ObjectResult, visibility: Visibility, frame: Frame) -> ObjectResult:
    """A frame's first result for an object, which decides what has happened to it."""
    sighting = Sighting(result.object_score, result.predicted_iou, result.box, frame.height, frame.width)
    return replace(result, event=visibility.update(sighting))
