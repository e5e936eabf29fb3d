"""The queue before the device: a stream's jobs stay in order, streams take turns, equal kinds share a batch."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A job in the queue.

    Attributes:
        job: The job.
        stream: The stream that it belongs to.
        kind: Jobs of equal kind may share a batch. A job without a kind always runs alone.
        weight: How much of a batch's `max_weight` it takes.
    """

    job: T
    stream: str
    kind: Hashable | None
    weight: int = 1


class FairQueue(Generic[T]):
    """Round robin over streams: however many jobs one stream has, another stream waits for one batch at most.

    A stream that was in the last batch, and has no job waiting, will send its next job soon. `take` waits a moment for
    it. Otherwise four streams would end up in two batches of two that take turns.

    Args:
        max_weight: Largest weight of a batch. A single job that is heavier runs alone.
        linger_seconds: How long `take` waits for the streams of the last batch.
    """

    def __init__(self, max_weight: int, linger_seconds: float = 0.002) -> None:
        self.max_weight = max_weight
        self.linger_seconds = linger_seconds
        self._last_batch: frozenset[str] = frozenset()
        self._streams: OrderedDict[str, deque[Entry[T]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, entry: Entry[T]) -> None:
        """Add a job behind the others of its stream.

        Raises:
            RuntimeError: The queue is closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._streams.setdefault(entry.stream, deque()).append(entry)
            self._changed.notify()

    def take(self) -> list[T]:
        """Wait for jobs that can run together, at most one per stream; an empty list means that the queue is closed.

        The stream that has waited longest comes first.
        """
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._streams or self._closed)
                self._changed.wait_for(
                    lambda: self._last_batch <= self._streams.keys() or self._closed, self.linger_seconds
                )
                if self._streams:
                    break
                if self._closed:
                    return []
                # Else all waiting jobs were dropped in the meantime, because their streams have ended.
            batch = self._pop_batch()
            self._last_batch = frozenset(entry.stream for entry in batch)
            return [entry.job for entry in batch]

    def _pop_batch(self) -> list[Entry[T]]:
        first = self._pop(next(iter(self._streams)))
        batch, weight = [first], first.weight
        if first.kind is None:
            return batch
        for stream in [s for s in self._streams if s != first.stream]:
            head = self._streams[stream][0]
            if head.kind == first.kind and weight + head.weight <= self.max_weight:
                batch.append(self._pop(stream))
                weight += head.weight
        return batch

    def _pop(self, stream: str) -> Entry[T]:
        """Take the stream's oldest job and put the stream last."""
        entries = self._streams[stream]
        entry = entries.popleft()
        if entries:
            self._streams.move_to_end(stream)
        else:
            del self._streams[stream]
        return entry

    def drop(self, wanted: Callable[[Entry[T]], bool]) -> list[T]:
        """Remove and return all jobs for which `wanted` is true."""
        with self._changed:
            dropped = []
            for stream, entries in list(self._streams.items()):
                dropped += [entry.job for entry in entries if wanted(entry)]
                rest = deque(entry for entry in entries if not wanted(entry))
                if rest:
                    self._streams[stream] = rest
                else:
                    del self._streams[stream]
            return dropped

    def close(self) -> list[T]:
        """Refuse further jobs, and return those that were waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return self.drop(lambda entry: True)
