"""Memory that server and decoding process share, for pixels."""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np
import numpy.typing as npt


class SharedPixels:
    """Slots for pixels in memory that both processes map; pages cost nothing until they are written to.

    Attributes:
        fd: The descriptor that the decoding process is given; -1 once it is closed.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self._slots = slots
        self._slot_bytes = slot_bytes
        size = slots * slot_bytes
        self.fd = os.memfd_create("masklet-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            # A process that could shrink the memory could make the server fault.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise

    def close_fd(self) -> None:
        """Close the descriptor, once the decoding process has it; the memory stays mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Free everything; may be called twice."""
        self.close_fd()
        self._memory.close()

    def copy(self, slot: int, height: int, width: int) -> npt.NDArray[np.uint8]:
        """The pixels in a slot as ``uint8[height, width, 3]``.

        Raises:
            ValueError: There is no such slot, or it is too small.
        """
        size = height * width * 3
        if not (0 <= slot < self._slots and height > 0 and width > 0 and size <= self._slot_bytes):
            raise ValueError(f"slot {slot} of {self._slots} has no {width}x{height} pixels")
        view = np.frombuffer(self._memory, np.uint8, size, slot * self._slot_bytes)
        return view.reshape(height, width, 3).copy()

    def release_pages(self) -> None:
        """Give the memory behind all slots back; they read as zero until they are written again."""
        self._memory.madvise(mmap.MADV_REMOVE)
