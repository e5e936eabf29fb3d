"""The thread that owns the device: it takes batches of jobs from a fair queue and answers the callers that wait."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch

from masklet.errors import Unavailable
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.batch import EngineObserver, run_jobs, run_picture
from masklet_server.engine.serving.fair_queue import Entry, FairQueue
from masklet_server.engine.serving.image_predictor import PictureCache
from masklet_server.engine.serving.jobs import FrameOutput, TrackingJob
from masklet_server.engine.serving.out_of_memory import as_answer, is_out_of_memory
from masklet_server.engine.serving.picture_jobs import PictureJob, PictureOutput

logger = logging.getLogger(__name__)

# Objects of all jobs in one batch: a larger batch is no more efficient, and its first object waits longer.
MAX_BATCH_OBJECTS = 32

J = TypeVar("J", TrackingJob, PictureJob)
R = TypeVar("R", FrameOutput, PictureOutput)


@dataclass(frozen=True, eq=False)
class _Ticket(Generic[J, R]):
    """A job with the future that its answer is set on."""

    job: J
    future: Future[R] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.perf_counter)


_AnyTicket = _Ticket[TrackingJob, FrameOutput] | _Ticket[PictureJob, PictureOutput]


class Scheduler:
    """Runs jobs on one thread, in batches. Streams take turns.

    Jobs of different streams that wait at the same time share a batch, if they use the same model.

    Args:
        networks: By name; all on one device.
        pictures: Cache for the features of pictures.
        observer: Gets numbers and durations of batches.

    Attributes:
        broken: Done when the thread has ended because of a failure outside all jobs; no job is answered after that.
    """

    def __init__(
        self, networks: Mapping[str, Network], pictures: PictureCache, observer: EngineObserver | None = None
    ) -> None:
        self.broken: Future[None] = Future()
        self._networks = networks
        self._pictures = pictures
        self._observer = observer
        self._queue: FairQueue[_AnyTicket] = FairQueue(MAX_BATCH_OBJECTS)
        self._why_closed = "the server is shutting down; connect to another server, or try again later"
        self._thread = threading.Thread(target=self._run, name="masklet-engine", daemon=True)

    def start(self) -> None:
        """Start the thread that runs jobs."""
        self._thread.start()

    async def close(self) -> None:
        """Finish the batch under way and refuse all waiting jobs."""
        self._refuse()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    async def run(self, job: TrackingJob) -> FrameOutput:
        """Wait for the answer to a job; for what is raised see `Engine.run`."""
        stream = job.stream
        ticket: _Ticket[TrackingJob, FrameOutput] = _Ticket(job)
        kind = None if stream.deterministic else ("frame", stream.model)
        self._put(Entry(ticket, stream.id, kind, weight=max(1, len(job.memories))))
        try:
            return await asyncio.wrap_future(ticket.future)
        except asyncio.CancelledError:
            # Left in the queue, it would take the turn of the stream's next job.
            self._queue.drop(lambda entry: entry.job is ticket)
            raise

    async def segment(self, job: PictureJob) -> PictureOutput:
        """Wait for the answer to a job; for what is raised see `Engine.segment`."""
        ticket: _Ticket[PictureJob, PictureOutput] = _Ticket(job)
        self._put(Entry(ticket, job.stream, kind=None))
        return await asyncio.wrap_future(ticket.future)

    def forget(self, stream: str) -> None:
        """Cancel the stream's waiting jobs; a job that is running goes on to its end."""
        for ticket in self._queue.drop(lambda entry: entry.stream == stream):
            ticket.future.cancel()

    def _put(self, entry: Entry[_AnyTicket]) -> None:
        try:
            self._queue.put(entry)
        except RuntimeError as error:
            raise Unavailable(self._why_closed) from error

    def _refuse(self, under_way: Sequence[_AnyTicket] = ()) -> None:
        """Close the queue, and refuse the jobs that wait and those under way that have no answer yet."""
        unanswered = [ticket for ticket in under_way if ticket.future.running()]
        waiting = [t for t in self._queue.close() if t.future.set_running_or_notify_cancel()]
        for ticket in (*unanswered, *waiting):
            ticket.future.set_exception(Unavailable(self._why_closed))

    def _run(self) -> None:
        """Run batches until the queue is closed. No name here may refer to a batch, which would stay in memory."""
        # CPUs are slow with numbers too small for the normal form, and such numbers do not change a mask. This applies
        # to the engine's thread and to the threads that it starts.
        torch.set_flush_denormal(True)
        for network in self._networks.values():
            if network.device.type == "cuda":
                torch.cuda.set_device(network.device)  # streams and graphs are made on the thread's device
        while self._run_batch(self._queue.take()):
            pass

    def _run_batch(self, batch: Sequence[_AnyTicket]) -> bool:
        """Answer a batch; False if it is empty, which means that the queue is closed."""
        wanted = [ticket for ticket in batch if ticket.future.set_running_or_notify_cancel()]
        try:
            self._answer_batch(wanted)
        except BaseException:
            # A job's own failure never comes here. After any other failure, no caller may wait without end.
            self._why_closed = "the engine of this server has failed; the server must be started again"
            self._refuse(wanted)
            if self.broken.set_running_or_notify_cancel():
                self.broken.set_result(None)
            raise
        return bool(batch)

    def _answer_batch(self, wanted: Sequence[_AnyTicket]) -> None:
        start = time.perf_counter()
        if self._observer is not None:
            for ticket in wanted:
                self._observer.on_queue(start - ticket.queued_at)
        if tracking := [ticket for ticket in wanted if isinstance(ticket.job, TrackingJob)]:
            self._answer_tracking(tracking, start)
        for ticket in wanted:
            if isinstance(ticket.job, PictureJob):
                self._answer(ticket, lambda job=ticket.job: self._segment(job))  # type: ignore[misc]

    def _answer_tracking(self, tickets: Sequence[_Ticket[TrackingJob, FrameOutput]], start: float) -> None:
        """Run all jobs as one batch; if that fails, run each alone, so that only the jobs at fault fail."""
        network = self._networks[tickets[0].job.stream.model]

        def run(some: Sequence[_Ticket[TrackingJob, FrameOutput]]) -> list[FrameOutput]:
            outputs = run_jobs(network, [ticket.job for ticket in some], self._observer)
            return [replace(o, queue_seconds=start - t.queued_at) for t, o in zip(some, outputs, strict=True)]

        if len(tickets) > 1:
            try:
                outputs = run(tickets)
            except Exception as error:  # noqa: BLE001 - each job gets its own answer below
                logger.warning("a batch of %d streams failed (%s); running them one by one", len(tickets), error)
                self._free_device_memory(error)
            else:
                for ticket, output in zip(tickets, outputs, strict=True):
                    ticket.future.set_result(output)
                return
        for ticket in tickets:
            self._answer(ticket, lambda ticket=ticket: run([ticket])[0])  # type: ignore[misc]

    def _segment(self, job: PictureJob) -> PictureOutput:
        return run_picture(self._networks[job.model], job, self._pictures, self._observer)

    def _answer(self, ticket: _Ticket[J, R], compute: Callable[[], R]) -> None:
        """Run one job. A failure is given to the caller who waits, and never ends this thread."""
        try:
            output = compute()
        except Exception as error:  # noqa: BLE001 - the caller gets it
            ticket.future.set_exception(as_answer(error))
            self._free_device_memory(error)
        else:
            ticket.future.set_result(output)

    def _free_device_memory(self, error: Exception) -> None:
        """Free what the failed job held, and recorded graphs, so that the next job has room."""
        if not is_out_of_memory(error):
            return
        for network in self._networks.values():
            network.forget_recordings()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
