"""Tensors in a temporary file: they are moved out of memory and come back bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Share
from masklet_server.budgets.shares import UNBOUNDED
from masklet_server.scratch import ScratchFile


class TensorFile:
    """A temporary file for what the memories of one session do not need soon.

    The file is made when it is first needed. It is freed when the `TensorFile` and all its `StoredTensors` are freed.
    The space of freed tensors is used again.

    Args:
        max_bytes: Largest size of the file.
        disk: Where its room is counted.
    """

    def __init__(self, max_bytes: int, disk: Share = UNBOUNDED.disk) -> None:
        self._disk = disk
        self.max_bytes = max_bytes
        self._file: ScratchFile | None = None
        self._end = 0
        # By size, because there are very few different sizes. Appending and popping are safe between threads.
        self._free: dict[int, list[int]] = {}

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._end

    def add(self, tensors: Mapping[str, Tensor]) -> StoredTensors:
        """Tensors that can be moved to this file; they stay in memory until then."""
        return StoredTensors(self, tensors)

    def write(self, data: memoryview) -> int:
        """Write bytes into free space of the file, and return their offset.

        Raises:
            ResourceExhausted: The file would be larger than `max_bytes`, the disk is full, or the client has as much on
                it as it may have.
        """
        if self._file is None:
            self._file = ScratchFile("the results of earlier frames", self._disk)
        offset = self._allocate(len(data))
        try:
            self._file.write(offset, data)
        except ResourceExhausted:
            self.free(offset, len(data))
            raise
        return offset

    def read(self, offset: int, size: int) -> bytearray:
        """The bytes that were written at the offset."""
        assert self._file is not None
        return self._file.read(offset, size)

    def free(self, offset: int, size: int) -> None:
        """Allow the space to be used again."""
        self._free.setdefault(size, []).append(offset)

    def _allocate(self, size: int) -> int:
        if free := self._free.get(size):
            return free.pop()
        if self._end + size > self.max_bytes:
            raise ResourceExhausted(
                "the memory of this session's objects would take more than max_history_bytes = "
                f"{self.max_bytes} bytes; remove_object and reset make room"
            )
        offset, self._end = self._end, self._end + size
        return offset


@dataclass(frozen=True)
class _TensorLayout:
    """Where a tensor lies among the bytes that are written together, and what it looks like."""

    dtype: torch.dtype
    shape: torch.Size
    device: torch.device
    offset: int


class StoredTensors:
    """Some tensors by name, either in memory or in a file. They never change, so several histories may share them."""

    def __init__(self, file: TensorFile, tensors: Mapping[str, Tensor]) -> None:
        self._file = file
        self._tensors: dict[str, Tensor] | None = dict(tensors)
        self._layouts: dict[str, _TensorLayout] = {}
        self._size = sum(tensor.nbytes for tensor in tensors.values())
        self._offset: int | None = None

    def __del__(self) -> None:
        if getattr(self, "_offset", None) is not None:
            self._file.free(self._offset, self._size)  # type: ignore[arg-type]

    @property
    def is_in_memory(self) -> bool:
        """Whether the tensors are in memory; if not, they are only in the file."""
        return self._tensors is not None

    @property
    def nbytes(self) -> int:
        """Bytes in memory; 0 if the tensors are in the file."""
        return 0 if self._tensors is None else self._size

    def get(self) -> Mapping[str, Tensor]:
        """The tensors; they are read from the file if necessary, and stay in memory from now on."""
        if self._tensors is None:
            assert self._offset is not None
            data = self._file.read(self._offset, self._size)
            self._tensors = {name: _tensor(data, layout) for name, layout in self._layouts.items()}
        return self._tensors

    def move_to_file(self) -> None:
        """Write the tensors to the file, unless they are there already, and free their memory.

        Raises:
            ResourceExhausted: The file has no room for them.
        """
        if self._tensors is None:
            return
        if self._offset is None:
            offset = 0
            for name, tensor in self._tensors.items():
                self._layouts[name] = _TensorLayout(tensor.dtype, tensor.shape, tensor.device, offset)
                offset += tensor.nbytes
            data = torch.cat([t.contiguous().reshape(-1).view(torch.uint8).cpu() for t in self._tensors.values()])
            self._offset = self._file.write(data.numpy().data)
        self._tensors = None


def _tensor(data: bytearray, layout: _TensorLayout) -> Tensor:
    count = math.prod(layout.shape)
    flat = torch.frombuffer(data, dtype=layout.dtype, count=count, offset=layout.offset)
    return flat.reshape(layout.shape).to(layout.device)
