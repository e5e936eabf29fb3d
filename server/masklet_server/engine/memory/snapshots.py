"""Snapshots of one object's memory bank, in a file, so that tracking can begin again after any of their frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.tensor_file import StoredTensors, TensorFile

# A tensor file uses space again only for data of equal size. Dumps differ in size, so they are cut into equal pieces.
_PIECE_BYTES = 512 * 1024


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """A dumped bank.

    Attributes:
        pieces: The dump in pieces of equal size; the last one is padded with zeros.
        size: Bytes of the dump without the padding.
        is_needed: A prompt was applied on the frame, so that tracking on from an earlier snapshot gives another bank.
    """

    pieces: list[StoredTensors]
    size: int
    is_needed: bool


class BankSnapshots:
    """What one object's bank was like on some frames.

    If the bank is loaded from the last snapshot before a frame, and tracked up to that frame, it becomes what it was
    there. For this, every frame on which a prompt was applied needs a snapshot. Snapshots between them only save work:
    where the file is full, some of them are dropped.

    Args:
        file: Stores the snapshots.
    """

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self._snapshots: dict[int, _Snapshot] = {}

    def __len__(self) -> int:
        return len(self._snapshots)

    @property
    def nbytes(self) -> int:
        """Bytes of all snapshots in memory; those in the file do not count."""
        return sum(piece.nbytes for snapshot in self._snapshots.values() for piece in snapshot.pieces)

    @property
    def last(self) -> int | None:
        """The last frame that has a snapshot."""
        return max(self._snapshots, default=None)

    def put(self, bank: MemoryBank, *, is_needed: bool) -> None:
        """Store the bank as it is on its last frame, and drop all snapshots from that frame on. Takes milliseconds.

        Args:
            bank: At least one frame was tracked or prompted.
            is_needed: A prompt was applied on that frame.

        Raises:
            ResourceExhausted: The file has no room, even without the snapshots that are not needed.
        """
        frame_index = bank.last_frame
        assert frame_index is not None
        self.cut(frame_index)
        smallest = bank.copy()
        smallest.keep(1)  # the frame itself can be corrected
        data = np.frombuffer(smallest.dump(), np.uint8)
        padded = np.pad(data, (0, -len(data) % _PIECE_BYTES)).reshape(-1, _PIECE_BYTES)
        pieces = [self._file.add({"bank": torch.from_numpy(row)}) for row in padded]
        for piece in pieces:
            self._move_to_file(piece)
        self._snapshots[frame_index] = _Snapshot(pieces, len(data), is_needed)

    def _move_to_file(self, piece: StoredTensors) -> None:
        try:
            piece.move_to_file()
        except ResourceExhausted:
            if not self._thin_out():
                raise
            self._move_to_file(piece)

    def _thin_out(self) -> bool:
        """Drop every other snapshot that is not needed; False if there was none to drop."""
        spare = sorted(index for index, snapshot in self._snapshots.items() if not snapshot.is_needed)
        for index in spare[::2]:
            del self._snapshots[index]
        return bool(spare)

    def before(self, frame_index: int) -> int:
        """The last frame that has a snapshot and is not after the given frame."""
        return max(index for index in self._snapshots if index <= frame_index)

    def get(self, frame_index: int) -> bytes:
        """The dump of the bank as it was on the frame (see `MemoryBank.load`). Takes milliseconds."""
        snapshot = self._snapshots[frame_index]
        data = b"".join(piece.get()["bank"].numpy().tobytes() for piece in snapshot.pieces)
        for piece in snapshot.pieces:
            piece.move_to_file()
        return data[: snapshot.size]

    def cut(self, frame_index: int) -> None:
        """Drop the snapshots from that frame on."""
        self._snapshots = {index: one for index, one in self._snapshots.items() if index < frame_index}

    def clear(self) -> None:
        """Drop all snapshots and free their space."""
        self._snapshots.clear()
