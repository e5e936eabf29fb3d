"""Who is told what happens to resumable sessions."""

from __future__ import annotations

from typing import Protocol


class ParkingObserver(Protocol):
    """Is told what happens to resumable sessions, for metrics."""

    def parked(self, count: int) -> None:
        """So many sessions are parked now."""

    def resumed(self, how: str) -> None:
        """A session was resumed: "attached", "restored" or "rewound"; or it could not be: "refused"."""

    def parked_ended(self, why: str) -> None:
        """A parked session that was not over is gone: "expired", "evicted" or "stopped"."""
