"""Who is there beside an attack: a client that tracks an object, and one that asks for the server's health."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.hostile.target import Outcome, Target

# The honest client's own patience with one series of frames. It takes some seconds on a quiet machine.
PATIENCE = 60.0


class HonestClient:
    """Bob, in a process of his own, so that the attacker's work does not take his time; see `tests.hostile.honest`."""

    def __init__(self, target: Target) -> None:
        self._command = [sys.executable, "-m", "tests.hostile.honest", target.address, "b"]
        self._process: asyncio.subprocess.Process | None = None

    async def track(self) -> dict[str, Any]:
        """Track the series once. Without an answer in time the answer is an error, and a new process is used next."""
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"track\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        except asyncio.TimeoutError:
            await self.close()
            return {"error": f"no answer in {PATIENCE:g} s"}
        return dict(json.loads(line)) if line else {"error": "the honest client has died"}

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None


class HealthWatch:
    """Asks for the server's health ten times a second, in a process of its own; see `tests.hostile.health`."""

    def __init__(self, target: Target) -> None:
        command = [sys.executable, "-m", "tests.hostile.health", target.address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ended(self) -> dict[str, float]:
        """Stop asking; returns how often it asked, how often it failed, how often it waited, and the longest time."""
        answers, _ = self._process.communicate(timeout=30)
        return dict(json.loads(answers))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@dataclass
class Comparison:
    """The honest client's times without an attack and beside it, by turns, because others use the machine, too.

    Attributes:
        alone: Times of frames, at the 99th percentile, in seconds, of each series without an attack.
        beside: The same beside the attack.
        masks: Digests of all masks of a series.
        errors: How often the honest client got an error, by its text.
    """

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    masks: set[str] = field(default_factory=set)
    errors: Outcome = field(default_factory=Counter)

    def add(self, answer: dict[str, Any], *, beside: bool) -> None:
        """Count what the honest client has answered."""
        if "error" in answer:
            self.errors[answer["error"]] += 1
            return
        # The first frame waits for a decoder and for the prompt.
        seconds = float(np.percentile(answer["seconds"][1:], 99))
        (self.beside if beside else self.alone).append(seconds)
        self.masks.add(answer["masks"])

    @property
    def alone_ms(self) -> float:
        """The median of the times without an attack, in milliseconds."""
        return float(np.median(self.alone or [math.nan])) * 1e3

    @property
    def beside_ms(self) -> float:
        """The median of the times beside the attack, in milliseconds."""
        return float(np.median(self.beside or [math.nan])) * 1e3
