"""What becomes of an error: the clip is tried again, it is given up, or the batch ends; and how long to wait."""

from __future__ import annotations

import errno
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from masklet.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    Internal,
    MaskletError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

if TYPE_CHECKING:
    from masklet._sync.client import Client

Verdict = Literal["again", "busy", "poison", "fatal"]
"""What to do after an error.

"again": try the clip again. "busy": the server has no room now, which is not the clip's fault. "poison": the same would
happen again. "fatal": the same would happen to every clip.
"""
_AGAIN = (Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable)
_FATAL = (Unauthenticated, Unimplemented)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EINTR)
_LONGEST_PAUSE_SECONDS = 30.0


def verdict(error: MaskletError | OSError) -> Verdict:
    """What to do after an error of a clip."""
    if isinstance(error, OSError):
        if error.errno in _NO_ROOM:
            return "fatal"
        return "again" if error.errno in _PASSING else "poison"
    if isinstance(error, ResourceExhausted) and error.retry_after_seconds is not None:
        return "busy"
    if isinstance(error, _FATAL):
        return "fatal"
    return "again" if isinstance(error, _AGAIN) else "poison"


def code_of(error: MaskletError | OSError) -> str:
    """The name of an error's status code, such as "UNAVAILABLE"; "OS" for files."""
    if isinstance(error, OSError):
        return "OS"
    name = type(error).__name__
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


def error_text(error: MaskletError | OSError) -> str:
    """What went wrong; of a file its name first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@dataclass(frozen=True)
class Patience:
    """How long to wait.

    Attributes:
        retries: How often a clip is tried again.
        pause_seconds: Before the first time; twice as long before each further one, at most 30 s.
        wait_seconds: How long a server that cannot be reached, or that has no room, is waited for.
    """

    retries: int = 3
    pause_seconds: float = 1.0
    wait_seconds: float = 600.0

    def pause(self, attempt: int, at_least: float = 0.0) -> float:
        """Seconds to wait after an attempt, counted from 1; some more or less, so that not all clips come at once."""
        usual = min(self.pause_seconds * 2.0 ** min(attempt - 1, 16), _LONGEST_PAUSE_SECONDS)
        return max(at_least, usual) * random.uniform(1.0, 1.5)


class ServerGate:
    """Lets clips through while the server takes requests; otherwise they wait here, and lose no attempt.

    Args:
        client: Asks the server.
        patience: How long to wait.
        stopped: Set when the batch is to end.
    """

    def __init__(self, client: Client, patience: Patience, stopped: threading.Event) -> None:
        self._client = client
        self._patience = patience
        self._stopped = stopped
        self._lock = threading.Lock()
        self._is_open = True

    def close(self) -> None:
        """The server was not there; have it asked before the next clip."""
        self._is_open = False

    def wait(self) -> None:
        """Wait until the server takes requests, or the batch is to end.

        Raises:
            Unavailable: It does not in time.
            MaskletError: It answers with another error.
        """
        if self._is_open:
            return
        with self._lock:
            deadline, attempt = time.monotonic() + self._patience.wait_seconds, 1
            while not self._is_open and not self._stopped.is_set():
                try:
                    is_there = not self._client.has_to_wait()  # which would last, and could not be stopped
                    self._is_open = is_there and self._client.health()
                    reason = "it is not ready" if is_there else "nobody listens there"
                except (Unavailable, DeadlineExceeded, Cancelled) as error:
                    reason = str(error)
                if self._is_open:
                    return
                if time.monotonic() >= deadline:
                    raise Unavailable(f"the server has not come back for {self._patience.wait_seconds:g} s: {reason}")
                self._stopped.wait(min(self._patience.pause(attempt), max(0.0, deadline - time.monotonic())))
                attempt += 1
