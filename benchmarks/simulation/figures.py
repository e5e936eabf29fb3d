"""What a simulation counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_TOGETHER = 1000
_LOWEST, _HIGHEST, _BINS = 1e-4, 1e4, 4000  # each bin is 0.46 % wider than the one before


def _edges() -> npt.NDArray[np.float64]:
    return np.geomspace(_LOWEST, _HIGHEST, _BINS + 1)


class Spread:
    """Times, of which there may be billions: their number, mean, and quantiles to half a percent."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self._bins = np.zeros(_BINS, np.int64)
        self._waiting: list[npt.NDArray[np.float64]] = []  # counted together, which is quicker

    def add(self, seconds: npt.NDArray[np.float64]) -> None:
        """Count times."""
        if seconds.size:
            self.count += int(seconds.size)
            self.total += float(seconds.sum())
            self._waiting.append(seconds)
            if len(self._waiting) >= _TOGETHER:
                self._sort_in()

    def _sort_in(self) -> None:
        if self._waiting:
            seconds = np.concatenate(self._waiting)
            places = np.log(np.maximum(seconds, _LOWEST) / _LOWEST) * (_BINS / np.log(_HIGHEST / _LOWEST))
            self._bins += np.bincount(np.minimum(places.astype(np.int64), _BINS - 1), minlength=_BINS)
            self._waiting = []

    @property
    def mean(self) -> float:
        """The mean; 0 where nothing was counted."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The time that this share of them does not exceed; 0 where nothing was counted."""
        if not self.count:
            return 0.0
        self._sort_in()
        place = int(np.searchsorted(np.cumsum(self._bins), share * self.count))
        edges = _edges()
        return float(np.sqrt(edges[place] * edges[place + 1]))


@dataclass
class Figures:
    """What came of a simulation.

    Attributes:
        latency: From capture to result.
        start_wait: From a stream's coming to its place on a device.
        interruption: From a device's death to the next result of each of its streams.
        results: Frames with results.
        skipped: Frames that were skipped, because newer ones were there.
        replayed: Frames that were computed again after a device's death.
        busy_seconds: Of all devices together.
        up_seconds: The same, of the time in which they could serve.
        rounds: Of all devices together.
        refused: Streams that had no place in the end.
        most_devices: The largest number of devices at once.
    """

    latency: Spread = field(default_factory=Spread)
    start_wait: Spread = field(default_factory=Spread)
    interruption: Spread = field(default_factory=Spread)
    results: int = 0
    skipped: int = 0
    replayed: int = 0
    busy_seconds: float = 0.0
    up_seconds: float = 0.0
    rounds: int = 0
    refused: int = 0
    most_devices: int = 0

    @property
    def utilisation(self) -> float:
        """The share of the time in which devices work."""
        return self.busy_seconds / self.up_seconds if self.up_seconds else 0.0

    def to_dict(self, seconds: float) -> dict[str, float]:
        """The figures, ready for JSON.

        Args:
            seconds: How long was measured.
        """
        return {
            "frames_per_second": self.results / seconds,
            "p50_seconds": self.latency.quantile(0.5),
            "p99_seconds": self.latency.quantile(0.99),
            "mean_seconds": self.latency.mean,
            "skipped_share": self.skipped / max(1, self.skipped + self.results),
            "utilisation": self.utilisation,
            "start_wait_p99_seconds": self.start_wait.quantile(0.99),
            "interrupted_streams": float(self.interruption.count),
            "interruption_p50_seconds": self.interruption.quantile(0.5),
            "interruption_p99_seconds": self.interruption.quantile(0.99),
            "replayed_frames": float(self.replayed),
            "rounds": float(self.rounds),
            "refused": float(self.refused),
            "devices": float(self.most_devices),
        }
