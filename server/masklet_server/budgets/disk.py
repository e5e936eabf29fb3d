"""Room on disk for temporary files, shared by all clients."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Bounds, Budget

# How often free space is looked at: after so many bytes, or after so many seconds.
_LOOK_BYTES = 8 * 1024**2
_LOOK_SECONDS = 1.0


class DiskBudget(Budget):
    """Bytes of all temporary files. Some space is kept free, whoever uses the rest of the disk.

    Args:
        bounds: How much all files together, and those of one client, may take.
        min_free: Bytes that stay free on the disk; on a small disk a tenth of it. 0: none.
        on_refused: Called with the name of the setting that has refused something.
    """

    def __init__(
        self, bounds: Bounds, min_free: int = 0, on_refused: Callable[[str], None] = lambda limit: None
    ) -> None:
        super().__init__("max_disk_bytes", "temporary files", bounds, on_refused)
        self._min_free = min_free
        self._unseen = _LOOK_BYTES
        self._looked_at = 0.0

    def take(self, client: str, amount: int) -> None:
        """Take some bytes.

        Raises:
            ResourceExhausted: There would be more than the bounds allow, or too little space would stay free.
        """
        super().take(client, amount)
        try:
            self._check_free(amount)
        except ResourceExhausted:
            self.give_back(client, amount)
            raise

    def _check_free(self, amount: int) -> None:
        self._unseen += amount
        now = time.monotonic()
        if not self._min_free or (self._unseen < _LOOK_BYTES and now - self._looked_at < _LOOK_SECONDS):
            return
        with contextlib.suppress(FileNotFoundError):  # writing says it better
            disk = os.statvfs(tempfile.gettempdir())
            floor = min(self._min_free, disk.f_blocks * disk.f_frsize // 10)
            # A file system without a size, such as a tmpfs with size=0, says that it has 0 blocks.
            if disk.f_blocks and disk.f_bavail * disk.f_frsize - amount < floor:
                raise self.refusal("min_free_disk_bytes", f"less than {floor} bytes would stay free on the disk")
        self._unseen, self._looked_at = 0, now
