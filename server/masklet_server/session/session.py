"""One stream's life, from its configuration to its last result: three tasks and what they share.

The *receiving* task takes the client's messages in order; the *tracking* task turns frames into results; the *idle*
watch ends both when nothing moves. When one of them fails, or tracking is done, the others are cancelled and everything
the session held is freed before `Session.run` returns.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence

from masklet.errors import Cancelled, FailedPrecondition, InvalidArgument, MaskletError, NotFound
from masklet_server.masks.pool import MaskPool
from masklet_server.session import events, replies
from masklet_server.session.automatic.correction_window import KeptFrames
from masklet_server.session.automatic.frame_reader import FrameFeed
from masklet_server.session.automatic.latest_reader import LatestFeed, PacedFeed
from masklet_server.session.automatic.prompting import Prompting
from masklet_server.session.automatic.tracker import Tracker
from masklet_server.session.credits import Credits
from masklet_server.session.events import Event
from masklet_server.session.idle import IdleWatch
from masklet_server.session.intake import (
    FileVideo,
    LatestPictureVideo,
    PacketVideo,
    PictureVideo,
    Video,
    VideoIntake,
)
from masklet_server.session.limits import SessionLimits
from masklet_server.session.on_request.annotator import Annotator
from masklet_server.session.options import TrackerOptions
from masklet_server.session.ports import FrameSource, PacketSource, SourceFactory, TrackingEngine
from masklet_server.session.prompts import PromptBook
from masklet_server.session.replies import Response, Send
from masklet_server.session.state import State, StateMachine, Step, refusal
from masklet_server.video.frame_store import FrameStore
from masklet_server.video.info import VideoInfo

_STEPS: dict[type, Step] = {
    events.PromptObject: Step.PROMPT,
    events.RemoveObject: Step.REMOVE_OBJECT,
    events.ClearPrompts: Step.CLEAR_PROMPTS,
    events.Propagate: Step.PROPAGATE,
    events.StopPropagation: Step.STOP_PROPAGATION,
    events.Reset: Step.RESET,
}


def configuration(first: Event | None) -> events.Configure:
    """The first message, which must be the configuration.

    Raises:
        FailedPrecondition: It is another one, or there is none.
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

    Args:
        config: The client's first message.
        engine: Tracks.
        sources: Makes the source that video is fed to.
        pool: For masks.
        limits: What the session may hold.
        send: Takes each response, in order; waits while the client cannot take more.

    Raises:
        NotFound: The model is not loaded.
        InvalidArgument: The video lies where the server does not fetch from, or logits would not fit into a message.
    """

    def __init__(
        self,
        config: events.Configure,
        *,
        engine: TrackingEngine,
        sources: SourceFactory,
        pool: MaskPool,
        limits: SessionLimits,
        send: Send,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.model = config.model or engine.default_model
        if self.model not in engine.models:
            raise NotFound(f"the model {self.model!r} is not loaded; this server has {', '.join(engine.models)}")
        if config.return_logits:
            limits = limits.with_logits(4 * engine.models[self.model].logits_size ** 2)
        self._config = config
        self._engine = engine
        self._pool = pool
        self._limits = limits
        self._write = send
        self._writing = asyncio.Lock()
        self._machine = StateMachine()
        self._credits = Credits(min(config.window or limits.window, limits.window))
        self._idle = IdleWatch(limits.idle_timeout_seconds)
        window = min(config.correction_window or limits.correction_window, limits.correction_window)
        self._kept = KeptFrames(window, limits.correction_bytes)
        self._book = PromptBook(limits, self._kept)
        self._latest = config.delivery is events.Delivery.LATEST
        self._max_latency = config.max_latency_seconds or limits.max_latency_seconds
        self._video = VideoIntake(
            config,
            sources,
            engine.models[self.model].image_size,
            max_latency_seconds=self._max_latency if self._latest else None,
            machine=self._machine,
            idle=self._idle,
            begin=self._begin,
            on_complete=self._on_video_complete,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._task_ended = asyncio.Event()
        options = TrackerOptions(
            stream=self.id,
            model=self.model,
            mask_encoding=config.mask_encoding,
            deterministic=config.deterministic,
            latest=self._latest,
            return_logits=config.return_logits,
            timings=config.timings,
            memory_policy=config.memory_policy,
            waits_for_acks=config.correction_window > 0 and window > 0,
        )
        self._stored = FrameStore(limits.max_stored_frame_bytes)
        self._annotator: Annotator | None = None
        if config.propagation is events.Propagation.ON_REQUEST:
            self._annotator = Annotator(
                options,
                engine=engine,
                pool=pool,
                frames=self._stored,
                ledger=self._credits,
                idle=self._idle,
                limits=limits,
                send=self._send,
            )
        self._tracker = Tracker(
            options,
            engine=engine,
            pool=pool,
            book=self._book,
            kept=self._kept,
            ledger=self._credits,
            idle=self._idle,
            limits=limits,
            send=self._send,
        )
        self._prompting = Prompting(self._book, self._tracker, pool)

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._machine.state

    async def run(self, incoming: AsyncIterator[Event]) -> None:
        """Live: take the client's messages, send the answers, return when all are sent.

        Args:
            incoming: The messages after the configuration; ends when the client will send no more.

        Raises:
            MaskletError: The session cannot go on.
            asyncio.CancelledError: The task was cancelled; as with any other end, nothing is held any longer.
        """
        try:
            self._begin(self._idle.expire(), "watch")
            await self._until_done(self._begin(self._send(self._opened()), "open"))
            self._begin(self._receive(incoming), "receive")
            await self._until_done(self._begin(self._track(), "track"))
        except BaseException:
            if not self._machine.is_over:
                self._machine.step(Step.FAILURE)
            raise
        finally:
            # Shielded: a second cancellation must not leave a decoder behind.
            await asyncio.shield(asyncio.create_task(self._free(self._tasks)))

    def _begin(self, coroutine: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=f"{name} {self.id}")
        task.add_done_callback(lambda _: self._task_ended.set())
        self._tasks.append(task)
        return task

    async def _until_done(self, main: asyncio.Task[None]) -> None:
        """Wait for `main` to end or any other task to fail, also one that is begun meanwhile; raise what it raised."""
        # What is raised refers to this frame: unless the frame lets go of the task that holds it, both wait for the
        # garbage collector, and memory banks with them.
        try:
            while not main.done():
                self._task_ended.clear()
                for task in [task for task in self._tasks if task.done()]:
                    try:
                        task.result()
                    finally:
                        del task
                await self._task_ended.wait()
            main.result()
        finally:
            del main

    def _opened(self) -> replies.Opened:
        return replies.Opened(
            session_id=self.id,
            model=self.model,
            window=self._credits.window,
            max_objects=self._limits.max_objects,
            idle_timeout_seconds=self._idle_timeout_seconds,
        )

    @property
    def _idle_timeout_seconds(self) -> float:
        """What holds once the video has ended."""
        if self._annotator is None:
            return self._limits.idle_timeout_seconds
        return self._limits.annotation_idle_timeout_seconds

    async def _free(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._video.close()
        finally:
            await self._engine.forget(self.id)
            self._tracker.clear()
            if self._annotator is not None:
                self._annotator.close()
            # What a task raised refers to the session and to memory banks; none of it may wait for a collection.
            self._tasks.clear()

    async def _send(self, response: Response) -> None:
        with self._idle.waiting("the client to read its responses"):
            async with self._writing:  # results and errors come from two tasks
                if self._latest:
                    # Video goes on arriving, and looks like progress.
                    await self._idle.patiently(self._write(response), "the client to read its responses")
                else:
                    await self._write(response)
        self._idle.touch()

    # Receiving

    async def _receive(self, incoming: AsyncIterator[Event]) -> None:
        async for event in incoming:
            self._idle.touch()
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
                case _:
                    await self._on_mendable(event)
        self._credits.close()
        if self.state in (State.CONFIGURED, State.RECEIVING, State.TRACKING) and not self._video.is_fetching:
            raise Cancelled("the client went away before end_of_video")
        if self._annotator is not None:
            self._annotator.finish()

    async def _on_video_complete(self) -> None:
        self._idle.extend(self._idle_timeout_seconds)
        await self._let_decoder_go()

    async def _on_mendable(self, event: Event) -> None:
        """Take a message whose faults harm nothing but itself: they are answered and the stream goes on."""
        try:
            match event:
                case events.Ack():
                    self._machine.step(Step.ACK)
                    self._credits.ack(event.sequence)
                case _ if self._annotator is not None:
                    self._on_request(self._annotator, event)
                case events.PromptObject() | events.RemoveObject() | events.ClearPrompts():
                    self._machine.step(_STEPS[type(event)])
                    await self._prompting.take(event)
                case events.Propagate() | events.StopPropagation() | events.Reset():
                    name = _STEPS[type(event)].value
                    raise FailedPrecondition(f"{name} needs config.propagation = PROPAGATION_ON_REQUEST")
                case events.Unreadable():
                    raise event.error
        except MaskletError as error:
            number = event.request_id if isinstance(event, events.Numbered) else 0
            await self._send(replies.answering(number, replies.Problem(error)))

    def _on_request(self, annotator: Annotator, event: Event) -> None:
        if type(event) in _STEPS:
            self._machine.step(_STEPS[type(event)])
        match event:
            case events.StopPropagation():
                annotator.stop()
            case (
                events.PromptObject()
                | events.RemoveObject()
                | events.ClearPrompts()
                | events.Propagate()
                | events.Reset()
                | events.Unreadable()
            ):
                annotator.ask(event)

    # Tracking

    async def _track(self) -> None:
        video = await self._video.opened
        source = video.source
        if isinstance(video, PacketVideo):
            self._begin(self._tell_progress(video.source), "progress")
        with self._idle.waiting("the video's first frame"):
            info = await source.info()
        self._machine.step(Step.FIRST_FRAME)
        misfits = self._book.fit(info.height, info.width)
        await self._send(replies.Described(info))
        await self._report(misfits)
        if self._annotator is None:
            frame_count = await self._follow(video)
        else:
            decoding = self._begin(self._store(source, info), "decode")
            await self._annotator.run()
            await decoding
            frame_count = len(self._stored)
        await self._send(replies.Done(frame_count))
        self._machine.step(Step.LAST_RESULT)

    async def _store(self, source: FrameSource, info: VideoInfo) -> None:
        """Keep all frames, to be tracked in any order."""
        with self._idle.waiting("the next frame of the video, or end_of_video"):
            while (frame := await source.next_frame()) is not None:
                self._idle.touch()
                await self._stored.add(frame)
        self._stored.end()
        await self._let_decoder_go()
        await self._send(replies.Described(dataclasses.replace(info, frame_count=len(self._stored))))

    async def _let_decoder_go(self) -> None:
        """An annotator's session lasts long after all frames are kept and there is nothing more to be fed."""
        if self._video.is_complete and self._stored.is_complete:
            await self._video.close()

    async def _follow(self, video: Video) -> int:
        """Track all frames as they arrive; how many there were."""
        frames = self._feed(video)
        clip = video.source if isinstance(video, FileVideo) and not self._config.live else None
        async with frames.running():
            await self._tracker.run(frames, clip)
        await self._report(self._book.close(frames.frame_count))
        if frames.broken_promise():
            await self._report([_wrong_count(self._config.frame_count, frames.taken)])
        return frames.taken

    async def _tell_progress(self, source: PacketSource) -> None:
        while True:
            await self._send(replies.PacketsTaken(await source.packets_taken()))

    def _feed(self, video: Video) -> FrameFeed:
        if isinstance(video, LatestPictureVideo):
            return PacedFeed(video.source, self._idle, max_latency_seconds=self._max_latency)
        if self._latest:
            return LatestFeed(video.source, self._idle, max_latency_seconds=self._max_latency)
        return FrameFeed(
            video.source,
            self._idle,
            frame_count=self._config.frame_count,
            live=self._config.live or isinstance(video, PacketVideo),
            is_file=isinstance(video, FileVideo),
            most_ahead=self._credits.window if isinstance(video, PictureVideo) else 0,
            look_ahead=max(1, self._engine.models[self.model].encode_ahead - 1),
        )

    async def _report(self, errors: Sequence[MaskletError]) -> None:
        for error in errors:
            await self._send(replies.Problem(error))


def _wrong_count(promised: int, actual: int) -> InvalidArgument:
    return InvalidArgument.of(
        "config.frame_count",
        f"said {promised}, but the video had {actual} frames; masks may differ a little from those that the right "
        "number gives",
    )
