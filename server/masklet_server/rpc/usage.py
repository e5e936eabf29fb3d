"""What one call has used, for the log and for traces; nothing of its content."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from masklet_server.budgets.message_size import RawMessage


@dataclass
class Usage:
    """What a call has used so far.

    Attributes:
        model: The model that the client has asked for; empty for the default model.
        received_bytes: Bytes of its messages.
        frames: Results of frames that were sent.
        masks: Masks that were sent.
        is_parked: Its session goes on without it, and may be resumed.
    """

    model: str = ""
    received_bytes: int = 0
    frames: int = 0
    masks: int = 0
    is_parked: bool = False

    def received(self, request: Any, size: int) -> None:
        """Count a request of Track or SegmentImage."""
        self.received_bytes += size
        if isinstance(request, RawMessage):
            return  # a gateway does not read it
        fields = request.DESCRIPTOR.fields_by_name
        if "config" in fields and request.HasField("config"):
            self.model = request.config.model[:100]
        elif "model" in fields:
            self.model = request.model[:100]

    def fields(self) -> dict[str, str | int]:
        """What the log says of it."""
        return {
            "model": self.model or "default",
            "received_bytes": self.received_bytes,
            "frames": self.frames,
            "masks": self.masks,
        }


current_usage: ContextVar[Usage | None] = ContextVar("current_usage", default=None)
"""The usage of the call that runs."""


def count_results(*, frames: int = 0, masks: int = 0) -> None:
    """Count results that the call which runs has sent."""
    usage = current_usage.get()
    if usage is not None:
        usage.frames += frames
        usage.masks += masks


def note_parked() -> None:
    """The call that runs ends, and its session waits for another one."""
    usage = current_usage.get()
    if usage is not None:
        usage.is_parked = True
