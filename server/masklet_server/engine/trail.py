"""States of one object's memory bank along its way, put away, so that tracking can begin again behind any of them."""

from __future__ import annotations

import numpy as np
import torch

from masklet_server.engine.bank import MemoryBank
from masklet_server.engine.shelf import Kept, Shelf

# Space on a shelf is used again for what is as large: dumps differ by a few bytes, and are filled up to whole blocks.
_BLOCK = 64 * 1024


class Trail:
    """What one object's bank was like on some frames.

    A bank that is brought back from the last of these frames before another one, and tracked up to that, is what it
    was there: so a state must be put away on every frame on which a prompt was applied.

    Args:
        shelf: Takes the states.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._states: dict[int, tuple[Kept, int]] = {}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def last(self) -> int | None:
        """The last frame of which there is a state."""
        return max(self._states, default=None)

    def put(self, bank: MemoryBank) -> None:
        """Put away the bank as it is on its last frame, in place of all states from there on. Takes milliseconds.

        Raises:
            ResourceExhausted: There is no room.
        """
        frame_index = bank.last_frame
        assert frame_index is not None
        self.cut(frame_index)
        least = bank.copy()
        least.keep(1)  # the frame itself can be corrected
        data = np.frombuffer(least.dump(), np.uint8)
        kept = self._shelf.keep({"bank": torch.from_numpy(np.pad(data, (0, -len(data) % _BLOCK)))})
        kept.put_away()
        self._states[frame_index] = (kept, len(data))

    def before(self, frame_index: int) -> int:
        """The last frame up to that one of which there is a state."""
        return max(index for index in self._states if index <= frame_index)

    def get(self, frame_index: int) -> bytes:
        """A dump of the bank as it was there. Takes milliseconds."""
        kept, size = self._states[frame_index]
        data = kept.get()["bank"].numpy()[:size].tobytes()
        kept.put_away()
        return data

    def cut(self, frame_index: int) -> None:
        """Forget the states from that frame on."""
        self._states = {index: state for index, state in self._states.items() if index < frame_index}

    def clear(self) -> None:
        """Forget all of them."""
        self._states.clear()
