"""States of one object's memory bank along its way, put away, so that tracking can begin again behind any of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.tensor_file import Kept, TensorFile

# Space on a shelf is used again for what is as large, and dumps differ: they are put away in pieces of one size.
_PIECE = 512 * 1024


@dataclass(frozen=True, eq=False)
class _State:
    """A bank that is put away.

    Attributes:
        pieces: Its dump, the last one filled up.
        size: The dump's.
        is_needed: A prompt was applied there, so that tracking from an earlier state would not lead to it.
    """

    pieces: list[Kept]
    size: int
    is_needed: bool


class BankSnapshots:
    """What one object's bank was like on some frames.

    A bank that is brought back from the last of these frames before another one, and tracked up to that, is what it
    was there: so a state must be put away on every frame on which a prompt was applied. Those between only shorten the
    way; where room is short they get fewer.

    Args:
        shelf: Takes the states.
    """

    def __init__(self, shelf: TensorFile) -> None:
        self._shelf = shelf
        self._states: dict[int, _State] = {}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def last(self) -> int | None:
        """The last frame of which there is a state."""
        return max(self._states, default=None)

    def put(self, bank: MemoryBank, *, is_needed: bool) -> None:
        """Put away the bank as it is on its last frame, in place of all states from there on. Takes milliseconds.

        Args:
            bank: At least one frame was tracked or prompted.
            is_needed: A prompt was applied on that frame.

        Raises:
            ResourceExhausted: There is no room, even without the states that are not needed.
        """
        frame_index = bank.last_frame
        assert frame_index is not None
        self.cut(frame_index)
        least = bank.copy()
        least.keep(1)  # the frame itself can be corrected
        data = np.frombuffer(least.dump(), np.uint8)
        padded = np.pad(data, (0, -len(data) % _PIECE)).reshape(-1, _PIECE)
        pieces = [self._shelf.keep({"bank": torch.from_numpy(row)}) for row in padded]
        for piece in pieces:
            self._put_away(piece)
        self._states[frame_index] = _State(pieces, len(data), is_needed)

    def _put_away(self, piece: Kept) -> None:
        try:
            piece.put_away()
        except ResourceExhausted:
            if not self._thin_out():
                raise
            self._put_away(piece)

    def _thin_out(self) -> bool:
        """Forget every other state that is not needed; whether there was one."""
        spare = sorted(index for index, state in self._states.items() if not state.is_needed)
        for index in spare[::2]:
            del self._states[index]
        return bool(spare)

    def before(self, frame_index: int) -> int:
        """The last frame up to that one of which there is a state."""
        return max(index for index in self._states if index <= frame_index)

    def get(self, frame_index: int) -> bytes:
        """A dump of the bank as it was there. Takes milliseconds."""
        state = self._states[frame_index]
        data = b"".join(piece.get()["bank"].numpy().tobytes() for piece in state.pieces)
        for piece in state.pieces:
            piece.put_away()
        return data[: state.size]

    def cut(self, frame_index: int) -> None:
        """Forget the states from that frame on."""
        self._states = {index: state for index, state in self._states.items() if index < frame_index}

    def clear(self) -> None:
        """Forget all of them."""
        self._states.clear()
