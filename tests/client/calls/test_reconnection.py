"""When a client tries again, and when it gives up."""

from __future__ import annotations

import pytest

import masklet
from masklet._transport.reconnection import (
    BEGIN_SECONDS,
    FIRST_DELAY_SECONDS,
    MAX_DELAY_SECONDS,
    MAX_VAIN_REWINDS,
    Reconnection,
)

LOST = masklet.Unavailable("the connection was lost")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reconnection(
    clock: Clock, seconds: float = 60.0, events: list[masklet.ResumeEvent] | None = None, spread: float = 0.0
) -> Reconnection:
    return Reconnection(seconds, None if events is None else events.append, clock, lambda: spread)


def test_the_time_between_tries_doubles_up_to_a_bound() -> None:
    subject = reconnection(Clock())
    delays = [subject.lost(LOST, None) for _ in range(8)]
    assert delays[:3] == [FIRST_DELAY_SECONDS, 2 * FIRST_DELAY_SECONDS, 4 * FIRST_DELAY_SECONDS]
    assert delays[-1] == MAX_DELAY_SECONDS


def test_many_clients_do_not_come_back_at_once() -> None:
    first, last = (reconnection(Clock(), spread=spread).lost(LOST, None) for spread in (0.0, 1.0))
    assert last == first / 2


def test_a_result_makes_the_time_short_again() -> None:
    subject = reconnection(Clock())
    for _ in range(4):
        subject.lost(LOST, None)
    subject.resumed("attached", 3)
    assert subject.lost(LOST, None) > FIRST_DELAY_SECONDS, "nothing has come"
    subject.resumed("attached", 3)
    subject.progressed()
    assert subject.lost(LOST, None) == FIRST_DELAY_SECONDS


def test_it_gives_up_in_time_and_says_why() -> None:
    clock = Clock()
    subject = reconnection(clock, seconds=10.0)
    subject.lost(LOST, 7)
    clock.now += 9.9
    assert subject.lost(LOST, 7) == pytest.approx(0.1), "the last try comes at the end of the time"
    clock.now += 0.1
    with pytest.raises(masklet.Unavailable, match=r"^the connection was lost; .* again for 10 s: refused$"):
        subject.lost(masklet.Unavailable("refused"), 7)


def test_a_server_without_the_session_ends_it() -> None:
    subject = reconnection(Clock())
    subject.lost(LOST, None)
    gone = masklet.NotFound("there is no such session")
    assert subject.is_worth_a_try(gone), "to be told in other words"
    with pytest.raises(
        masklet.Unavailable, match=r"^the connection was lost; the stream cannot be resumed: there is no"
    ):
        subject.lost(gone, None)


def test_not_found_without_a_break_before_it_is_the_servers_own_word() -> None:
    assert not reconnection(Clock()).is_worth_a_try(masklet.NotFound("no such model"))


def test_a_server_that_has_never_answered_is_given_up_soon() -> None:
    clock = Clock()
    subject = reconnection(clock)
    subject.lost(LOST, None, has_begun=False)
    clock.now += BEGIN_SECONDS / 2
    assert subject.lost(LOST, None, has_begun=False) <= BEGIN_SECONDS / 2
    clock.now += BEGIN_SECONDS / 2
    with pytest.raises(masklet.Unavailable, match=r"^the connection was lost$"):
        subject.lost(LOST, None, has_begun=False)


def test_a_full_server_is_asked_again_when_it_says_so() -> None:
    subject = reconnection(Clock())
    subject.lost(LOST, None)
    full = masklet.ResourceExhausted("too many sessions", retry_after_seconds=4.0)
    assert subject.is_worth_a_try(full)
    assert subject.lost(full, None) == 4.0
    assert not subject.is_worth_a_try(masklet.ResourceExhausted("the disk is full"))
    with pytest.raises(masklet.ResourceExhausted, match=r"^too many sessions$"):
        subject.lost(masklet.ResourceExhausted("too many sessions", retry_after_seconds=61.0), None)


def test_a_server_that_says_when_is_not_asked_before() -> None:
    clock = Clock()
    subject = reconnection(clock, seconds=60.0)
    later = masklet.Unavailable("no worker is there", retry_after_seconds=30.0)
    assert subject.lost(later, None) == 30.0
    clock.now += 40
    with pytest.raises(masklet.Unavailable, match=r"^no worker is there$"):
        subject.lost(later, None)
    full = masklet.ResourceExhausted("too many sessions", retry_after_seconds=1.0)
    clock.now += 30
    with pytest.raises(masklet.ResourceExhausted, match=r"^too many sessions$"):
        subject.lost(full, None)


def test_a_video_that_ends_the_server_again_and_again_is_given_up() -> None:
    subject = reconnection(Clock())
    for _ in range(MAX_VAIN_REWINDS):
        subject.lost(LOST, 5)
        subject.resumed("rewound", 5)
    with pytest.raises(masklet.Unavailable, match="the server broke down 2 times while it went over this video again"):
        subject.lost(LOST, 5)


def test_the_caller_is_told_once_of_each_break(caplog: pytest.LogCaptureFixture) -> None:
    events: list[masklet.ResumeEvent] = []
    clock = Clock()
    subject = reconnection(clock, events=events)
    subject.lost(LOST, 5)
    clock.now += 1.5
    subject.lost(masklet.Unavailable("refused"), 5)
    subject.resumed("attached", 5)
    assert [(one.kind, one.frame_index, one.seconds, one.how) for one in events] == [
        ("lost", 5, 0.0, None),
        ("resumed", 5, 1.5, "attached"),
    ]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "connection lost, trying for up to 60 s to go on (the connection was lost)"
    ]
