"""The queue before the device: each stream's jobs in order, the streams by turns, like with like in one batch."""

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
        job: What is to be done.
        stream: Whose it is.
        kind: Jobs of one kind may share a batch; None: it always runs alone.
        weight: Its share of a batch.
    """

    job: T
    stream: str
    kind: Hashable | None
    weight: int = 1


class FairQueue(Generic[T]):
    """Round robin over streams: however much one of them queues, another waits for at most one batch of the rest.

    A stream that was in the last batch and has nothing waiting is about to send its next job: `take` lingers a moment
    for it. Without that, four streams would settle into two batches of two that wait for each other.

    Args:
        max_weight: Of one batch. A single job that is heavier still runs, alone.
        linger_seconds: At most so long.
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
        """Wait for jobs that can run together, one a stream at most, longest-waiting stream first. Empty: closed."""
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
                # Else all that waited was dropped meanwhile: whoever asked for it has left.
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
        """Take the stream's oldest job and send the stream to the end of the line."""
        entries = self._streams[stream]
        entry = entries.popleft()
        if entries:
            self._streams.move_to_end(stream)
        else:
            del self._streams[stream]
        return entry

    def drop(self, wanted: Callable[[Entry[T]], bool]) -> list[T]:
        """Take out and return all jobs of which `wanted` is true."""
        with self._changed:
            dropped = []
            for stream, entries in list(self._streams.items()):
                dropped += [entry.job for entry in entries if wanted(entry)]
                kept = deque(entry for entry in entries if not wanted(entry))
                if kept:
                    self._streams[stream] = kept
                else:
                    del self._streams[stream]
            return dropped

    def close(self) -> list[T]:
        """Let no more in, and return what was still waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return self.drop(lambda entry: True)
