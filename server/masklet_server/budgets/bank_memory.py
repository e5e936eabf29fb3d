"""Memory of the objects of one session, as a part of what all clients share."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from masklet_server.budgets.budget import Share


class Sizes(Protocol):
    """What tracking takes; see `masklet_server.engine.memory.sizes.MemorySizes`."""

    @property
    def stream(self) -> int:
        """Bytes of a stream with objects."""

    @property
    def tracked_object(self) -> int:
        """Bytes of an object beside its conditioning frames."""

    @property
    def conditioning_frame(self) -> int:
        """Bytes of one conditioning frame of an object."""


class BankMemory:
    """What the memory banks of one session take, from the first prompt until `close`.

    It is counted when a prompt comes, for all that tracking the object may take. So a prompt is refused where memory is
    short, and an object that is tracked never is. A session that is left and can be resumed keeps what it has.

    Args:
        share: What the client may have of the memory for banks.
        sizes: What tracking takes with the session's model.
    """

    def __init__(self, share: Share, sizes: Sizes) -> None:
        self._share = share
        self._sizes = sizes
        self._counted = 0
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are counted now."""
        return self._counted

    def admit(self, frames: Mapping[int, int]) -> None:
        """Count what the session's objects take with one prompt more; if there is too little, nothing changes.

        Args:
            frames: By object, the number of its conditioning frames, those that prompts wait for included.

        Raises:
            ResourceExhausted: The client, or all clients together, would have more than they may.
        """
        with self._lock:
            wanted = self._needed_for(frames)
            if wanted > self._counted and not self._is_closed:
                self._share.take(wanted - self._counted)
                self._counted = wanted

    def settle(self, frames: Mapping[int, int]) -> None:
        """Give back what the objects do not need any more; `frames` as in `admit`."""
        with self._lock:
            self._lower(self._needed_for(frames))

    def close(self) -> None:
        """Give everything back; may be called twice."""
        with self._lock:
            self._is_closed = True
            self._lower(0)

    def _needed_for(self, frames: Mapping[int, int]) -> int:
        sizes = self._sizes
        objects = sum(sizes.tracked_object + max(1, count) * sizes.conditioning_frame for count in frames.values())
        return sizes.stream + objects if frames else 0

    def _lower(self, wanted: int) -> None:
        if wanted < self._counted:
            self._share.give_back(self._counted - wanted)
            self._counted = wanted
