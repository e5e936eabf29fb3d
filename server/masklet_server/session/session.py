"""One stream's life, from its configuration to its last result.

A session has three tasks. The *receiving* task takes the client's messages in order. The *tracking* task turns frames
into results; how, is up to the session's mode: automatic propagation or propagation on request. The *idle watch* ends
the session if nothing makes progress. When one task fails, or tracking is done, the others are cancelled, and
everything that the session held is freed before `Session.run` returns.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from typing import Protocol

from masklet.errors import Cancelled, FailedPrecondition, MaskletError
from masklet_server.session import events, replies
from masklet_server.session.automatic.mode import AutomaticMode
from masklet_server.session.context import (
    NO_SURVIVAL,
    SessionContext,
    SessionOptions,
    SessionResources,
    SessionTasks,
    Survival,
)
from masklet_server.session.credits import Credits
from masklet_server.session.events import Event
from masklet_server.session.idle import IdleWatch
from masklet_server.session.intake import PacketVideo, VideoIntake
from masklet_server.session.on_request.mode import OnRequestMode
from masklet_server.session.ports import PacketSource
from masklet_server.session.replies import Send
from masklet_server.session.sending import AckReminder, ProblemReporter, ResponseWriter
from masklet_server.session.state import State, StateMachine, Step, refusal
from masklet_server.video.info import VideoInfo

_FREEING: set[asyncio.Task[None]] = set()

_STEPS: dict[type, Step] = {
    events.PromptObject: Step.PROMPT,
    events.RemoveObject: Step.REMOVE_OBJECT,
    events.ClearPrompts: Step.CLEAR_PROMPTS,
    events.Propagate: Step.PROPAGATE,
    events.StopPropagation: Step.STOP_PROPAGATION,
    events.Prepare: Step.PREPARE,
    events.Reset: Step.RESET,
}


class Mode(Protocol):
    """Decides when frames are tracked, and what happens to the client's prompts.

    Attributes:
        idle_timeout_seconds: How long the session may go without progress once all of the video is there.
    """

    idle_timeout_seconds: float

    async def take(self, event: events.ModeEvent) -> None:
        """Do what the client asks for, now or later. Raises MaskletError, with nothing changed, if it is impossible."""

    def finish(self) -> None:
        """The client will say nothing more, and acknowledge nothing more."""

    async def run(self, video: VideoIntake, info: VideoInfo) -> replies.Done:
        """Send all results for a video whose first frame is decoded. Returns what to say at the end."""

    def close(self) -> None:
        """Let all memories and frames go, after all tasks have ended."""


def configuration(first: Event | None) -> events.Configure:
    """The client's first message, which must be the configuration.

    Raises:
        FailedPrecondition: It is another message, or there is none.
    """
    if isinstance(first, events.Configure):
        return first
    if isinstance(first, events.Unreadable):
        raise first.error
    raise FailedPrecondition(
        "the stream ended before its first message, config"
        if first is None
        else "the first message of a stream must be config"
    )


class Session:
    """One stream.

    Attributes:
        id: The session's id.
        mode: Automatic propagation, or propagation on request.

    Args:
        config: The client's first message.
        resources: What the server gives to each session.
        send: Takes each response, in order; waits while the client can't take more.
        replay: What the session repeats, if it begins anew for a client that has some of its results already.
        survival: How it survives its server, and what it goes on from if it did.

    Raises:
        NotFound: The model is not loaded.
        InvalidArgument: The server does not fetch videos from where the video is, or logits do not fit into a message.
    """

    def __init__(
        self,
        config: events.Configure,
        resources: SessionResources,
        send: Send,
        replay: events.Replay = events.NO_REPLAY,
        survival: Survival = NO_SURVIVAL,
    ) -> None:
        restored = survival.restored
        options = SessionOptions.resolve(config, resources, survival.session_id)
        self.id = options.session_id
        self._options = options
        self._engine = resources.engine
        self._machine = StateMachine()
        self._credits = Credits(options.window, replay)
        if restored is not None:
            self._credits.restore(restored.state.credits)
        self._idle = IdleWatch(options.limits.idle_timeout_seconds, longest_seconds=options.limits.max_session_seconds)
        self._tasks = SessionTasks(options.session_id)
        self._send = ResponseWriter(send, self._idle, self._credits.results_wait, latest=options.latest).send
        self._reporter = ProblemReporter(self._send)
        self._heard_at = time.monotonic()
        self._chunk_bytes = 0
        context = SessionContext(
            options=options,
            engine=resources.engine,
            pool=resources.pool,
            credits=self._credits,
            idle=self._idle,
            tasks=self._tasks,
            send=self._send,
            reporter=self._reporter,
            replay=replay,
            share=resources.share,
            survival=survival,
        )
        self.mode = _new_mode(context)
        on_complete = functools.partial(self._idle.extend, self.mode.idle_timeout_seconds)
        self._video = VideoIntake(context, resources.sources, self._machine, on_complete)

    @property
    def state(self) -> State:
        """The state in which the session is."""
        return self._machine.state

    def client_left(self) -> None:
        """The client is away, and may come back: it is not waited for meanwhile."""
        self._idle.rest()

    def client_came(self, at_most_seconds: float) -> None:
        """The client is back. Without progress, at most so many seconds of its absences do not count as idle."""
        self._idle.resume(at_most_seconds)

    async def run(self, incoming: AsyncIterator[Event]) -> None:
        """Take the client's messages, and send all answers.

        Args:
            incoming: The messages after the configuration; ends when the client will send no more.

        Raises:
            MaskletError: The session can't go on.
            asyncio.CancelledError: The task was cancelled. Everything is freed then too.
        """
        begin = self._tasks.begin
        try:
            begin(self._idle.expire(), "watch")
            await self._tasks.until_done(begin(self._send(self._opened()), "open"))
            begin(self._reporter.run(), "report")
            if not self._options.waits_for_acks:
                begin(self._reminder().run(), "remind")
            begin(self._receive(incoming), "receive")
            await self._tasks.until_done(begin(self._track(), "track"))
        except BaseException as error:
            if not self._machine.is_over:
                self._machine.step(Step.FAILURE)
            if isinstance(error, MaskletError):
                await self._reporter.flush_before_failure()
            raise
        finally:
            # Shielded: a second cancellation must not leave a decoder behind.
            freeing = asyncio.create_task(self._free())
            _FREEING.add(freeing)  # an event loop forgets a task to which nothing refers
            freeing.add_done_callback(_FREEING.discard)
            await asyncio.shield(freeing)

    def _opened(self) -> replies.Opened:
        return replies.Opened(
            session_id=self.id,
            model=self._options.model.name,
            window=self._credits.window,
            max_objects=self._options.limits.max_objects,
            idle_timeout_seconds=self.mode.idle_timeout_seconds,
            can_prepare=self._options.config.propagation is events.Propagation.ON_REQUEST,
        )

    def _reminder(self) -> AckReminder:
        return AckReminder(self._credits, self._reporter, self._last_heard)

    def _last_heard(self) -> float:
        """When the client sent its last message; for a live stream, which goes on anyway, long ago."""
        if self._idle.is_resting:
            return time.monotonic()
        return 0.0 if self._options.config.live or self._video.is_live else self._heard_at

    async def _free(self) -> None:
        await self._tasks.cancel()
        try:
            await self._video.close()
        finally:
            await self._engine.forget(self.id)
            self.mode.close()
            self._tasks.clear()

    # Receiving

    async def _receive(self, incoming: AsyncIterator[Event]) -> None:
        async for event in incoming:
            if self.state is State.FAILED:
                return  # sent before the client could know of the failure, which is on its way
            if not isinstance(event, events.VideoChunk) or self._is_progress(event):
                self._idle.touch()
            self._heard_at = time.monotonic()
            match event:
                case events.VideoChunk():
                    await self._video.on_chunk(event.data)
                case events.NextPicture():
                    await self._video.on_picture(event.picture)
                case events.NextPacket():
                    await self._video.on_packet(event.packet)
                case events.EndOfVideo():
                    await self._video.on_end()
                case events.Cancel():
                    raise Cancelled("the client asked to cancel")
                case events.Configure():
                    raise refusal(self.state, Step.CONFIG)
                case events.Resume():
                    raise FailedPrecondition("resume came after another message; send it first, in a call of its own")
                case _:
                    await self._on_mendable(event)
        if self.state in (State.CONFIGURED, State.RECEIVING, State.TRACKING) and not self._video.is_fetching:
            raise Cancelled("the client went away before end_of_video")
        self.mode.finish()

    def _is_progress(self, chunk: events.VideoChunk) -> bool:
        """Whether a file comes fast enough; a few bytes a minute would keep a session for ever."""
        limits = self._options.limits
        self._chunk_bytes += len(chunk.data)
        if self._chunk_bytes < limits.min_upload_bytes_per_second * self._idle.quiet_seconds:
            return False
        self._chunk_bytes = 0
        return True

    async def _on_mendable(self, event: events.Ack | events.ModeEvent) -> None:
        """Take a message whose faults harm nothing else: they are answered, and the stream goes on."""
        try:
            if isinstance(event, events.Ack):
                self._machine.step(Step.ACK)
                self._credits.ack(event.sequence)
                return
            if type(event) in _STEPS:
                self._machine.step(_STEPS[type(event)])
            await self.mode.take(event)
        except MaskletError as error:
            number = event.request_id if isinstance(event, events.Numbered) else 0
            await self._reporter.report(replies.answering(number, replies.Problem(error)))

    # Tracking

    async def _track(self) -> None:
        video = await self._video.opened
        if isinstance(video, PacketVideo):
            self._tasks.begin(self._send_progress(video.source), "progress")
        with self._idle.waiting("the video's first frame"):
            info = await video.source.info()
        self._machine.step(Step.FIRST_FRAME)
        done = await self.mode.run(self._video, info)
        await self._reporter.flush()
        await self._send(done)
        self._machine.step(Step.LAST_RESULT)

    async def _send_progress(self, source: PacketSource) -> None:
        """Tell the client how many packets are decoded, so that it can send further ones."""
        while True:
            await self._send(replies.PacketsTaken(await source.packets_taken()))


def _new_mode(context: SessionContext) -> Mode:
    if context.options.config.propagation is events.Propagation.ON_REQUEST:
        return OnRequestMode(context)
    return AutomaticMode(context)
