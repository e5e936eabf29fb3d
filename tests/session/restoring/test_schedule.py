"""When snapshots are made."""

from __future__ import annotations

from masklet_server.session.restoring.schedule import INPUT_BYTES, SECONDS, Schedule


class Session:
    """A clock, and the bytes of video that a session has taken."""

    def __init__(self) -> None:
        self.now, self.taken = 100.0, 0
        self.schedule = Schedule(64, lambda: self.taken, lambda: self.now)

    def is_due(self) -> bool:
        return self.schedule.is_due


def test_a_slow_session_has_little_to_do_again() -> None:
    session = Session()
    session.now += 60
    assert not session.is_due(), "there is nothing new"
    session.schedule.taken()
    session.schedule.frame_tracked()
    session.now += SECONDS - 0.1
    assert not session.is_due()
    session.now += 0.2
    assert session.is_due()
    assert SECONDS <= 3.0, "a stream is to go on within 5 s after its server's end"


def test_frames_and_bytes_count_too() -> None:
    session = Session()
    for _ in range(63):
        session.schedule.frame_tracked()
    assert not session.is_due()
    session.schedule.frame_tracked()
    assert session.is_due()
    session.schedule.taken()
    session.taken += INPUT_BYTES
    assert not session.is_due()
    session.schedule.frame_tracked()
    assert session.is_due()


def test_a_failure_is_followed_by_a_pause() -> None:
    session = Session()
    session.schedule.failed(10.0)
    assert not session.is_due()
    session.now += 10.1
    assert session.is_due()
