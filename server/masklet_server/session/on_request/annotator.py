"""Does the client's requests in order: prompts on any frame, and propagations in either direction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masklet.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from masklet_server.budgets.bank_memory import BankMemory
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.serving.jobs import FrameOutput, ObjectTask
from masklet_server.session import events, replies
from masklet_server.session.context import SessionContext, either
from masklet_server.session.events import Direction
from masklet_server.session.jobs import POINTER_FRAMES, SessionJobs, TrackedFrame
from masklet_server.session.on_request.frame_range import frame_range
from masklet_server.session.on_request.preparation import FramePreparation
from masklet_server.session.on_request.request_queue import QueuedRequest, RequestQueue
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.sending import BackgroundSender, FoundObject, FrameOutcome, ResultSender
from masklet_server.video.frame_store import FrameStore

# By direction, for each run over the frames, whether time runs backward.
_RUNS = {Direction.FORWARD: (False,), Direction.BACKWARD: (True,), Direction.BOTH: (False, True)}
# Errors that the client can mend or work around. After any other error the session ends.
_MENDABLE = (InvalidArgument, FailedPrecondition, NotFound, ResourceExhausted)


@dataclass
class _Progress:
    """How far a propagation has come, and which objects it tracks."""

    objects: dict[int, History]
    start: int = 0
    sent: int = 0
    stopped: bool = False


class _AnswerWriter:
    """Sends answers to the current request, with the request's number."""

    def __init__(self, send: replies.Send, requests: RequestQueue) -> None:
        self._send = send
        self._requests = requests

    async def send(self, response: replies.Response) -> None:
        """Send an answer, as the context's `send` does."""
        current = self._requests.current
        await self._send(replies.answering(0 if current is None else current.request.request_id, response))


