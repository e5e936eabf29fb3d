"""Times of frames in nanoseconds."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from masklet_server.video.frame import in_nanoseconds


@given(st.integers(-(2**63), 2**63), st.fractions(Fraction(1, 10**12), 10**3))
@example(1, Fraction(1, 2 * 10**9))
@example(3, Fraction(1, 2 * 10**9))
@example(-1, Fraction(1, 2 * 10**9))
@example(-3, Fraction(1, 2 * 10**9))
def test_times_are_rounded_as_fractions_are(pts: int, time_base: Fraction) -> None:
    assert in_nanoseconds(pts, time_base) == round(pts * time_base * 10**9)
