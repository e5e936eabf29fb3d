"""Which clip is next: those that were not tried yet in order, and those that are tried again when it is time."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from masklet.batch.clips import Clip


@dataclass
class Job:
    """A clip on its way.

    Attributes:
        clip: The clip.
        number: Its place in the batch.
        attempt: How often it was begun.
    """

    clip: Clip
    number: int
    attempt: int = 0


class Schedule:
    """The jobs of a batch, for several threads.

    Args:
        clips: The clips.
    """

    def __init__(self, clips: Iterable[Clip]) -> None:
        self._ready = deque(Job(clip, number) for number, clip in enumerate(clips))
        self._later: list[tuple[float, int, Job]] = []
        self._running = 0
        self._stopped = False
        self._changed = threading.Condition()

    def take(self) -> Job | None:
        """The next job, which is waited for; None where there are no more."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                if self._later and self._later[0][0] <= now:
                    return self._begun(heapq.heappop(self._later)[2])
                if self._ready:
                    return self._begun(self._ready.popleft())
                if not self._later and not self._running:
                    break
                self._changed.wait(self._later[0][0] - now if self._later else None)
            return None

    def _begun(self, job: Job) -> Job:
        self._running += 1
        return job

    def ended(self, job: Job, again_after: float | None) -> None:
        """A job has ended.

        Args:
            job: The job.
            again_after: In how many seconds it is tried again; None: not at all.
        """
        with self._changed:
            self._running -= 1
            if again_after is not None:
                heapq.heappush(self._later, (time.monotonic() + again_after, job.number, job))
            self._changed.notify_all()

    def stop(self) -> None:
        """Give out no more jobs."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
