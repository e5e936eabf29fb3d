"""Ways for things to move: affine paths, warps that come and go, limbs that swing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.data.cache import Pixels
from training.samples.procedural import Floats, Generator

Matrix = npt.NDArray[np.float64]  # [3, 3], of points (x, y, 1)


def affine(
    *, scale: float = 1, aspect: float = 1, degrees: float = 0, move: tuple[float, float] = (0, 0), shear: float = 0
) -> Matrix:
    """Scale and shear about the origin, turn, then move."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn @ np.array([[scale * aspect, shear * scale], [0, scale / aspect]])
    matrix[:2, 2] = move
    return matrix


@dataclass(frozen=True)
class Path:
    """Where something is at each moment: a pose that drifts, speeds up, sways, and may go away and return.

    Lengths are in sides of the frame, angles in degrees, time in frames.
    """

    start: tuple[float, float]
    velocity: tuple[float, float]
    acceleration: tuple[float, float]
    sway: tuple[float, float]
    period: float
    scale: float
    growth: float
    aspect: float
    squash: float
    degrees: float
    spin: float
    excursion: tuple[float, float] = (0, 0)
    length: int = 1

    @classmethod
    def draw(
        cls, rng: Generator, length: int, *, scale: float, centre: tuple[float, float], pace: float, returns: bool
    ) -> Path:
        """A path from `centre`; `pace` 1 is that of ordinary video at some 10 frames a second."""

        def pair(deviation: float) -> tuple[float, float]:
            x, y = rng.normal(0, deviation * pace, 2)
            return float(x), float(y)

        away = rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(0.6, 1.1) if returns else 0
        return cls(
            start=centre,
            velocity=pair(0.025),
            acceleration=pair(0.006),
            sway=pair(0.02),
            period=rng.uniform(4, 16),
            scale=scale,
            growth=rng.normal(0, 0.025 * pace),
            aspect=np.exp(rng.normal(0, 0.2)),
            squash=rng.normal(0, 0.02 * pace),
            degrees=rng.uniform(0, 360) if rng.random() < 0.5 else rng.normal(0, 20),
            spin=rng.normal(0, 5 * pace),
            excursion=(distance * float(np.cos(away)), distance * float(np.sin(away))),
            length=length,
        )

    def position(self, t: float) -> npt.NDArray[np.float64]:
        """``float64[2]``: x and y at a moment."""
        phase = np.sin(2 * np.pi * t / self.period)
        away = np.sin(np.pi * t / max(1, self.length - 1)) ** 2
        return np.asarray(
            np.array(self.start)
            + np.array(self.velocity) * t
            + np.array(self.acceleration) * t * t / 2
            + np.array(self.sway) * phase
            + np.array(self.excursion) * away
        )

    def at(self, t: float) -> Matrix:
        """From a unit square about the origin to the frame's unit square."""
        x, y = self.position(t)
        return affine(
            scale=self.scale * float(np.exp(np.clip(self.growth * t, -1, 0.7))),
            aspect=self.aspect * float(np.exp(np.clip(self.squash * t, -0.5, 0.5))),
            degrees=self.degrees + self.spin * t,
            move=(float(x), float(y)),
        )


@dataclass(frozen=True)
class Warp:
    """A smooth displacement that changes with time, of a plate held at a grid of points.

    Attributes:
        first: ``float32[G, G, 2]``: displacements at the points, in sides of what is warped.
        second: Likewise, a quarter of a period later.
        period: In frames.
    """

    first: Floats
    second: Floats
    period: float

    @classmethod
    def draw(cls, rng: Generator, strength: float) -> Warp:
        """A random one that moves points by about `strength`."""
        points = int(rng.integers(3, 6))
        first, second = rng.normal(0, strength, (2, points, points, 2)).astype(np.float32)
        return cls(first, second, rng.uniform(5, 20))

    def field(self, t: float, width: int, height: int) -> Floats:
        """``float32[height, width, 2]``: displacements at a moment."""
        phase = 2 * np.pi * t / self.period
        grid = self.first * np.float32(np.sin(phase)) + self.second * np.float32(np.cos(phase))
        return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


@dataclass(frozen=True)
class Limbs:
    """A body with limbs of two parts each that swing.

    Attributes:
        body: Half axes of its ellipse, in sides of the canvas.
        roots: ``float64[L]``: angles at which limbs leave the body.
        lengths: ``float64[L, 2]`` of upper and lower parts.
        widths: ``float64[L]``.
        swings: ``float64[L, 2]``: amplitudes in radians.
        phases: ``float64[L]``.
        period: In frames.
    """

    body: tuple[float, float]
    roots: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.float64]
    widths: npt.NDArray[np.float64]
    swings: npt.NDArray[np.float64]
    phases: npt.NDArray[np.float64]
    period: float

    @classmethod
    def draw(cls, rng: Generator) -> Limbs:
        """A random one of two to six limbs."""
        count = int(rng.integers(2, 7))
        return cls(
            body=(rng.uniform(0.08, 0.2), rng.uniform(0.12, 0.26)),
            roots=rng.uniform(0, 2 * np.pi, count),
            lengths=rng.uniform(0.08, 0.16, (count, 2)),
            widths=rng.uniform(0.025, 0.09, count),
            swings=rng.normal(0, 0.5, (count, 2)),
            phases=rng.uniform(0, 2 * np.pi, count),
            period=rng.uniform(4, 14),
        )

    def alpha(self, t: float, size: int) -> Pixels:
        """``uint8[size, size]``: the figure at a moment, 255 inside."""
        canvas = np.zeros((size, size), np.uint8)
        middle = np.array([0.5, 0.5])
        axes = (int(self.body[0] * size), int(self.body[1] * size))
        cv2.ellipse(canvas, (size // 2, size // 2), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
        swing = np.sin(2 * np.pi * t / self.period + self.phases)
        for i, root in enumerate(self.roots):
            hip = middle + np.array([np.cos(root) * self.body[0], np.sin(root) * self.body[1]])
            upper = root + self.swings[i, 0] * swing[i]
            knee = hip + self.lengths[i, 0] * np.array([np.cos(upper), np.sin(upper)])
            lower = upper + self.swings[i, 1] * swing[i]
            foot = knee + self.lengths[i, 1] * np.array([np.cos(lower), np.sin(lower)])
            points = (np.stack([hip, knee, foot]) * size).astype(np.int32)
            width = max(1, int(self.widths[i] * size))
            cv2.polylines(canvas, [points], isClosed=False, color=255, thickness=width, lineType=cv2.LINE_AA)
        return canvas
