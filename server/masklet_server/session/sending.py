"""Sends responses and results to the client, for both modes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from masklet.errors import InvalidArgument, MaskletError
from masklet_server.engine.serving.jobs import FrameOutput, ObjectOutput
from masklet_server.session.context import SessionContext
from masklet_server.session.credits import UNREAD_SECONDS, Credits, ResultsWait
from masklet_server.session.idle import IdleWatch
from masklet_server.session.jobs import TrackedFrame
from masklet_server.session.replies import (
    FrameResult,
    ObjectEvent,
    ObjectResult,
    Problem,
    PromptResult,
    Response,
    Send,
    Taken,
    Timings,
    answering,
)
from masklet_server.video.frame import Frame

# After so many seconds without an acknowledgement, a client is told that it must send one.
REMIND_SECONDS = 5.0
# Answers to messages with a fault that wait until the client reads.
_MAX_PROBLEMS = 1000


class ResponseWriter:
    """Writes a session's responses one after the other, and tells the idle watch.

    Args:
        write: Takes each response, in order; waits while the client can't take more.
        idle: Knows that the client is waited for.
        results_wait: Is told when the client does not read.
        latest: The video goes on arriving whether or not the client reads, so arriving frames are no sign that it does.
    """

    def __init__(self, write: Send, idle: IdleWatch, results_wait: ResultsWait, *, latest: bool) -> None:
        self._write = write
        self._idle = idle
        self._results_wait = results_wait
        self._latest = latest
        self._writing = asyncio.Lock()

    async def send(self, response: Response) -> None:
        """Send a response.

        Raises:
            DeadlineExceeded: The client has not read for too long.
        """
        waits = "the client to read its responses"
        with self._idle.waiting(waits):
            async with self._writing:  # several tasks send
                with self._results_wait.for_reading():
                    if self._latest:
                        await self._idle.wait_for_client(self._write(response), waits)
                    else:
                        await self._write(response)
        self._idle.touch()


class ProblemReporter:
    """Answers messages that have a fault, without keeping the session from reading the messages behind them.

    Args:
        send: Sends a response.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: asyncio.Queue[Response] = asyncio.Queue(_MAX_PROBLEMS)
        self._unsent = 0

    @property
    def is_flushed(self) -> bool:
        """Whether all answers are sent."""
        return self._unsent == 0

    async def report(self, response: Response) -> None:
        """Let `run` send an answer. Waits only if very many answers wait, because the client does not read them."""
        self._unsent += 1
        try:
            await self._waiting.put(response)
        except BaseException:
            self._unsent -= 1
            raise

    async def flush(self) -> None:
        """Wait until all answers are sent."""
        await self._waiting.join()

    async def flush_before_failure(self) -> None:
        """Wait until all answers are sent, but not for a client that does not read."""
        flushing = asyncio.create_task(self._waiting.join())
        try:
            await asyncio.wait({flushing}, timeout=UNREAD_SECONDS)
        finally:  # also when the client goes away meanwhile
            flushing.cancel()

    async def run(self) -> None:
        """Send the answers; a task of its own."""
        while True:
            response = await self._waiting.get()
            await self._send(response)
            self._unsent -= 1
            self._waiting.task_done()


class AckReminder:
    """Tells a client that waits for results, but never acknowledges any, what the results wait for.

    Args:
        session_credits: The session's.
        reporter: Sends the reminder.
        last_heard: When the client sent its last message, by `time.monotonic`. One that still sends its video may mean
            to read the results afterwards.
    """

    def __init__(self, session_credits: Credits, reporter: ProblemReporter, last_heard: Callable[[], float]) -> None:
        self._credits = session_credits
        self._reporter = reporter
        self._last_heard = last_heard

    async def run(self) -> None:
        """Remind the client once; a task of its own."""
        waits = self._credits.results_wait
        while True:
            await waits.begun_for_ack()
            if self._credits.has_heard:
                return
            since = max(waits.for_ack_since or time.monotonic(), self._last_heard())
            patience = since + REMIND_SECONDS - time.monotonic()
            if patience <= 0:
                break
            await asyncio.sleep(patience)
        error = InvalidArgument.of(
            "ack",
            f"is missing: the window of {self._credits.window} frame results is full, and the client has acknowledged "
            f"none of them for {REMIND_SECONDS:g} s; send ack with the sequence of the last response that was taken, "
            "or half-close after end_of_video",
        )
        await self._reporter.report(Problem(error))


@dataclass(frozen=True, eq=False)
class FoundObject:
    """What the engine found of one object on a frame.

    Attributes:
        object_id: The client's.
        output: The mask and its scores.
        observe: Takes the object's result, and tells what happened to the object; None where the result tells nothing
            new.
        taken: When the session has taken the prompt that found the object; None if the session is not resumable.
    """

    object_id: int
    output: ObjectOutput
    observe: Callable[[ObjectResult, Frame], ObjectEvent | None] | None = None
    taken: Taken | None = None


