"""When clients come: open loop, so that a server which is slow gets no fewer of them."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass


class Process(str, enum.Enum):
    """How arrivals are spread."""

    POISSON = "poisson"
    CONSTANT = "constant"
    BURSTS = "bursts"


@dataclass(frozen=True)
class Arrivals:
    """Times of arrival.

    Attributes:
        process: How they are spread.
        rate: Arrivals a second in the long run.
        burst: How many come at the same time, of BURSTS.
    """

    process: Process
    rate: float
    burst: int = 8

    def times(self, seconds: float, chance: random.Random) -> Iterator[float]:
        """Seconds from the beginning, in ascending order, up to a time.

        Args:
            seconds: The time.
            chance: Where what is random comes from.
        """
        now = 0.0
        while True:
            if self.process is Process.CONSTANT:
                now += 1 / self.rate
            elif self.process is Process.POISSON:
                now += chance.expovariate(self.rate)
            else:
                now += chance.expovariate(self.rate / self.burst)
            if now >= seconds:
                return
            yield from [now] * (self.burst if self.process is Process.BURSTS else 1)
