"""Tensors that are put away in a temporary file and come back bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from masklet.errors import ResourceExhausted
from masklet_server.scratch import ScratchFile


class TensorFile:
    """Where the histories of one session put what lies far from the frame in hand.

    Its file is made when first needed, and freed when the shelf and all that was put on it are forgotten. Space of
    what is forgotten is used again.

    Args:
        max_bytes: Of the file.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._file: ScratchFile | None = None
        self._end = 0
        # By size, because what is kept comes in very few sizes. Appending and popping are safe between threads.
        self._free: dict[int, list[int]] = {}

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._end

    def keep(self, tensors: Mapping[str, Tensor]) -> Kept:
        """Something that can be put away; until then it is in memory."""
        return Kept(self, tensors)

    def write(self, data: memoryview) -> int:
        """Put bytes into the file; where they are.

        Raises:
            ResourceExhausted: More than `max_bytes` in all, or the disk is full.
        """
        if self._file is None:
            self._file = ScratchFile("the results of earlier frames")
        offset = self._allocate(len(data))
        try:
            self._file.write(offset, data)
        except ResourceExhausted:
            self.free(offset, len(data))
            raise
        return offset

    def read(self, offset: int, size: int) -> bytearray:
        """What was put there."""
        assert self._file is not None
        return self._file.read(offset, size)

    def free(self, offset: int, size: int) -> None:
        """Let the space be used again."""
        self._free.setdefault(size, []).append(offset)

    def _allocate(self, size: int) -> int:
        if free := self._free.get(size):
            return free.pop()
        if self._end + size > self.max_bytes:
            raise ResourceExhausted(
                "what is remembered of this session's objects would take more than max_history_bytes = "
                f"{self.max_bytes} bytes; remove_object and reset make room"
            )
        offset, self._end = self._end, self._end + size
        return offset


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies among the bytes of those it is kept with."""

    dtype: torch.dtype
    shape: torch.Size
    device: torch.device
    offset: int


class Kept:
    """Some tensors, in memory or on a shelf. Nothing changes them, so that several histories may share it."""

    def __init__(self, shelf: TensorFile, tensors: Mapping[str, Tensor]) -> None:
        self._shelf = shelf
        self._tensors: dict[str, Tensor] | None = dict(tensors)
        self._places: dict[str, _Place] = {}
        self._size = sum(tensor.nbytes for tensor in tensors.values())
        self._offset: int | None = None

    def __del__(self) -> None:
        if getattr(self, "_offset", None) is not None:
            self._shelf.free(self._offset, self._size)  # type: ignore[arg-type]

    @property
    def is_away(self) -> bool:
        """Nothing of it is in memory."""
        return self._tensors is None

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return 0 if self._tensors is None else self._size

    def get(self) -> Mapping[str, Tensor]:
        """The tensors, which are in memory from now on."""
        if self._tensors is None:
            assert self._offset is not None
            data = self._shelf.read(self._offset, self._size)
            self._tensors = {name: _tensor(data, place) for name, place in self._places.items()}
        return self._tensors

    def put_away(self) -> None:
        """Keep them in memory no longer.

        Raises:
            ResourceExhausted: There is no room for them.
        """
        if self._tensors is None:
            return
        if self._offset is None:
            offset = 0
            for name, tensor in self._tensors.items():
                self._places[name] = _Place(tensor.dtype, tensor.shape, tensor.device, offset)
                offset += tensor.nbytes
            data = torch.cat([t.contiguous().reshape(-1).view(torch.uint8).cpu() for t in self._tensors.values()])
            self._offset = self._shelf.write(data.numpy().data)
        self._tensors = None


def _tensor(data: bytearray, place: _Place) -> Tensor:
    count = math.prod(place.shape)
    flat = torch.frombuffer(data, dtype=place.dtype, count=count, offset=place.offset)
    return flat.reshape(place.shape).to(place.device)