@dataclass(frozen=True, eq=False)
class FrameOutcome:
    """What is to be sent of a frame.

    Attributes:
        frame: The frame.
        prompted: What each prompt gave, in order.
        objects: The tracked objects, in order of their ids.
        answers: All answers of the engine for this frame.
        revision: How often the frame was sent before.
    """

    frame: TrackedFrame
    prompted: Sequence[FoundObject] = ()
    objects: Sequence[FoundObject] = ()
    answers: Sequence[FrameOutput] = ()
    revision: int = 0


class ResultSender:
    """Encodes the masks of results, and sends them.

    Args:
        context: The session's.
        send: Sends a response; None: the context's.
    """

    def __init__(self, context: SessionContext, send: Send | None = None) -> None:
        self._pool = context.pool
        self._idle = context.idle
        self._credits = context.credits
        self._config = context.options.config
        self._send = context.send if send is None else send
        self._send_seconds = 0.0

    async def send_prompt(self, frame_index: int, found: FoundObject) -> None:
        """Send what a prompt gave."""
        await self._send_prompt(frame_index, await self._object_result(found), found.taken)

    async def send_frame(self, outcome: FrameOutcome) -> None:
        """Send what the prompts on a frame gave, then the frame's result. A credit was taken for it before."""
        frame, start = outcome.frame.frame, time.perf_counter()
        with self._idle.busy():
            results = await asyncio.gather(*map(self._object_result, (*outcome.prompted, *outcome.objects)))
        mask_seconds = time.perf_counter() - start
        prompted, objects = results[: len(outcome.prompted)], results[len(outcome.prompted) :]
        for result, found in zip(prompted, outcome.prompted, strict=True):
            await self._send_prompt(frame.index, result, found.taken)
        objects = [_observed(one, found, frame) for one, found in zip(objects, outcome.objects, strict=True)]
        times = self._timings(outcome, mask_seconds)
        start = time.perf_counter()
        await self._send(
            FrameResult(
                sequence=self._credits.number_frame(),
                frame_index=frame.index,
                pts=frame.pts,
                time_base=frame.time_base,
                pts_nanoseconds=frame.pts_nanoseconds,
                objects=tuple(objects),
                skipped=() if outcome.revision else outcome.frame.skipped,
                capture_time_nanoseconds=frame.capture_time_nanoseconds,
                latency_seconds=time.monotonic() - frame.arrived_seconds,
                revision=outcome.revision,
                timings=times if self._config.timings else None,
                undecoded=() if outcome.revision else frame.undecoded_nanoseconds,
            )
        )
        self._send_seconds = time.perf_counter() - start

    async def _send_prompt(self, frame_index: int, result: ObjectResult, taken: Taken | None) -> None:
        answer = PromptResult(self._credits.number_prompt(), frame_index, result, taken)
        await self._send(answering(0 if taken is None else taken.request_id, answer))

    async def _object_result(self, found: FoundObject) -> ObjectResult:
        output = found.output
        prepared = await self._pool.prepare(output.shape, self._config.mask_encoding)
        return ObjectResult(
            object_id=found.object_id,
            mask=prepared.encoded,
            box=prepared.box,
            area=prepared.area,
            predicted_iou=output.predicted_iou,
            object_score=output.object_score,
            logits=output.logits,
        )

    def _timings(self, outcome: FrameOutcome, mask_seconds: float) -> Timings:
        return Timings(
            decode=outcome.frame.frame.decode_seconds,
            queue=sum(answer.queue_seconds for answer in outcome.answers),
            encode=sum(answer.encode_seconds for answer in outcome.answers),
            step=sum(answer.step_seconds for answer in outcome.answers),
            mask=mask_seconds,
            send=self._send_seconds,
        )


def _observed(result: ObjectResult, found: FoundObject, frame: Frame) -> ObjectResult:
    """The result, with what happened to the object."""
    return result if found.observe is None else replace(result, event=found.observe(result, frame))


class BackgroundSender:
    """Sends one result while the next one is made: an asynchronous context manager whose end waits for the last one.

    After a `MaskletError` inside the block, the result made before it is still sent. After any other exception, such as
    a cancellation, it is not.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> BackgroundSender:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        if kind is None or issubclass(kind, MaskletError):
            await self._task
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def flush(self) -> None:
        """Wait until the last result is sent. Raises what sending it raised."""
        if self._task is not None:
            await self._task

    async def send(self, sending: Coroutine[None, None, None]) -> None:
        """Wait until the result before is sent, and begin to send this one.

        Raises:
            Exception: Sending the result before has failed. This one is not sent then.
        """
        try:
            if self._task is not None:
                await self._task
        except BaseException:
            sending.close()
            raise
        self._task = asyncio.create_task(sending)
