"""What one session may hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of one session.

    Attributes:
        max_objects: Objects followed at once, and prompts waiting for a frame, each.
        window: Frame results sent ahead of the client's acknowledgement.
        idle_timeout_seconds: Time without a message from the client, a decoded frame or a result, after which the
            session ends.
        max_latency_seconds: How long a frame may wait to be tracked, where the client wants the latest frames and does
            not say itself.
        correction_window: Of the last frames, how many can still be prompted; 0: none that was tracked.
        correction_bytes: What these frames' pixels, and what memory banks hold for their sake, may take; where it does
            not suffice, fewer frames can be corrected.
        max_mask_bytes: Size of an encoded mask in a prompt; those that wait for their frames may take four times that.
    """

    max_objects: int = 64
    window: int = 64
    idle_timeout_seconds: float = 60.0
    max_latency_seconds: float = 0.05
    correction_window: int = 64
    correction_bytes: int = 256 * 1024**2
    max_mask_bytes: int = 16 * 1024**2
