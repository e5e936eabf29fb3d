"""Automatic propagation: every frame is tracked as it arrives."""

from __future__ import annotations

from collections.abc import Sequence

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, NotFound
from masklet_server.budgets.bank_memory import BankMemory
from masklet_server.session import events
from masklet_server.session.automatic.frame_reader import FrameReader, ReaderOptions
from masklet_server.session.automatic.latest_reader import LatestReader, PacedReader
from masklet_server.session.automatic.operation_gate import OperationGate
from masklet_server.session.automatic.redecoded_frames import RedecodedFrames
from masklet_server.session.automatic.tracked_objects import TrackedObjects, check_conditioning_frames
from masklet_server.session.automatic.tracker import Tracker
from masklet_server.session.automatic.waiting_prompts import RefusedPrompt, WaitingPrompts
from masklet_server.session.context import SessionContext
from masklet_server.session.intake import FileVideo, LatestPictureVideo, PacketVideo, Video, VideoIntake
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.replies import Described, Done, Problem
from masklet_server.session.restoring.state import Restored
from masklet_server.video.info import VideoInfo


class AutomaticMode:
    """Tracks every frame as it arrives. Prompts wait for their frames; a prompt for a tracked frame corrects it.

    Attributes:
        idle_timeout_seconds: How long the session may go without progress once all of the video is there.
        objects: The objects that are tracked.
        prompts: The prompts that wait.
        gate: Lets in what the client asks for.
        tracker: Turns frames and prompts into results.

    Args:
        context: The session's.
    """

    def __init__(self, context: SessionContext) -> None:
        self.idle_timeout_seconds = context.limits.idle_timeout_seconds
        self.objects = TrackedObjects(context)
        self.prompts = WaitingPrompts(context.limits, self.objects.window)
        self._memory = BankMemory(context.share.banks, context.options.model.memory)
        self.gate = OperationGate(
            context, self._do, lambda: self.prompts.next_frame - 1 if self.prompts.next_frame else None
        )
        self.tracker = Tracker(context, self.objects, self.prompts, self.gate)
        self._context = context
        self._options = context.options
        self._restored = context.survival.restored
        for taken in context.replay.operations:
            self.tracker.note_request(taken.operation.request_id)
        if self._restored is not None:
            self._restore(self._restored)

    def _restore(self, restored: Restored) -> None:
        """Go on with the objects and prompts of a snapshot.

        Raises:
            ResourceExhausted: There is no memory for the objects.
        """
        video = restored.state.video
        self.objects.restore(restored)
        self.prompts.restore(
            restored.state.prompts, restored.first_index if self._options.latest else video.last_index + 1
        )
        self.tracker.note_request(restored.state.request_id)
        self._memory.admit(self._frames_of_objects())

    # What the client says

    async def take(self, event: events.ModeEvent) -> None:
        """Do what the client asks for.

        Raises:
            MaskletError: It is not possible; nothing is changed.
        """
        try:
            await self._take(event)
        finally:
            # Nothing is awaited between this, what was done, and its answer.
            self.tracker.note_request(event.request_id if isinstance(event, events.Numbered) else 0)

    async def _take(self, event: events.ModeEvent) -> None:
        match event:
            case events.PromptObject():
                if event.prompt.mask is not None:
                    await self._context.pool.run(event.prompt.check_mask)
                await self.gate.take(event)
            case events.RemoveObject() | events.ClearPrompts():
                await self.gate.take(event)
            case events.Propagate():
                raise _only_on_request("propagate")
            case events.StopPropagation():
                raise _only_on_request("stop_propagation")
            case events.Prepare():
                raise _only_on_request("prepare")
            case events.Reset():
                raise _only_on_request("reset")
            case events.Unreadable():
                raise event.error

    def finish(self) -> None:
        """The client will say nothing more, and acknowledge nothing more."""
        self._context.credits.lift()
        self.tracker.client_is_done()

    def _do(self, operation: events.Operation) -> None:
        match operation:
            case events.PromptObject():
                self._prompt(operation)
            case events.RemoveObject():
                self._remove(operation.object_id)
            case events.ClearPrompts():
                self._clear(operation.object_id, operation.frame_index)

    def _prompt(self, event: events.PromptObject) -> None:
        given = event.prompt
        if event.on_next_frame:
            given = given.on_frame(self.prompts.next_frame)
        frames = self._conditioning_frames(given.object_id, given)
        check_conditioning_frames(given.object_id, frames)
        self._memory.admit({**self._frames_of_objects(), given.object_id: frames})
        try:
            self.prompts.add(given, tuple(self.objects))
        except MaskletError:
            self._memory.settle(self._frames_of_objects())
            raise

    def _conditioning_frames(self, object_id: int, given: GivenPrompt | None = None) -> int:
        """How many conditioning frames the object has or waits for, the one of a further prompt included."""
        tracked = self.objects.get(object_id)
        prompted = 0 if tracked is None else len(tracked.conditioning_frames) + tracked.is_prompted_now
        waiting, times = self.prompts.frames_of(object_id), self.prompts.times_of(object_id)
        if given is not None and given.pts_nanoseconds is not None:
            times += 1
        elif given is not None and given.frame_index >= self.prompts.next_frame:  # or else it is a correction
            waiting = waiting | {given.frame_index}
        return prompted + len(waiting) + times

    def _frames_of_objects(self) -> dict[int, int]:
        """By object, the number of its conditioning frames, those that prompts wait for included."""
        return {one: self._conditioning_frames(one) for one in {*self.objects, *self.prompts.object_ids}}

    def _remove(self, object_id: int) -> None:
        waiting = self.prompts.drop(object_id)
        if not self.objects.remove(object_id) and not waiting:
            raise NotFound(f"object {object_id} is not tracked, and no prompt for it waits")
        self._memory.settle(self._frames_of_objects())

    def _clear(self, object_id: int, frame_index: int) -> None:
        if self.prompts.drop(object_id, frame_index):
            self._memory.settle(self._frames_of_objects())
            return
        if self.objects.was_prompted(object_id, frame_index):
            raise FailedPrecondition(
                f"the prompt for object {object_id} on frame {frame_index} was applied already: correct the object by "
                "another prompt, or remove it and prompt it again; with PROPAGATION_ON_REQUEST prompts can be taken "
                "back"
            )
        raise NotFound(f"no prompt for object {object_id} on frame {frame_index} waits")

    # What is done with the video

    async def run(self, video: VideoIntake, info: VideoInfo) -> Done:
        """Describe the video, track all of it, and send all results.

        Args:
            video: Its first frame is decoded.
            info: What the first frame says of it.

        Returns:
            What to say at the end.

        Raises:
            MaskletError: The video can't be decoded, or the engine has failed.
        """
        if self._restored is None:
            await self.gate.open()
        misfits = self.prompts.fit(info.height, info.width)
        await self._context.send(Described(info))
        await self._report(misfits)
        opened = await video.opened
        is_new_clip = isinstance(opened, FileVideo) and not self._options.config.live and self._restored is None
        if isinstance(opened, FileVideo) and is_new_clip and self.objects.window.size:
            self.objects.window.redecoded = RedecodedFrames(opened.source, self._context.idle)
        frames = self._reader(opened)
        async with frames.running():
            if self._restored is not None:
                await self.tracker.catch_up(frames, self._restored.state)
                await self.gate.open()
            await self.tracker.run(frames, opened)
        await self._report(self.prompts.end(frames.frame_count))
        if frames.is_frame_count_wrong():
            wrong = _wrong_count(self._options.config.frame_count, frames.taken)
            await self._context.send(Problem(wrong))
        return Done(frames.taken, frames.undecoded_at_end)

    def close(self) -> None:
        """Let all memories and frames go."""
        self.tracker.clear()
        self.objects.clear()
        self._memory.close()

    def _reader(self, video: Video) -> FrameReader:
        idle, max_latency = self._context.idle, self._options.max_latency_seconds
        state = None if self._restored is None else self._restored.state.video
        if self._options.latest:
            options = ReaderOptions(live=True)
            if self._restored is not None and state is not None:
                options = ReaderOptions(live=True, taken=state.steps, first_index=self._restored.first_index)
            if isinstance(video, LatestPictureVideo):
                return PacedReader(video.source, idle, max_latency_seconds=max_latency, options=options)
            return LatestReader(video.source, idle, max_latency_seconds=max_latency, options=options)
        options = ReaderOptions(
            frame_count=self._options.config.frame_count,
            live=self._options.config.live or isinstance(video, PacketVideo),
            is_file=isinstance(video, FileVideo),
            look_ahead=self._options.model.encode_ahead,
            taken=0 if state is None else state.first_index,
            is_long=state is not None and state.is_long,
        )
        return FrameReader(video.source, idle, options)

    async def _report(self, refused: Sequence[RefusedPrompt]) -> None:
        for one in refused:
            await self._context.send(one.answer)


def _only_on_request(message: str) -> FailedPrecondition:
    return FailedPrecondition(f"{message} needs config.propagation = PROPAGATION_ON_REQUEST")


def _wrong_count(promised: int, actual: int) -> InvalidArgument:
    return InvalidArgument.of(
        "config.frame_count",
        f"is {promised}, but the video had {actual} frames; masks may differ a little from those that the right number "
        "gives",
    )
