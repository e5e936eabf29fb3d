"""What a batch tells while it runs, how it stands, and how it is done."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from masklet._protocol.options import TrackOptions
from masklet.batch.clips import Clip, Shard
from masklet.batch.ledger import Entry
from masklet.batch.retrying import Patience

EventKind = Literal["done", "empty", "already-done", "retry", "poisoned", "already-poisoned", "interrupted"]
"""What became of a clip.

"done": its results are written. "empty": a detector found nothing in it. "already-done": an earlier run did it.
"retry": it failed, and is tried again. "poisoned": it failed for good. "already-poisoned": it did so in an earlier run.
"interrupted": it was stopped, and is done in the next run.
"""


@dataclass(frozen=True)
class BatchEvent:
    """What became of a clip.

    Attributes:
        kind: What happened.
        clip: Which clip.
        entry: What the ledger says of it.
        again: Why a clip that was done before was done again; empty where it was not.
        retry_seconds: In how many seconds it is tried again, of a "retry".
    """

    kind: EventKind
    clip: Clip
    entry: Entry
    again: str = ""
    retry_seconds: float = 0.0


@dataclass(frozen=True)
class BatchSummary:
    """How a batch, or one shard of it, stands.

    Attributes:
        clips: How many there are.
        done: How many have results; those of earlier runs, and those without an object, are counted.
        done_before: How many of these were done by earlier runs.
        poisoned: How many failed.
        frames: Frames with results that this run has made.
        seconds: Since the run began.
        is_stopped: Whether the run was stopped before its end.
        failed: The clips that failed, each with its error.
    """

    clips: int
    done: int
    done_before: int
    poisoned: int
    frames: int
    seconds: float
    is_stopped: bool = False
    failed: tuple[Entry, ...] = ()

    @property
    def left(self) -> int:
        """How many clips are neither done nor failed."""
        return self.clips - self.done - self.poisoned

    @property
    def is_complete(self) -> bool:
        """Whether every clip has results."""
        return self.done == self.clips


@dataclass(frozen=True)
class BatchSettings:
    """How a batch is done.

    Attributes:
        jobs: How many clips are tracked at once; never more than the server allows one client.
        shard: Which part to do; None: everything.
        results: The form of the results: ".jsonl", ".json" or ".parquet".
        exports: Further formats, such as "coco", or "matte=rabbit.mov" with the name of the file.
        patience: How often and how long to try.
        retry_poisoned: Try the clips that failed in earlier runs, too.
        options: Of the calls, as for `Client.track`.
    """

    jobs: int = 4
    shard: Shard | None = None
    results: str = ".jsonl"
    exports: Sequence[str] = ()
    patience: Patience = field(default_factory=Patience)
    retry_poisoned: bool = False
    options: TrackOptions = field(default_factory=TrackOptions)


class Tally:
    """Counts what becomes of the clips of a batch; for several threads.

    Args:
        clips: How many there are.
    """

    def __init__(self, clips: int) -> None:
        self._clips = clips
        self._counts: Counter[str] = Counter()
        self._failed: list[Entry] = []
        self._lock = threading.Lock()
        self._begun = self._last_progress = time.monotonic()

    def add(self, event: BatchEvent) -> None:
        """Count what became of a clip."""
        with self._lock:
            self._counts[event.kind] += 1
            if event.kind == "done":
                self._counts["frames"] += event.entry.frames
            if event.kind in ("done", "empty", "poisoned"):
                self._last_progress = time.monotonic()
            if event.kind in ("poisoned", "already-poisoned"):
                self._failed.append(event.entry)

    @property
    def seconds_without_progress(self) -> float:
        """How long no clip has come to its end."""
        with self._lock:
            return time.monotonic() - self._last_progress

    def summary(self, *, is_stopped: bool) -> BatchSummary:
        """How the batch stands.

        Args:
            is_stopped: Whether it was stopped before its end.
        """
        with self._lock:
            before = self._counts["already-done"]
            return BatchSummary(
                clips=self._clips,
                done=self._counts["done"] + self._counts["empty"] + before,
                done_before=before,
                poisoned=len(self._failed),
                frames=self._counts["frames"],
                seconds=time.monotonic() - self._begun,
                is_stopped=is_stopped,
                failed=tuple(self._failed),
            )
