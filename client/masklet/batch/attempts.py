"""One attempt to do a clip: track it, write its results, and say in the ledger what became of it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from masklet._sync.planned import PlannedTracking, annotate_options
from masklet.batch.clips import Clip, plan_of
from masklet.batch.events import BatchEvent, BatchSettings, EventKind, Tally
from masklet.batch.identity import Fingerprint, work_digest
from masklet.batch.ledger import Entry, Ledger
from masklet.batch.results import Layout
from masklet.batch.retrying import ServerGate, code_of, error_text, verdict
from masklet.batch.schedule import Job
from masklet.errors import Aborted, InvalidArgument, MaskletError, Unavailable
from masklet.importing.prompts import PromptFile
from masklet.recording import Recording

if TYPE_CHECKING:
    from masklet._sync.client import Client
    from masklet._sync.tracking import Tracking

_OF_RESULTS = ("model", "deterministic", "edges", "memory_policy")


class Call(Protocol):
    """A call that another thread may end."""

    def cancel(self) -> None:
        """End the call, from any thread."""


class Calls:
    """The running calls of a batch, which are cancelled together.

    Attributes:
        stopped: Set when the batch is to end.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._running: list[Call] = []

    def stop(self) -> None:
        """Cancel all calls, and those that begin from now on."""
        with self._lock:
            self.stopped.set()
            running = list(self._running)
        for call in running:
            call.cancel()

    @contextlib.contextmanager
    def held(self, call: Call) -> Iterator[None]:
        """Within it, the call is one of those that are cancelled."""
        with self._lock:
            self._running.append(call)
            stopped = self.stopped.is_set()
        try:
            if stopped:
                call.cancel()
            yield
        finally:
            with self._lock:
                self._running.remove(call)


@dataclass
class _Attempt:
    """What is known so far of the clip that is being done."""

    job: Job
    begun: float
    input: Fingerprint | None = None
    work: str = ""
    again: str = ""

    @property
    def clip(self) -> Clip:
        return self.job.clip

    def entry(self, **values: Any) -> Entry:
        found = Entry(
            clip=self.clip.name, attempt=self.job.attempt, seconds=round(time.monotonic() - self.begun, 3), **values
        )
        return replace(found, input=self.input, work=self.work)


