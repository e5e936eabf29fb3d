"""The fastest way is taken, and never one that is wrong, that fails or that needs too much memory."""

from __future__ import annotations

import functools
import logging

import pytest
import torch
from torch import Tensor

from masklet_server.engine.network.tuning.fastest import ROUNDS, Candidate, far_off, fastest, other_masks

fault = functools.partial(far_off, tolerance=0.01)


class Ways:
    """Fake ways to compute, and a clock that they move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def way(
        self, name: str, seconds: float, result: float = 1.0, error: Exception | None = None, at: int = 0
    ) -> Candidate:
        """Takes so long and gives this; raises from its call number `at` on."""

        def run() -> list[Tensor]:
            self.now += seconds
            self.calls.append(name)
            if error is not None and self.calls.count(name) > at:
                raise error
            return [torch.tensor([result])]

        return Candidate(name, run)


@pytest.fixture
def ways() -> Ways:
    return Ways()


def test_the_fastest_is_taken_and_slow_wrong_and_failing_ones_are_not(
    ways: Ways, caplog: pytest.LogCaptureFixture
) -> None:
    candidates = [
        ways.way("plain", 1.0),
        ways.way("slow", 2.0),
        ways.way("wrong", 0.1, result=1.1),
        ways.way("raises", 0.1, error=RuntimeError("no kernel found\nand more")),
        ways.way("too large", 0.1, error=torch.OutOfMemoryError("CUDA out of memory")),
        ways.way("fast", 0.5, result=1.001),
    ]

    with caplog.at_level(logging.INFO):
        verdict = fastest("attention", candidates, fault, seconds=1000, clock=ways.clock)

    assert verdict.name == "fast"
    assert verdict.seconds == pytest.approx({"plain": 1.0, "slow": 2.0, "fast": 0.5})
    assert verdict.left_out == {
        "wrong": "result 0 differs by 0.1 of its greatest number",
        "raises": "it raised RuntimeError: no kernel found",
        "too large": "it ran out of memory",
    }
    for name in verdict.left_out:
        assert ways.calls.count(name) == 1, "it is not tried again"
        assert f"attention: {name} is left out" in caplog.text
    assert "attention: fast is taken (plain 1000.00 ms, slow 2000.00 ms, fast 500.00 ms)" in caplog.text


def test_a_way_that_fails_later_is_left_out(ways: Ways) -> None:
    candidates = [ways.way("plain", 1.0), ways.way("weak", 0.1, error=MemoryError(), at=3)]

    verdict = fastest("x", candidates, fault, seconds=1000, clock=ways.clock)

    assert verdict.name == "plain"
    assert verdict.left_out == {"weak": "it ran out of memory"}


@pytest.mark.parametrize("at", [0, 2])
def test_the_plain_way_has_to_work(ways: Ways, at: int) -> None:
    candidates = [ways.way("plain", 1.0, error=RuntimeError("the device is gone"), at=at), ways.way("other", 1.0)]
    with pytest.raises(RuntimeError, match="the device is gone"):
        fastest("x", candidates, fault, seconds=1000, clock=ways.clock)


def test_a_small_difference_is_taken_for_chance(ways: Ways) -> None:
    candidates = [ways.way("plain", 1.0), ways.way("hardly faster", 0.98)]
    assert fastest("x", candidates, fault, seconds=1000, clock=ways.clock).name == "plain"


def test_one_slow_round_does_not_decide(ways: Ways) -> None:
    moments = iter([0.2, 9.0, 0.2, 9.0, 9.0, 9.0, 9.0, 9.0])

    def run() -> list[Tensor]:
        ways.now += next(moments)
        return [torch.ones(1)]

    candidates = [ways.way("plain", 1.0), Candidate("disturbed", run)]
    assert fastest("x", candidates, fault, seconds=1000, clock=ways.clock).name == "disturbed"


def test_measuring_ends_in_time(ways: Ways) -> None:
    candidates = [ways.way("plain", 1.0), ways.way("fast", 0.5), ways.way("late", 0.1)]

    verdict = fastest("x", candidates, fault, seconds=1.2, clock=ways.clock)

    assert verdict.name == "fast"
    assert verdict.left_out == {"late": "there was no time left to try it"}
    assert ways.calls == ["plain", "fast", "plain", "fast"], "one comparison and one round, of at most " + str(ROUNDS)


def test_what_stands_alone_is_not_timed(ways: Ways) -> None:
    assert fastest("x", [ways.way("plain", 1.0)], fault, seconds=5, clock=ways.clock).name == "plain"
    assert ways.calls == ["plain"]


def test_wrong_numbers_are_named() -> None:
    right = [torch.ones(3), torch.full((2,), 10.0)]
    assert far_off(right, right, tolerance=0) == ""
    assert far_off([torch.ones(3), torch.tensor([10.0, 8.0])], right, tolerance=0.1) == (
        "result 1 differs by 0.2 of its greatest number"
    )
    assert "not finite" in far_off([torch.ones(3), torch.tensor([float("nan"), 10])], right, tolerance=0.1)
    assert "other shapes" in far_off([torch.ones(3)], right, tolerance=0.1)


def mask(shift: int = 0, level: float = 8.0) -> Tensor:
    logits = torch.full((1, 1, 64, 64), -level)
    logits[..., 10:40, 10 + shift : 40 + shift] = level
    return logits


def test_other_masks_are_seen_and_rounding_near_zero_is_not() -> None:
    assert other_masks([mask()], [mask()]) == ""
    assert other_masks([mask(level=9)], [mask()]) == ""
    assert "other masks: IoU 0.9" in other_masks([mask(shift=1)], [mask()])
    unsure, other = mask(), mask()
    unsure[..., 50:, :], other[..., 50:, :] = 0.1, -0.1
    assert other_masks([unsure], [other]) == ""
    assert "not finite" in other_masks([mask() * float("inf")], [mask()])
    assert "result 0 differs" in other_masks([mask(), torch.ones(1)], [mask(), torch.full((1,), 2.0)])
    assert "it gives logits" in other_masks([mask()[..., :32]], [mask()])
