"""One device: in each round it takes the frames that wait longest, of as many streams as fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.simulation.curve import BatchCurve
from benchmarks.simulation.figures import Figures

_NEVER = float("inf")
_TINY = 1e-9  # against rounding: a frame is there when it is due


@dataclass
class Stream:
    """A stream where it stands.

    Attributes:
        start: When its first frame was captured.
        period: Seconds between frames.
        last: The number of its last frame.
        done: The number of the last frame with a result, or that was skipped; -1 before the first.
        latest: Whether frames are skipped where newer ones are there; else every frame is tracked.
        replay: Frames to compute again before the next result.
        broken: When its device died, until the next result; infinite otherwise.
    """

    start: float
    period: float
    last: int
    done: int = -1
    latest: bool = True
    replay: int = 0
    broken: float = _NEVER


class Device:
    """A device with its streams.

    Args:
        curve: How long a round takes.
        room: How many streams it takes.
        measured: From when to when results and busy time are counted.

    Attributes:
        count: How many streams it has.
        is_up: Whether it lives.
        generation: Changes when it dies, so that what was planned for it is void.
        up_since: Since when it serves.
        asleep: Whether it waits for a frame.
        wakes: When it wants its next round.
    """

    def __init__(self, curve: BatchCurve, room: int, measured: tuple[float, float] = (0.0, _NEVER)) -> None:
        self.count = 0
        self.is_up = True
        self.asleep = True
        self.generation = 0
        self.up_since = 0.0
        self.wakes = _NEVER
        self._curve = curve
        self._from, self._to = measured
        self._room = room
        # The first `count` of each belong to streams.
        self._latest = np.zeros(room, bool)
        self._last, self._done, self._replay = (np.zeros(room, np.int64) for _ in range(3))
        self._start, self._broken = np.zeros(room), np.full(room, _NEVER)
        self._period = np.ones(room)

    @property
    def has_room(self) -> bool:
        """Whether another stream fits."""
        return self.count < self._room

    def add(self, stream: Stream) -> None:
        """Take a stream; there must be room."""
        place = self.count
        self._start[place], self._period[place] = stream.start, stream.period
        self._last[place], self._done[place], self._replay[place] = stream.last, stream.done, stream.replay
        self._latest[place], self._broken[place] = stream.latest, stream.broken
        self.count += 1

    def die(self, now: float) -> list[Stream]:
        """Give up everything; the streams as they stand."""
        self.is_up = False
        self.generation += 1
        found = [
            Stream(
                float(self._start[i]), float(self._period[i]), int(self._last[i]), int(self._done[i]),
                bool(self._latest[i]), int(self._replay[i]), min(now, float(self._broken[i])),
            )
            for i in range(self.count)
        ]  # fmt: skip
        self.count = 0
        return found

    def waiting(self, now: float) -> int:
        """Frames that were captured and have neither a result nor were skipped."""
        return int(np.maximum(self._captured(now) - self._done[: self.count], 0).sum())

    def _captured(self, now: float) -> npt.NDArray[np.int64]:
        """The number of the last frame of each stream that is there; below 0 where there is none yet."""
        n = self.count
        passed = np.floor((now - self._start[:n]) / self._period[:n] + _TINY)
        return np.minimum(passed.astype(np.int64), self._last[:n])

    def round(self, now: float, figures: Figures) -> tuple[float, int]:
        """Do a round.

        Args:
            now: The time at which it begins.
            figures: Where its results are counted.

        Returns:
            When it ends, or when the first frame comes if there is none now; and how many streams have ended.
        """
        n = self.count
        captured = self._captured(now)
        due = self._start[:n] + (self._done[:n] + 1) * self._period[:n]
        ready = np.flatnonzero((captured > self._done[:n]) | (self._replay[:n] > 0))
        if not ready.size:
            self.asleep = True
            coming = due[self._done[:n] < self._last[:n]]
            return (float(coming.min()) if coming.size else _NEVER), 0
        self.asleep = False
        if ready.size > self._curve.most:
            order = np.argpartition(due[ready], self._curve.most - 1)
            ready = ready[order[: self._curve.most]]
        seconds = self._curve(ready.size)
        end = now + seconds
        again = self._replay[ready] > 0
        self._replay[ready[again]] -= 1
        who = ready[~again]
        before = self._done[who]
        after = np.where(self._latest[who], captured[who], before + 1)
        self._done[who] = after
        if end >= self._from:
            figures.rounds += 1
            figures.busy_seconds += min(end, self._to) - max(now, self._from)
            figures.results += int(who.size)
            figures.replayed += int(again.sum())
            figures.skipped += int((after - before - 1).sum())
            figures.latency.add(end - (self._start[who] + after * self._period[who]) + self._curve.overhead_seconds)
        broken = who[np.isfinite(self._broken[who])]
        if broken.size:
            figures.interruption.add(end - self._broken[broken])
            self._broken[broken] = _NEVER
        gone = who[after >= self._last[who]]
        if gone.size:
            stays = np.ones(n, bool)
            stays[gone] = False
            self.count -= int(gone.size)
            for values in (self._latest, self._last, self._done, self._replay, self._start, self._broken, self._period):
                values[: self.count] = values[:n][stays]
        return end, int(gone.size)
