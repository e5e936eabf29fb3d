"""What a run says: JSON lines for programs, one line on the terminal for people."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "log.jsonl"


@dataclass
class Window:
    """Means over the steps since the last line of the log.

    Attributes:
        sums: By name: total and count.
        started: When the window began, in `time.perf_counter`'s seconds.
        steps: In it.
    """

    sums: dict[str, tuple[float, int]] = field(default_factory=lambda: defaultdict(lambda: (0.0, 0)))
    started: float = field(default_factory=time.perf_counter)
    steps: int = 0

    def add(self, name: str, total: float, count: int = 1) -> None:
        """Add `count` values whose sum is `total`."""
        before, seen = self.sums[name]
        self.sums[name] = (before + total, seen + count)

    def means(self) -> dict[str, float]:
        """By name, rounded for reading; names without values are left out."""
        return {name: round(total / count, 4) for name, (total, count) in sorted(self.sums.items()) if count}


class RunLog:
    """``log.jsonl`` in the folder of a run, and the terminal; nothing if silent."""

    def __init__(self, folder: Path, *, silent: bool = False) -> None:
        self._path, self._silent = folder / FILE, silent

    def event(self, event: str, **values: object) -> None:
        """Write what happened."""
        if self._silent:
            return
        self._write({"event": event, **values})
        print(f"{event}: " + ", ".join(f"{name} {value}" for name, value in values.items()), flush=True)

    def steps(self, window: Window, *, stage: str, step: int, of: int, total: int, rate: float) -> None:
        """Write the means of a window, of which `step` of `of` was the last step."""
        if self._silent:
            return
        seconds = (time.perf_counter() - window.started) / max(1, window.steps)
        means = window.means()
        figures = {"seconds_per_step": round(seconds, 4), **means}
        self._write({"event": "steps", "stage": stage, "step": step, "total": total, "rate": rate, **figures})
        left = (of - step) * seconds / 60
        shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"{stage} {step}/{of}  {shown}  {seconds:.2f} s/step  {left:.0f} min left in stage", flush=True)

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **line}) + "\n")