class Attempts:
    """Does clips, for several threads.

    Args:
        client: The client of the server.
        places: Where results are written, and the ledger.
        settings: How it is done.
        calls: The calls that a stop cancels.
        tally: Knows when a clip came to its end last.
    """

    def __init__(
        self, client: Client, places: tuple[Layout, Ledger], settings: BatchSettings, calls: Calls, tally: Tally
    ) -> None:
        self._client = client
        self._layout, self._ledger = places
        self._settings = settings
        self._calls = calls
        self._tally = tally
        self._options = {name: value for name, value in settings.options.items() if name in _OF_RESULTS}

    def do(self, job: Job, gate: ServerGate) -> BatchEvent:
        """Do a clip, unless that is done already; what became of it.

        Args:
            job: The clip.
            gate: Closed where the server was not there.

        Raises:
            MaskletError: Something that every clip would meet.
            OSError: The disk is full, or the ledger cannot be written.
        """
        attempt = _Attempt(job, time.monotonic())
        try:
            prompts = job.clip.read_prompts()
            attempt.work = work_digest(job.clip, prompts, self._options)
            known = self._done_before(attempt)
            if known is not None:
                return known
            job.attempt += 1
            if not prompts.prompts:
                self._layout.remove(job.clip.name, job.number)
                return self._end(attempt, "empty", attempt.entry(state="empty"))
            return self._track_and_write(attempt, prompts)
        except (MaskletError, OSError) as error:
            return self._failed(attempt, error, gate)

    def _done_before(self, attempt: _Attempt) -> BatchEvent | None:
        """What the ledger says, if that is still true; None where the clip is to be done."""
        clip, entry = attempt.clip, self._ledger.last(attempt.clip.name)
        if entry is None or entry.state not in ("done", "empty", "poisoned"):
            return None
        if entry.work != attempt.work:
            attempt.again = "its prompts, range or options have changed"
        elif entry.state == "empty":
            return BatchEvent("already-done", clip, entry)
        elif entry.input is None:
            return None  # the video could not be read
        elif not entry.input.is_of(clip.video):
            attempt.again = "its video has changed"
        elif entry.state == "poisoned":
            if attempt.job.attempt == 0 and not self._settings.retry_poisoned:
                return BatchEvent("already-poisoned", clip, entry)
        elif self._layout.about(clip.name) is None:
            attempt.again = "its results are gone"
        elif not set(self._layout.outputs) <= set(entry.outputs):
            attempt.again = "more is to be written"
        else:
            return BatchEvent("already-done", clip, entry)
        return None

    def _track_and_write(self, attempt: _Attempt, prompts: PromptFile) -> BatchEvent:
        clip = attempt.clip
        attempt.input = Fingerprint.of(clip.video)
        earlier = self._earlier_results(attempt)
        if earlier is not None and set(self._layout.outputs) <= set(earlier.outputs):
            # The run before died after it had put the results in their place, and before it could say so.
            entry = replace(earlier, input=attempt.input, time=attempt.entry(state="done").time)
            return self._end(attempt, "done", entry)
        self._ledger.add(Entry(clip.name, "started", attempt.job.attempt))
        recording = None if earlier is None else self._layout.load(earlier)
        if recording is None:
            recording = self._tracked(clip, prompts)
            if not attempt.input.is_of(clip.video):
                raise Aborted(f"{clip.video} has changed while it was tracked")
        entry = attempt.entry(
            state="done", outputs=self._layout.outputs, frames=len(recording), objects=len(recording.objects)
        )
        self._layout.publish(recording, entry, attempt.job.number)
        return self._end(attempt, "done", entry)

    def _earlier_results(self, attempt: _Attempt) -> Entry | None:
        about = self._layout.about(attempt.clip.name)
        if about is None or about.input is None or attempt.input is None or about.work != attempt.work:
            return None
        return about if about.input.sha256 == attempt.input.sha256 else None

    def _tracked(self, clip: Clip, prompts: PromptFile) -> Recording:
        recording = Recording(source=os.path.abspath(clip.video))  # noqa: PTH100 - links stay as they are
        for entry in prompts.objects.values():
            recording.name(entry.object_id, entry.name or None, entry.class_name or None)
        with self._call(clip, prompts) as call, self._calls.held(call):
            for frame in call:
                recording.add(frame)
            recording.video = call.video
        return recording

    def _call(self, clip: Clip, prompts: PromptFile) -> Tracking | PlannedTracking:
        options, plan = self._settings.options, plan_of(clip)
        if plan.is_plain:
            return self._client.track(clip.video, prompts.prompts, **options)
        if options.get("memory_policy", "sam2") != "sam2":
            raise InvalidArgument.of("memory_policy", "must be sam2 for a clip with a range or a direction")
        return PlannedTracking(self._client, str(clip.video), prompts.prompts, plan, annotate_options(options))

    def _end(self, attempt: _Attempt, kind: EventKind, entry: Entry, retry_seconds: float = 0.0) -> BatchEvent:
        self._ledger.add(entry)
        return BatchEvent(kind, attempt.clip, entry, attempt.again, retry_seconds)

    def _failed(self, attempt: _Attempt, error: MaskletError | OSError, gate: ServerGate) -> BatchEvent:
        """What becomes of a clip after an error.

        Raises:
            MaskletError: Every clip would meet it.
            OSError: The disk is full.
        """
        what, job = verdict(error), attempt.job
        told = {"code": code_of(error), "error": error_text(error)}
        if not attempt.work:  # no prompts
            earlier = self._ledger.last(attempt.clip.name)
            if earlier is not None and (earlier.state, earlier.error) == ("poisoned", told["error"]):
                return BatchEvent("already-poisoned", attempt.clip, earlier)
            job.attempt += 1
        if what == "fatal":
            if isinstance(error, OSError):  # of a write, perhaps to a temporary file: say where
                raise OSError(error.errno, error.strerror, str(self._layout.folder)) from error
            raise error
        if self._calls.stopped.is_set():
            return self._end(attempt, "interrupted", Entry(attempt.clip.name, "interrupted", job.attempt))
        if isinstance(error, Unavailable):
            gate.close()
        patience = self._settings.patience
        at_least = (error.retry_after_seconds or 0.0) if isinstance(error, MaskletError) else 0.0
        pause = patience.pause(max(1, job.attempt), at_least)
        is_busy = what == "busy" and self._tally.seconds_without_progress < patience.wait_seconds
        if is_busy or (what != "poison" and job.attempt <= patience.retries):
            entry = attempt.entry(state="retry", **told)
            job.attempt -= is_busy
            return self._end(attempt, "retry", entry, pause)
        return self._end(attempt, "poisoned", attempt.entry(state="poisoned", **told))
