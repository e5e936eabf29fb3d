"""A mask that is drawn when it is needed, by the thread that needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from masklet_server.masks.runs import Runs

T = TypeVar("T")


class Once(Generic[T]):
    """Something that is made when it is first asked for, and kept. Any thread may ask.

    Args:
        make: Makes it. If it raises, the next thread that asks tries again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._lock = threading.Lock()
        self._made: T | None = None

    @property
    def is_made(self) -> bool:
        """Whether it is there already."""
        return self._make is None

    def get(self) -> T:
        """What was made; made now if nobody has asked before. Raises what `make` raises."""
        with self._lock:
            if self._make is not None:
                self._made = self._make()
                self._make = None  # it may refer to much memory
        return cast("T", self._made)


class Drawing:
    """A mask of a frame. A small model's step takes as long as drawing a few masks, and need not wait for them.

    Args:
        draw: Draws the mask.
    """

    def __init__(self, draw: Callable[[], Runs]) -> None:
        self._runs = Once(draw)

    @property
    def is_drawn(self) -> bool:
        """Whether the mask is there, so that `runs` takes no time."""
        return self._runs.is_made

    @property
    def runs(self) -> Runs:
        """The mask; drawn now if nobody has asked before. Raises what drawing raises."""
        return self._runs.get()
