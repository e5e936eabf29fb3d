"""How long a device takes for a round of so many frames, as it was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class BatchCurve:
    """Seconds of a round by the number of streams in it; straight lines between what was measured.

    Attributes:
        streams: Numbers of streams, in ascending order.
        seconds: Seconds of a round with so many.
        overhead_seconds: What a frame takes beside the device: decoding, sending, the network.

    Raises:
        ValueError: There is no point, or the points are not in order.
    """

    streams: tuple[int, ...]
    seconds: tuple[float, ...]
    overhead_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not self.streams or len(self.streams) != len(self.seconds):
            raise ValueError("a curve needs a number of seconds for each number of streams, and at least one")
        if list(self.streams) != sorted(set(self.streams)) or self.streams[0] < 1 or min(self.seconds) <= 0:
            raise ValueError("the numbers of streams of a curve must ascend from 1 or above, and take some time each")

    @classmethod
    def load(cls, path: Path) -> BatchCurve:
        """Read what ``masklet bench --curve 1,2,4,8 --json FILE`` has written.

        Raises:
            ValueError: The file holds something else.
            OSError: It cannot be read.
        """
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("curve"), list):
            raise ValueError(f"{path} has no 'curve'; masklet bench --curve 1,2,4,8 --json {path.name} writes one")
        points = sorted((int(point["streams"]), float(point["round_seconds"])) for point in found["curve"])
        streams, seconds = zip(*points, strict=True) if points else ((), ())
        return cls(streams, seconds, float(found.get("overhead_seconds", 0.0)))

    @property
    def most(self) -> int:
        """The largest round that was measured; no round of a simulation is larger."""
        return self.streams[-1]

    def __call__(self, streams: int) -> float:
        """Seconds of a round with so many streams, at most `most`."""
        return float(np.interp(streams, self.streams, self.seconds))
