"""An amount that all clients share, such as bytes on disk, and of which each may have a part."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from masklet.errors import FieldViolation, ResourceExhausted

_RETRY_SECONDS = 5.0


def exhausted(limit: str, description: str, seconds: float = _RETRY_SECONDS) -> ResourceExhausted:
    """The one error of a request for which a shared amount does not suffice.

    Args:
        limit: Name of the setting that bounds the amount.
        description: What is used up, and by whom.
        seconds: When trying again may help.
    """
    return ResourceExhausted(
        f"{description} ({limit}); try again in {seconds:.3g} s",
        violations=(FieldViolation(limit, description),),
        retry_after_seconds=seconds,
    )


@dataclass(frozen=True)
class Bounds:
    """How much there is.

    Attributes:
        total: For all clients together; 0: no limit.
        per_client: For one client; 0: no limit.
    """

    total: int = 0
    per_client: int = 0


class Budget:
    """Bytes that clients take and give back. May be used by any thread.

    Args:
        name: Name of the setting that bounds the total; with "_per_client" behind it, that of the bound of one client.
        what: What the bytes are, for errors, such as "temporary files".
        bounds: How much there is.
        on_refused: Called with the name of the setting that has refused something.
    """

    def __init__(
        self, name: str, what: str, bounds: Bounds, on_refused: Callable[[str], None] = lambda limit: None
    ) -> None:
        self.name = name
        self.bounds = bounds
        self._what = what
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._used: Counter[str] = Counter()
        # What is given back may be given back by the garbage collector, in the middle of `take`. So no lock is taken.
        self._returned: deque[tuple[str, int]] = deque()

    @property
    def used(self) -> int:
        """Bytes that all clients have now."""
        with self._lock:
            self._settle()
            return self._used.total()

    def used_by(self, client: str) -> int:
        """Bytes that one client has now."""
        with self._lock:
            self._settle()
            return self._used[client]

    @property
    def clients(self) -> list[str]:
        """Those who have something, the one with the most first."""
        with self._lock:
            self._settle()
            return [client for client, _ in self._used.most_common()]

    def take(self, client: str, amount: int) -> None:
        """Take some bytes.

        Raises:
            ResourceExhausted: The client, or all clients together, would have more than the bounds allow.
        """
        with self._lock:
            self._settle()
            limit, text = self._missing(client, amount)
            if not limit:
                self._used[client] += amount
                return
        raise self.refusal(limit, text)

    def refusal(self, limit: str, description: str) -> ResourceExhausted:
        """Count a refusal; returns its error."""
        self._on_refused(limit)
        return exhausted(limit, description)

    def give_back(self, client: str, amount: int) -> None:
        """Give bytes back that were taken."""
        self._returned.append((client, amount))

    def _missing(self, client: str, amount: int) -> tuple[str, str]:
        bounds = self.bounds
        if 0 < bounds.per_client < self._used[client] + amount:
            return (
                f"{self.name}_per_client",
                f"{self._what} of {client} would take more than the {bounds.per_client} bytes that one client may have",
            )
        if 0 < bounds.total < self._used.total() + amount:
            return self.name, f"{self._what} of all clients would take more than the {bounds.total} bytes there are"
        return "", ""

    def _settle(self) -> None:
        while self._returned:
            client, amount = self._returned.popleft()
            self._used[client] -= amount
            if self._used[client] <= 0:
                del self._used[client]


class Share:
    """A budget as what belongs to one client sees it, such as a temporary file.

    Args:
        budget: What all clients share.
        client: Who takes from it.
    """

    def __init__(self, budget: Budget, client: str) -> None:
        self._budget = budget
        self._client = client

    def take(self, amount: int) -> None:
        """Take some bytes; raises ResourceExhausted as `Budget.take` does."""
        self._budget.take(self._client, amount)

    def give_back(self, amount: int) -> None:
        """Give bytes back that were taken."""
        self._budget.give_back(self._client, amount)
