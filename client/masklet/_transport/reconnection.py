"""When to try again after a connection was lost, and when to give up."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from masklet._protocol.options import OnResume, SessionOptions
from masklet._protocol.resumption import HowResumed, ResumeEvent
from masklet.errors import MaskletError, NotFound, ResourceExhausted, Unavailable

RESUME_SECONDS = 120.0
"""How long a client tries to reach the server again, if its caller says nothing else."""
FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0
# Where a server has never answered, something else than masklet may listen there.
BEGIN_SECONDS = 15.0
# A video that ends the server each time that it is gone over must not do so for ever.
MAX_VAIN_REWINDS = 2

_log = logging.getLogger("masklet")


class Reconnection:
    """The tries of one stream to go on after its connection was lost.

    The time between tries doubles from `FIRST_DELAY_SECONDS` to `MAX_DELAY_SECONDS`, and is shortened at random by up
    to a half, so that many clients do not come back at the same moment. It starts anew once a result has come.

    Args:
        seconds: How long to try without a connection.
        on_resume: Called when the connection is lost, and when the stream goes on.
        clock: Gives the time in seconds; another one for tests.
        spread: Gives random numbers from 0 to 1; another one for tests.
    """

    def __init__(
        self,
        seconds: float = RESUME_SECONDS,
        on_resume: OnResume | None = None,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._seconds = seconds
        self._on_resume = on_resume
        self._clock = clock
        self._spread = spread
        self._lost_at: float | None = None
        self._first_failure: MaskletError | None = None
        self._tries = self._vain_rewinds = 0

    @classmethod
    def of(cls, options: SessionOptions) -> Reconnection:
        """As the caller's options say."""
        return cls(options.get("resume_seconds", RESUME_SECONDS), options.get("on_resume"))

    @property
    def is_away(self) -> bool:
        """Whether the connection is lost, and the stream does not go on yet."""
        return self._lost_at is not None

    def lost(self, failure: MaskletError, frame_index: int | None, *, has_begun: bool = True) -> float:
        """Decide what to do after a call has broken, or has failed to resume the session.

        Args:
            failure: Why.
            frame_index: The last frame whose result is here; None where there is none.
            has_begun: Whether the server has answered at all.

        Returns:
            Seconds to wait before the next try.

        Raises:
            MaskletError: It is too late, or there is no use in trying again.
        """
        limit = self._seconds if has_begun else min(BEGIN_SECONDS, self._seconds)
        if self._lost_at is None or self._first_failure is None:
            if self._vain_rewinds >= MAX_VAIN_REWINDS:
                raise Unavailable(
                    f"the server broke down {self._vain_rewinds} times while it went over this video again; the last "
                    f"time: {failure}"
                )
            self._lost_at, self._first_failure = self._clock(), failure
            told = f"connection lost, trying for up to {limit:g} s to go on ({failure})"
            self._tell(ResumeEvent("lost", told, frame_index, 0.0))
        elif isinstance(failure, NotFound):
            raise Unavailable(f"{self._first_failure}; the stream cannot be resumed: {failure}") from failure
        delay = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**self._tries) * (1 - self._spread() / 2)
        asked_for = failure.retry_after_seconds or 0.0
        self._tries += 1
        away = self._clock() - self._lost_at
        left = limit - away
        if left <= 0 or asked_for > left:
            if not has_begun or asked_for > max(left, 0.0) or isinstance(failure, ResourceExhausted):
                raise failure  # the server was reached: what it says is the cause
            raise Unavailable(f"{self._first_failure}; it could not be reached again for {away:.0f} s: {failure}")
        # The last try comes when all of the time is over, not a whole delay before.
        return max(min(delay, left), asked_for)

    def is_worth_a_try(self, failure: MaskletError) -> bool:
        """Whether a server that has refused to resume may take the session later, or the refusal needs other words."""
        if not self.is_away:
            return False
        full = isinstance(failure, ResourceExhausted) and failure.retry_after_seconds is not None
        return full or isinstance(failure, NotFound)

    def resumed(self, how: HowResumed | None, frame_index: int | None, *, has_begun: bool = True) -> None:
        """Note that the stream goes on.

        Args:
            how: Where the server goes on from.
            frame_index: The last frame whose result is here; None where there is none.
            has_begun: Whether the server had answered before.
        """
        away = 0.0 if self._lost_at is None else self._clock() - self._lost_at
        self._lost_at = self._first_failure = None
        self._vain_rewinds += has_begun and how in ("rewound", "restored")
        at = "the start" if frame_index is None else f"frame {frame_index}"
        self._tell(ResumeEvent("resumed", f"resumed at {at} after {away:.1f} s", frame_index, away, how))

    def progressed(self) -> None:
        """Note that a result has come."""
        self._tries = self._vain_rewinds = 0

    def _tell(self, event: ResumeEvent) -> None:
        if event.kind == "lost":
            _log.warning("%s", event.message)
        else:
            _log.info("%s (%s)", event.message, event.how)
        if self._on_resume is not None:
            self._on_resume(event)
