"""The Kalman filter that predicts a box."""

from __future__ import annotations

import json

import numpy as np
import pytest

from masklet_server.engine.memory.policies.motion import Box, Motion, overlap

SIZE = 20.0


def box_at(frame: int, velocity: float = 3.0, growth: float = 0.0) -> Box:
    x, size = 10 + velocity * frame, SIZE + growth * frame
    return x, 40.0, x + size, 40.0 + size


def after(frames: int, **way: float) -> Motion:
    motion = Motion.start(box_at(0, **way))
    for frame in range(1, frames):
        motion = motion.predicted().updated(box_at(frame, **way))
    return motion


def test_a_box_seen_once_is_expected_where_it_was() -> None:
    assert Motion.start(box_at(0)).predicted().box == pytest.approx(box_at(0))


@pytest.mark.parametrize("way", [{"velocity": 3.0}, {"velocity": -2.0}, {"velocity": 0.0}, {"growth": 1.0}])
def test_a_steady_box_is_foretold(way: dict[str, float]) -> None:
    motion = after(25, **way)
    assert motion.predicted().box == pytest.approx(box_at(25, **way), abs=0.2)
    for _ in range(5):
        motion = motion.predicted()
    assert motion.box == pytest.approx(box_at(29, **way), abs=0.6)


def test_a_measurement_lies_between_what_was_expected_and_what_was_seen() -> None:
    expected = after(20).predicted()
    jump: Box = (100.0, 40.0, 120.0, 60.0)
    assert expected.box[0] < expected.updated(jump).box[0] < jump[0]


def test_it_grows_surer_by_seeing_and_less_sure_by_foretelling() -> None:
    first, later = Motion.start(box_at(0)), after(20)
    assert (later.covariance[:, 1, 1] < first.covariance[:, 1, 1]).all()
    assert (later.predicted().covariance[:, 0, 0] > later.covariance[:, 0, 0]).all()
    for covariance in (first.covariance, later.covariance, later.predicted().covariance):
        np.testing.assert_allclose(covariance, covariance.transpose(0, 2, 1))
        assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_it_agrees_with_the_textbook() -> None:
    """Compare one coordinate with the formula in matrices."""
    motion = after(7)
    x, p = motion.mean[0], motion.covariance[0]
    step, seen = np.array([[1, 1], [0, 1]]), np.array([[1, 0]])
    noise = np.diag([(SIZE / 20) ** 2, (SIZE / 160) ** 2])
    x, p = step @ x, step @ p @ step.T + noise
    gain = p @ seen.T @ np.linalg.inv(seen @ p @ seen.T + (SIZE / 20) ** 2)
    x, p = x + (gain @ (np.array([55.0]) - seen @ x)), p - gain @ seen @ p
    updated = motion.predicted().updated((45.0, 40.0, 65.0, 60.0))
    np.testing.assert_allclose(updated.mean[0], x)
    np.testing.assert_allclose(updated.covariance[0], p)


def test_json_keeps_every_bit() -> None:
    motion = after(9)
    again = Motion.from_json(json.loads(json.dumps(motion.to_json())))
    assert np.array_equal(again.mean, motion.mean)
    assert np.array_equal(again.covariance, motion.covariance)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), None, 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),
    ],
)
def test_overlap_is_intersection_over_union(a: Box, b: Box | None, expected: float) -> None:
    assert overlap(a, b) == pytest.approx(expected)