class Annotator:
    """Answers one session's requests, one after the other.

    Attributes:
        objects: The history of each object, by id.

    Args:
        context: The session's.
        frames: The video's frames, which are stored meanwhile.
        requests: What the client asks for.
    """

    def __init__(self, context: SessionContext, frames: FrameStore, requests: RequestQueue) -> None:
        self.objects: dict[int, History] = {}
        self._context = context
        self._frames = frames
        self._requests = requests
        self._idle = context.idle
        self._jobs = SessionJobs(context)
        self._preparation = FramePreparation(frames, self._jobs)
        self._send = _AnswerWriter(context.send, requests).send
        self._results = ResultSender(context, self._send)
        self._history_file = TensorFile(context.limits.max_history_bytes, context.share.disk)
        self._memory = BankMemory(context.share.banks, context.options.model.memory)
        self._clip_length: int | None = None
        self._revisions: dict[int, int] = {}

    def close(self) -> None:
        """Let all memories and features go."""
        self._reset()
        self._history_file = TensorFile(0)
        self._jobs.clear()
        self._memory.close()

    def prepare(self, frame_index: int) -> None:
        """Encode a frame while no request waits; it takes the place of a frame that is not begun."""
        self._preparation.name(frame_index)

    async def run(self) -> None:
        """Answer requests until there are no more.

        Raises:
            MaskletError: The engine has failed in a way that the client can't mend.
        """
        with self._idle.waiting("the first frames of the video, which tell how long it is, or end_of_video"):
            count = await self._frames.reach(POINTER_FRAMES)
        self._clip_length = count if count < POINTER_FRAMES else None
        while (queued := await self._next()) is not None:
            await self._answer(queued)

    async def _next(self) -> QueuedRequest | None:
        with self._idle.waiting("the client's next request, or its half-close"):
            if not self._requests.has_next:
                # A request takes the place of the preparation, and of its job if that has not begun.
                await either(self._requests.arrival(), self._preparation.run())
            return await self._requests.next()

    async def _answer(self, queued: QueuedRequest) -> None:
        try:
            await self._do(queued)
        except _MENDABLE as error:
            await self._send(replies.Problem(error))

    async def _do(self, queued: QueuedRequest) -> None:
        request = queued.request
        match request:
            case events.PromptObject():
                await self._prompt(request)
            case events.ClearPrompts():
                await self._clear(request)
            case events.RemoveObject():
                if self.objects.pop(request.object_id, None) is None:
                    raise _unknown(request.object_id)
                self._settle()
                await self._confirm(request)
            case events.Propagate():
                await self._propagate(queued, request)
            case events.Reset():
                self._reset()
                await self._confirm(request)
            case events.Unreadable():
                raise request.error

    async def _confirm(self, request: events.Request) -> None:
        if request.request_id:
            await self._send(replies.Applied())

    def _reset(self) -> None:
        self.objects.clear()
        self._revisions.clear()
        self._settle()

    def _settle(self) -> None:
        """Give back the memory that objects do not need any more."""
        self._memory.settle({one: len(history.conditioning_frames) for one, history in self.objects.items()})

    # Prompts

    async def _prompt(self, request: events.PromptObject) -> None:
        given = await self._on_its_frame(request)
        object_id = given.object_id
        frame = await self._frame(given.frame_index, "prompt.frame_index")
        given.check_size(frame.frame.height, frame.frame.width)
        most = self._context.limits.max_objects
        if object_id not in self.objects and len(self.objects) >= most:
            raise ResourceExhausted(
                f"object {object_id} is one too many: max_objects is {most}; remove_object makes room"
            )
        prompt = await given.decode_in(self._context.pool, self._context.options.model.image_size)
        history = self.objects.get(object_id) or self._new_history()
        self._admit(object_id, history, frame)
        try:
            output = await self._jobs.apply_prompt(frame, history, prompt)
            self.objects[object_id] = history
        except InvalidArgument as error:
            raise error.within("prompt") from None
        finally:
            self._settle()
        await self._show(frame.index, object_id, output)

    def _admit(self, object_id: int, history: History, frame: TrackedFrame) -> None:
        """Count what the object takes with a prompt on the frame; ResourceExhausted where that is too much."""
        frames = {one: len(known.conditioning_frames) for one, known in self.objects.items()}
        prompted = history.conditioning_frames | (set() if history.was_tracked(frame.step) else {frame.step})
        self._memory.admit({**frames, object_id: len(prompted)})

    def _new_history(self) -> History:
        return self._context.engine.new_history(self._context.options.model.name, self._history_file)

    async def _on_its_frame(self, request: events.PromptObject) -> GivenPrompt:
        """The prompt for the frame that is nearest to its time, if it names one."""
        if request.on_next_frame:
            raise InvalidArgument.of(
                "prompt.on_next_frame", "is not for PROPAGATION_ON_REQUEST; give frame_index or pts_seconds"
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
        output = await self._jobs.clear_prompts(frame, history)
        self._settle()
        await self._show(frame.index, request.object_id, output)

    async def _show(self, frame_index: int, object_id: int, output: FrameOutput) -> None:
        """Answer with the only outcome of the only object."""
        await self._results.send_prompt(frame_index, FoundObject(object_id, output.prompts[0][0]))

    # Propagation

    async def _propagate(self, queued: QueuedRequest, request: events.Propagate) -> None:
        progress = _Progress({}, request.start_frame_index or 0)
        try:
            if not queued.stopped.is_set():
                progress.objects = self._chosen(request.object_ids)
                progress.start = await self._start(request, progress.objects)
                for reverse in _RUNS[request.direction]:
                    frames = frame_range(progress.start, request.max_frames, reverse=reverse)
                    if not queued.stopped.is_set():
                        await self._track_range(queued, frames, progress, reverse=reverse)
            progress.stopped = queued.stopped.is_set()
        except _MENDABLE as error:
            progress.stopped = True
            await self._send(replies.Problem(error))
        await self._send(replies.PropagationDone(progress.start, progress.sent, progress.stopped))

    def _chosen(self, object_ids: frozenset[int]) -> dict[int, History]:
        """The objects that a propagation tracks.

        Raises:
            FailedPrecondition: There is no object.
            NotFound: One of the objects is not tracked.
        """
        if not self.objects:
            raise FailedPrecondition("there is no object to track; send a prompt first")
        if unknown := object_ids - self.objects.keys():
            raise _unknown(min(unknown))
        return {object_id: self.objects[object_id] for object_id in sorted(object_ids or self.objects)}

    async def _start(self, request: events.Propagate, objects: dict[int, History]) -> int:
        """The first frame of a propagation.

        Raises:
            FailedPrecondition: An object has no prompt.
            InvalidArgument: The video has no such frame.
        """
        prompted = {object_id: history.conditioning_frames for object_id, history in objects.items()}
        for object_id, indices in prompted.items():
            if not indices:
                raise FailedPrecondition(f"object {object_id} has no prompt any more; prompt it again or remove it")
        start = request.start_frame_index
        if start is None:
            return min(index for indices in prompted.values() for index in indices)
        await self._check_frame(start, "propagate.start_frame_index")
        return start

    async def _track_range(self, queued: QueuedRequest, frames: range, progress: _Progress, *, reverse: bool) -> None:
        if not frames:
            # SAM 2 encodes the memories of prompts even if it then tracks no frame.
            await self._jobs.consolidate_prompts(list(progress.objects.values()))
            return
        async with BackgroundSender() as background:
            for index in frames:
                if (frame := await self._turn(queued, index)) is None:
                    return
                try:
                    upcoming = await self._upcoming(frames[frames.index(index) + 1 :], index)
                    outcome = await self._track(frame, progress.objects, upcoming, reverse=reverse)
                except BaseException:
                    self._context.credits.give_back()
                    raise
                await background.send(self._results.send_frame(outcome))
                progress.sent += 1

    async def _track(
        self,
        frame: TrackedFrame,
        objects: dict[int, History],
        upcoming: Sequence[npt.NDArray[np.uint8]],
        *,
        reverse: bool,
    ) -> FrameOutcome:
        histories = list(objects.values())
        if reverse:
            output = await self._jobs.track_backward(frame, histories, upcoming)
        else:
            output = await self._jobs.track(frame, [ObjectTask(history) for history in histories], upcoming)
        found = [FoundObject(*one) for one in zip(objects, output.objects, strict=True)]
        revision = self._revisions[frame.index] = self._revisions.get(frame.index, -1) + 1
        return FrameOutcome(frame, objects=found, answers=[output], revision=revision)

    async def _upcoming(self, frames: range, index: int) -> list[npt.NDArray[np.uint8]]:
        """Pictures of the next frames, as far as they are there, that can be encoded before their turn."""
        options = self._context.options
        following = frames[: options.encode_ahead - 1]
        if self._jobs.has_features(index) and not options.model.encodes_meanwhile:
            return []  # nothing is encoded in this frame's turn
        if following and self._jobs.has_features(following[0]):
            return []
        known = [i for i in following if i < len(self._frames)]
        return [frame.pixels for i in known if (frame := await self._frames.frame(i)) is not None]

    async def _turn(self, queued: QueuedRequest, index: int) -> TrackedFrame | None:
        """Wait until the frame can be tracked; None if the propagation is stopped, or there is no such frame."""
        if queued.stopped.is_set():
            return None
        turn = asyncio.create_task(self._frame_and_credit(index))
        stopped = asyncio.create_task(queued.stopped.wait())
        try:
            await asyncio.wait({turn, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return turn.result() if turn.done() else None
        finally:
            turn.cancel()
            stopped.cancel()
            await asyncio.gather(turn, stopped, return_exceptions=True)

    async def _frame_and_credit(self, index: int) -> TrackedFrame | None:
        with self._idle.waiting(f"frame {index} of the video, or end_of_video"):
            frame = await self._frames.frame(index)
        if frame is None:
            return None
        window = self._context.credits.window
        with self._idle.waiting(f"an ack, because the window of {window} frame results is full"):
            await self._context.credits.take()
        return TrackedFrame(frame, index, clip_length=self._clip_length)

    # Frames

    async def _check_frame(self, index: int, field_path: str) -> None:
        """Wait until a frame that a request names is decoded.

        Raises:
            InvalidArgument: The video ends before it.
        """
        with self._idle.waiting(f"frame {index} of the video, or end_of_video"):
            count = await self._frames.reach(index + 1)
        if count <= index:
            raise InvalidArgument.of(field_path, f"is {index}, but the video has {count} frames, 0 to {count - 1}")

    async def _frame(self, index: int, field_path: str) -> TrackedFrame:
        """Wait for a frame that a request names, and read it; see `_check_frame`."""
        await self._check_frame(index, field_path)
        frame = await self._frames.frame(index)
        assert frame is not None
        return TrackedFrame(frame, index, clip_length=self._clip_length)


def _unknown(object_id: int) -> NotFound:
    return NotFound(f"object {object_id} is not tracked")
