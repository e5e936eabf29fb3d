"""Work on request: prompts on any frame and propagations either way, done in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masklet.errors import (
    FailedPrecondition,
    InvalidArgument,
    MaskletError,
    NotFound,
    ResourceExhausted,
)
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.tensor_file import Shelf
from masklet_server.engine.serving.jobs import FrameJob, FrameOutput, ObjectTask, RecentFeatures
from masklet_server.masks.pool import MaskPool
from masklet_server.session import events, replies
from masklet_server.session.automatic.frame_reader import POINTER_FRAMES
from masklet_server.session.credits import Credits
from masklet_server.session.events import Direction
from masklet_server.session.idle import IdleWatch
from masklet_server.session.limits import SessionLimits
from masklet_server.session.on_request.frame_range import frame_range
from masklet_server.session.on_request.request_queue import Asked, RequestQueue
from masklet_server.session.options import TrackerOptions
from masklet_server.session.ports import TrackingEngine
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.results import object_result, timings
from masklet_server.session.sending import Sending
from masklet_server.video.frame import Frame
from masklet_server.video.frame_store import FrameStore

# Of each pass over the frames, whether it goes backward.
_PASSES = {Direction.FORWARD: (False,), Direction.BACKWARD: (True,), Direction.BOTH: (False, True)}
# What a client can mend, or work around; after anything else there is no going on.
_MENDABLE = (InvalidArgument, FailedPrecondition, NotFound, ResourceExhausted)


@dataclass
class _Progress:
    """How far a propagation has come."""

    start: int = 0
    sent: int = 0
    stopped: bool = False


class Annotator:
    """Does what one session's client asks for, in order; the counterpart of `Tracker`.

    Attributes:
        objects: What is remembered of each, by id.
    """

    def __init__(
        self,
        options: TrackerOptions,
        *,
        engine: TrackingEngine,
        pool: MaskPool,
        frames: FrameStore,
        ledger: Credits,
        idle: IdleWatch,
        limits: SessionLimits,
        send: replies.Send,
    ) -> None:
        self.objects: dict[int, History] = {}
        self._options = options
        self._engine = engine
        self._pool = pool
        self._frames = frames
        self._credits = ledger
        self._idle = idle
        self._limits = limits
        self._write = send
        self._shelf = Shelf(limits.max_history_bytes)
        self._encode_ahead = 1 if options.deterministic else engine.models[options.model].encode_ahead
        self._features = RecentFeatures(self._encode_ahead)
        self._clip_length: int | None = None
        self._revisions: dict[int, int] = {}
        self._requests = RequestQueue(limits)
        self._send_seconds = 0.0

    # What the receiving task says; nothing here waits.

    def ask(self, request: events.Request) -> None:
        """Take a request; it is answered when those before it are.

        Raises:
            ResourceExhausted: Too many wait, or too large ones.
        """
        self._requests.add(request)

    def stop(self) -> None:
        """End the propagation under way after the frame in hand, and those that wait before they begin."""
        self._requests.stop()

    def finish(self) -> None:
        """No more requests will come, and no acknowledgements."""
        self._credits.lift()
        self._requests.finish()

    def close(self) -> None:
        """Forget everything."""
        self._reset()
        self._requests.clear()
        self._frames.close()
        self._shelf = Shelf(0)
        self._features = RecentFeatures()

    # What is done about it.

    async def run(self) -> None:
        """Answer requests until there are no more.

        Raises:
            MaskletError: Whatever the engine raises that the client cannot mend.
        """
        with self._idle.waiting("the first frames of the video, which tell how long it is, or end_of_video"):
            count = await self._frames.reach(POINTER_FRAMES)
        self._clip_length = count if count < POINTER_FRAMES else None
        while (asked := await self._next()) is not None:
            await self._answer(asked)

    async def _next(self) -> Asked | None:
        with self._idle.waiting("the client's next request, or its half-close"):
            return await self._requests.next()

    async def _answer(self, asked: Asked) -> None:
        try:
            await self._do(asked)
        except _MENDABLE as error:
            await self._send(replies.Problem(error))

    async def _do(self, asked: Asked) -> None:
        request = asked.request
        match request:
            case events.PromptObject():
                await self._prompt(request)
            case events.ClearPrompts():
                await self._clear(request)
            case events.RemoveObject():
                if self.objects.pop(request.object_id, None) is None:
                    raise _unknown(request.object_id)
                await self._confirm(request)
            case events.Propagate():
                await self._propagate(asked, request)
            case events.Reset():
                self._reset()
                await self._confirm(request)
            case events.Unreadable():
                raise request.error

    async def _confirm(self, request: events.Request) -> None:
        if request.request_id:
            await self._send(replies.Applied())

    async def _send(self, response: replies.Response) -> None:
        """Send what answers the request under way."""
        asked = self._requests.under_way
        await self._write(replies.answering(0 if asked is None else asked.request.request_id, response))

    def _reset(self) -> None:
        self.objects.clear()
        self._revisions.clear()

    # Prompts

    async def _prompt(self, request: events.PromptObject) -> None:
        given = await self._on_its_frame(request)
        object_id = given.object_id
        frame = await self._frame(given.frame_index, "prompt.frame_index")
        given.check_size(frame.height, frame.width)
        if object_id not in self.objects and len(self.objects) >= self._limits.max_objects:
            raise ResourceExhausted(
                f"object {object_id} is one too many: max_objects is {self._limits.max_objects}; remove_object makes "
                "room"
            )
        prompt = given.prompt if given.mask is None else await self._pool.run(given.decoded)
        history = self.objects.get(object_id) or self._engine.new_history(self._options.model, self._shelf)
        try:
            output = await self._ask_engine(frame, [ObjectTask(history, (prompt,))], track=False)
        except InvalidArgument as error:
            raise error.within("prompt") from None
        self.objects[object_id] = history
        await self._show(frame.index, object_id, output)

    async def _on_its_frame(self, request: events.PromptObject) -> GivenPrompt:
        if request.on_next_frame:
            raise InvalidArgument.of(
                "prompt.on_next_frame", "means nothing with PROPAGATION_ON_REQUEST; give frame_index or pts_seconds"
            )
        seconds = request.prompt.prompt.pts_seconds
        if seconds is None:
            return request.prompt
        with self._idle.waiting("the rest of the video, to find the frame that is nearest in time"):
            return request.prompt.on_frame(await self._frames.nearest(seconds))

    async def _clear(self, request: events.ClearPrompts) -> None:
        frame = await self._frame(request.frame_index, "clear_prompts.frame_index")
        history = self.objects.get(request.object_id)
        if history is None:
            raise _unknown(request.object_id)
        output = await self._ask_engine(frame, [ObjectTask(history, clear=True)], track=False)
        await self._show(frame.index, request.object_id, output)

    async def _show(self, frame_index: int, object_id: int, output: FrameOutput) -> None:
        """Answer with the only output of the only object."""
        result = await object_result(self._pool, self._options.mask_encoding, object_id, output.prompts[0][0])
        await self._send(replies.PromptResult(self._credits.number_prompt(), frame_index, result))

    # Propagation

    async def _propagate(self, asked: Asked, request: events.Propagate) -> None:
        progress = _Progress(request.start_frame_index or 0)
        try:
            if not asked.stopped.is_set():
                progress.start = await self._start(request)
                for reverse in _PASSES[request.direction]:
                    frames = frame_range(progress.start, request.max_frames, reverse=reverse)
                    if not asked.stopped.is_set():
                        await self._pass(asked, frames, progress, reverse=reverse)
            progress.stopped = asked.stopped.is_set()
        except _MENDABLE as error:
            progress.stopped = True
            await self._send(replies.Problem(error))
        await self._send(replies.PropagationDone(progress.start, progress.sent, progress.stopped))

    async def _start(self, request: events.Propagate) -> int:
        """The first frame.

        Raises:
            FailedPrecondition: There is no object, or one without a prompt.
            InvalidArgument: The video has no such frame.
        """
        if not self.objects:
            raise FailedPrecondition("there is no object to track; send a prompt first")
        prompted = {object_id: history.conditioning_frames for object_id, history in self.objects.items()}
        for object_id, indices in prompted.items():
            if not indices:
                raise FailedPrecondition(f"object {object_id} has no prompt any more; prompt it anew or remove it")
        start = request.start_frame_index
        if start is None:
            return min(index for indices in prompted.values() for index in indices)
        await self._check_frame(start, "propagate.start_frame_index")
        return start

    async def _pass(self, asked: Asked, frames: range, progress: _Progress, *, reverse: bool) -> None:
        if not frames:
            await self._settle(progress.start)
            return
        async with Sending() as sending:
            for index in frames:
                if (frame := await self._turn(asked, index)) is None:
                    return
                object_ids = sorted(self.objects)
                tasks = [ObjectTask(self.objects[object_id]) for object_id in object_ids]
                try:
                    upcoming = await self._upcoming(frames[frames.index(index) + 1 :], index)
                    output = await self._ask_engine(frame, tasks, reverse=reverse, upcoming=upcoming)
                except BaseException:
                    self._credits.give_back()
                    raise
                await sending.next(self._emit(frame, object_ids, output))
                progress.sent += 1

    async def _upcoming(self, frames: range, index: int) -> list[npt.NDArray[np.uint8]]:
        """Pictures of a pass's next frames that can be encoded together with this one's, as far as they are there."""
        if index in self._features:
            return []
        known = [i for i in frames[: self._encode_ahead - 1] if i < len(self._frames)]
        return [frame.pixels for i in known if (frame := await self._frames.frame(i)) is not None]

    async def _settle(self, frame_index: int) -> None:
        """Upstream makes memories of prompts also where it then tracks nothing."""
        frame = await self._frame(frame_index, "propagate.start_frame_index")
        tasks = [ObjectTask(history) for history in self.objects.values()]
        await self._ask_engine(frame, tasks, track=False, settle=True)

    async def _turn(self, asked: Asked, index: int) -> Frame | None:
        """Wait until the frame can be tracked; None where it is not to be, or there is none."""
        if asked.stopped.is_set():
            return None
        turn = asyncio.create_task(self._frame_and_credit(index))
        stopped = asyncio.create_task(asked.stopped.wait())
        try:
            await asyncio.wait({turn, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return turn.result() if turn.done() else None
        finally:
            turn.cancel()
            stopped.cancel()
            await asyncio.gather(turn, stopped, return_exceptions=True)

    async def _frame_and_credit(self, index: int) -> Frame | None:
        with self._idle.waiting(f"frame {index} of the video, or end_of_video"):
            frame = await self._frames.frame(index)
        if frame is not None:
            with self._idle.waiting(f"an ack, because the window of {self._credits.window} frame results is full"):
                await self._credits.take()
        return frame

    async def _emit(self, frame: Frame, object_ids: Sequence[int], output: FrameOutput) -> None:
        start = time.perf_counter()
        found = zip(object_ids, output.objects, strict=True)
        results = await asyncio.gather(*(object_result(self._pool, self._options.mask_encoding, *one) for one in found))
        times = timings(frame, [output], mask=time.perf_counter() - start, send=self._send_seconds)
        revision = self._revisions.get(frame.index, -1) + 1
        self._revisions[frame.index] = revision
        start = time.perf_counter()
        await self._send(
            replies.FrameResult(
                sequence=self._credits.number_frame(),
                frame_index=frame.index,
                pts=frame.pts,
                time_base=frame.time_base,
                pts_nanoseconds=frame.pts_nanoseconds,
                objects=tuple(results),
                capture_time_nanoseconds=frame.capture_time_nanoseconds,
                latency_seconds=time.monotonic() - frame.arrived_seconds,
                revision=revision,
                timings=times if self._options.timings else None,
            )
        )
        self._send_seconds = time.perf_counter() - start

    # Both

    async def _check_frame(self, index: int, field_path: str) -> None:
        """Wait until a frame that a request names is decoded.

        Raises:
            InvalidArgument: The video ends before it.
        """
        with self._idle.waiting(f"frame {index} of the video, or end_of_video"):
            count = await self._frames.reach(index + 1)
        if count <= index:
            raise InvalidArgument.of(field_path, f"is {index}, but the video has {count} frames, 0 to {count - 1}")

    async def _frame(self, index: int, field_path: str) -> Frame:
        """A frame that a request names; see `_check_frame`."""
        await self._check_frame(index, field_path)
        frame = await self._frames.frame(index)
        assert frame is not None
        return frame

    async def _ask_engine(
        self,
        frame: Frame,
        tasks: Sequence[ObjectTask],
        *,
        track: bool = True,
        settle: bool = False,
        reverse: bool = False,
        upcoming: Sequence[npt.NDArray[np.uint8]] = (),
    ) -> FrameOutput:
        job = FrameJob(
            model=self._options.model,
            stream=self._options.stream,
            frame_index=frame.index,
            pixels=frame.pixels,
            height=frame.height,
            width=frame.width,
            tasks=tasks,
            clip_length=self._clip_length,
            deterministic=self._options.deterministic,
            track=track,
            settle=settle,
            reverse=reverse,
            recent=self._features,
            upcoming=upcoming,
            return_logits=self._options.return_logits,
        )
        try:
            with self._idle.busy():
                return await self._engine.track(job)
        except MaskletError as error:
            # Where it was raised refers to what is remembered, and would keep it until a garbage collection.
            raise error.with_traceback(None) from error.__cause__


def _unknown(object_id: int) -> NotFound:
    return NotFound(f"object {object_id} is not followed")
