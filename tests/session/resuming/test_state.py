"""The states of a resumable session."""

from __future__ import annotations

from masklet_server.session.resuming.state import TRANSITIONS, Change, Presence


def test_the_end_is_the_end_and_only_a_call_can_park() -> None:
    assert {TRANSITIONS[state, change] for state, change in TRANSITIONS if state is Presence.ENDED} == {Presence.ENDED}
    assert (Presence.ENDED, Change.ATTACH) not in TRANSITIONS
    assert (Presence.PARKED, Change.DETACH) not in TRANSITIONS
    assert {state for (state, change), to in TRANSITIONS.items() if to is Presence.PARKED} == {Presence.ATTACHED}
    assert all((state, Change.END) in TRANSITIONS for state in Presence)
