"""The states of a resumable session, and what may happen in each.

    ATTACHED ──call ended──► PARKED ──resumed──► ATTACHED
        │                       │
        └──cancel, server──► ENDED ◄──time is over, evicted, server stops

While the session is ATTACHED, a newer call may take the place of the one that has it: it stays ATTACHED.

Apart from these states, the session inside has its own (`masklet_server.session.state`). It may be over while the
session is PARKED: then its last responses, and how it ended, wait for the client.
"""

from __future__ import annotations

import enum


class Presence(enum.Enum):
    """Whether a resumable session has a client."""

    ATTACHED = "attached"
    """A call has it."""

    PARKED = "parked"
    """Its call has ended. It goes on as far as it can without a client, and waits for the next call."""

    ENDED = "ended"
    """Nobody can resume it any more. Everything is freed, or is being freed."""


class Change(enum.Enum):
    """What may happen to a resumable session."""

    ATTACH = "attach"
    DETACH = "detach"
    END = "end"


TRANSITIONS: dict[tuple[Presence, Change], Presence] = {
    (Presence.PARKED, Change.ATTACH): Presence.ATTACHED,
    (Presence.ATTACHED, Change.ATTACH): Presence.ATTACHED,
    (Presence.ATTACHED, Change.DETACH): Presence.PARKED,
    (Presence.ATTACHED, Change.END): Presence.ENDED,
    (Presence.PARKED, Change.END): Presence.ENDED,
    (Presence.ENDED, Change.END): Presence.ENDED,
    (Presence.ENDED, Change.DETACH): Presence.ENDED,
}
