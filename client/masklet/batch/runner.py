"""A batch: thousands of clips, each done once, whatever happens in between."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from masklet.batch.attempts import Attempts, Calls
from masklet.batch.clips import Clip, check_names
from masklet.batch.events import BatchEvent, BatchSettings, BatchSummary, Tally
from masklet.batch.ledger import Ledger
from masklet.batch.lock import locked, suffix_of
from masklet.batch.results import Exported, Layout
from masklet.batch.retrying import ServerGate
from masklet.batch.schedule import Schedule
from masklet.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from masklet._sync.client import Client

OnEvent = Callable[[BatchEvent], None]
"""Called with what becomes of each clip."""


class Batch:
    """Tracks objects through many clips. A run that was stopped or has died goes on in the next one.

        clips = masklet.batch.find_clips(["videos"])
        batch = masklet.Batch(clips, "results", masklet.batch.BatchSettings(exports=["coco"]))
        with masklet.Client() as client:
            summary = batch.run(client, on_event=lambda event: print(event.kind, event.clip.name))

    Args:
        clips: The clips, as `find_clips` and `read_manifest` give them.
        folder: Where results and the ledger are written; made if it does not exist.
        settings: How it is done.

    Raises:
        InvalidArgument: Two clips have one name, or a setting is wrong.
    """

    def __init__(
        self, clips: Iterable[Clip], folder: str | os.PathLike[str], settings: BatchSettings | None = None
    ) -> None:
        self._settings = settings or BatchSettings()
        everything = list(clips)
        check_names(everything)
        shard = self._settings.shard
        self.clips = [clip for clip in everything if shard is None or shard.holds(clip.name)]
        if self._settings.jobs < 1:
            raise InvalidArgument.of("jobs", f"are {self._settings.jobs}, must be 1 or more")
        exports = tuple(Exported.parse(word) for word in self._settings.exports)
        self._layout = Layout(Path(folder), self._settings.results, exports, suffix_of(shard))
        self._calls = Calls()
        self._tally = Tally(len(self.clips))
        self._schedule = Schedule(self.clips)
        self._telling = threading.Lock()
        self._has_run = False
        self._failure: BaseException | None = None

    @property
    def summary(self) -> BatchSummary:
        """How it stands now; from any thread."""
        return self._tally.summary(is_stopped=self._calls.stopped.is_set())

    def stop(self) -> None:
        """End the run in order, from any thread: no clip begins, calls are cancelled, whole results are written."""
        self._schedule.stop()
        self._calls.stop()

    def run(self, client: Client, on_event: OnEvent | None = None) -> BatchSummary:
        """Do every clip that is not done yet. A batch runs once; make another one for another run.

        Args:
            client: A client of the server, or of a gateway.
            on_event: Called with what becomes of each clip, from one thread at a time.

        Returns:
            How the batch stands in the end.

        Raises:
            FailedPrecondition: Another run works in the folder, or this batch has run already.
            NotFound: The server has no such model.
            MaskletError: Something is wrong that every clip would meet, such as a token that is not valid, or the
                server did not come back in time. What is done stays done.
            OSError: The folder cannot be written to, or the disk is full.
        """
        if self._has_run:
            raise FailedPrecondition("the batch has run; make another one, which does what is left")
        self._has_run = True
        jobs = self._checked_jobs(client)
        self._layout.folder.mkdir(parents=True, exist_ok=True)
        with locked(self._layout.folder, self._settings.shard):
            self._layout.prepare()
            with Ledger(self._layout.ledger, self._layout.other_ledgers()) as ledger:
                gate = ServerGate(client, self._settings.patience, self._calls.stopped)
                attempts = Attempts(client, (self._layout, ledger), self._settings, self._calls, self._tally)
                workers = [
                    threading.Thread(target=self._work, args=(attempts, gate, on_event), name=f"masklet-batch-{number}",
                                     daemon=True)
                    for number in range(jobs)
                ]  # fmt: skip
                for worker in workers:
                    worker.start()
                try:
                    _join(workers)
                except BaseException:  # Ctrl-C: they end in order first, and the folder stays locked until then
                    self.stop()
                    _join(workers)
                    raise
            self._layout.write_poison_list(self.summary.failed)
            self._layout.clean()
        if self._failure is not None:
            raise self._failure
        return self.summary

    def _work(self, attempts: Attempts, gate: ServerGate, on_event: OnEvent | None) -> None:
        """What each thread does: one clip after the other."""
        while (job := self._schedule.take()) is not None:
            again_after = None
            try:
                gate.wait()
                event = attempts.do(job, gate)
                if event.kind == "retry":
                    again_after = event.retry_seconds
                with self._telling:
                    self._tally.add(event)
                    if on_event is not None:
                        on_event(event)
            except BaseException as error:  # noqa: BLE001 - `run` raises it
                with self._telling:
                    self._failure = self._failure or error
                self.stop()
            finally:
                self._schedule.ended(job, again_after)

    def _checked_jobs(self, client: Client) -> int:
        info = client.info()
        model = self._settings.options.get("model")
        if model and model not in {known.name for known in info.models}:
            raise NotFound(
                f"the server has no model {model!r}; it has {', '.join(known.name for known in info.models)}"
            )
        most = min((n for n in (info.limits.max_sessions_per_client, info.limits.max_sessions) if n), default=None)
        return self._settings.jobs if most is None else min(self._settings.jobs, most)


def _join(workers: Iterable[threading.Thread]) -> None:
    for worker in workers:
        worker.join()
