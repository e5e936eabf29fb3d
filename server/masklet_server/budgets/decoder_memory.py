"""Memory of decoding processes, shared by all clients.

A process is admitted with a little. When the size of its video is known, it is admitted once more with what such a
video needs. A thread measures what the processes really have. Whoever outgrows the bounds loses its largest process.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Budget

logger = logging.getLogger(__name__)

# What a process has that decodes a small video, beside the pages that it shares with the fork server.
START_BYTES = 24 * 1024**2
# Frames that a decoder holds, with those that refer to one another, and the bytes of a pixel in most videos.
_FRAMES = 12
_BYTES_PER_PIXEL = 1.5
_SAMPLE_SECONDS = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


def needed_for(height: int, width: int) -> int:
    """Memory in bytes that decoding a common video of this size takes. Uncommon ones take more, which is measured."""
    return START_BYTES + int(height * width * _BYTES_PER_PIXEL * _FRAMES)


def memory_of(process_id: int) -> int:
    """Bytes of a process's memory, without what it shares by name, such as libraries and pixels; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{process_id}/statm").read_bytes().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE


class DecoderLease:
    """Memory of one decoding process: from its admission until `close`.

    Attributes:
        client: Whose video it decodes.
        error: Why the process was killed, if that was for its memory.
    """

    def __init__(self, memory: DecoderMemory, client: str, nbytes: int) -> None:
        self.client = client
        self.error: ResourceExhausted | None = None
        self._memory = memory
        self._nbytes = nbytes
        self._process_id = 0
        self._inherited = 0
        self._is_closed = False
        # The event loop, or a thread with a picture, and the thread that measures both raise `nbytes`.
        self._lock = threading.Lock()
        self._kill: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        """Bytes that it may have, and those that it has beyond them."""
        return self._nbytes

    def started(self, process_id: int, kill: Callable[[], None]) -> None:
        """Measure the process from now on.

        Args:
            process_id: Of a process that has just been forked.
            kill: Ends it; any thread may call it.
        """
        self._process_id, self._kill = process_id, kill
        self._inherited = memory_of(process_id)
        self._memory.watch(self)

    def expect(self, nbytes: int) -> None:
        """Say how much the process will need in all.

        Raises:
            ResourceExhausted: So much is not there.
        """
        with self._lock:
            if nbytes > self._nbytes and not self._is_closed:
                self._memory.budget.take(self.client, nbytes - self._nbytes)
                self._nbytes = nbytes

    def measure(self) -> None:
        """Count what the process has taken beyond what was expected.

        Raises:
            ResourceExhausted: So much is not there.
        """
        self.expect(max(0, memory_of(self._process_id) - self._inherited))

    def kill_for(self, error: ResourceExhausted) -> None:
        """End the process because memory is short."""
        self.error = error
        logger.warning(
            "a decoding process was ended, because decoders have too little memory",
            extra={"client": self.client, "bytes": self._nbytes, "pid": self._process_id},
        )
        self._kill()

    def close(self) -> None:
        """The process has ended; may be called twice."""
        self._memory.forget(self)
        with self._lock:
            self._is_closed = True
            nbytes, self._nbytes = self._nbytes, 0
        if nbytes:
            self._memory.budget.give_back(self.client, nbytes)


class DecoderMemory:
    """The memory of all decoding processes of a server.

    Args:
        budget: How much there is.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._leases: set[DecoderLease] = set()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def admit(self, client: str) -> DecoderLease:
        """Let a client have one more process.

        Raises:
            ResourceExhausted: There is too little memory for it.
        """
        self.budget.take(client, START_BYTES)
        return DecoderLease(self, client, START_BYTES)

    def watch(self, lease: DecoderLease) -> None:
        """Measure the lease's process until `forget`."""
        bounds = self.budget.bounds
        with self._lock:
            if self._closed.is_set() or not (bounds.total or bounds.per_client):
                return
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="masklet-decoder-memory", daemon=True)
                self._thread.start()
        self._changed.set()

    def forget(self, lease: DecoderLease) -> None:
        """The lease's process has ended."""
        with self._lock:
            self._leases.discard(lease)

    def close(self) -> None:
        """End the thread that measures processes."""
        with self._lock:
            self._closed.set()
            self._leases.clear()
            thread = self._thread
        self._changed.set()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_SAMPLE_SECONDS):
            self._changed.wait()
            with self._lock:
                leases = list(self._leases)
                if not leases and not self._closed.is_set():
                    self._changed.clear()  # nothing is measured until a process is watched
            for lease in leases:
                self._measure(lease, leases)

    def _measure(self, lease: DecoderLease, leases: list[DecoderLease]) -> None:
        if lease.error is not None:
            return
        try:
            lease.measure()
        except ResourceExhausted as error:
            # A client with more than its part pays for it; if all together have too much, the one that has the most.
            is_own = any(v.field.endswith("_per_client") for v in error.violations)
            payer = lease.client if is_own else next(iter(self.budget.clients), lease.client)
            candidates = [one for one in leases if one.client == payer and one.error is None]
            max(candidates, key=lambda one: one.nbytes, default=lease).kill_for(error)
