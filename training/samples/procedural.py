"""Textures and shapes out of random numbers."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from training.data.cache import Pixels

Floats = npt.NDArray[np.float32]
Generator = np.random.Generator


def noise(rng: Generator, size: int, octaves: int) -> Floats:
    """``float32[size, size]`` from 0 to 1: smooth noise, coarse to fine."""
    total: Floats = np.zeros((size, size), np.float32)
    amplitude = 1.0
    for octave in range(octaves):
        cells = rng.random((2 ** (octave + 1) + 1,) * 2, dtype=np.float32)
        total += amplitude * np.asarray(cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC))
        amplitude *= rng.uniform(0.4, 0.8)
    total -= total.min()
    return np.asarray(total / (total.max() + 1e-6), np.float32)


def texture(rng: Generator, size: int) -> Pixels:
    """``uint8[size, size, 3]``: clouds of one or many colours, stripes, checks or a gradient between two colours."""
    kind = rng.choice(["clouds", "colours", "stripes", "checks", "gradient", "speckles"])
    if kind == "clouds":
        mix = noise(rng, size, int(rng.integers(1, 7)))[..., None]
    elif kind == "colours":
        mix = np.stack([noise(rng, size, int(rng.integers(1, 6))) for _ in range(3)], axis=-1)
    elif kind == "speckles":
        mix = (noise(rng, size, 6) > rng.uniform(0.4, 0.7)).astype(np.float32)[..., None]
    else:
        mix = _pattern(rng, size, kind)[..., None]
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    return np.asarray(np.clip(first + (second - first) * mix, 0, 255), np.uint8)


def _pattern(rng: Generator, size: int, kind: str) -> Floats:
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    if kind == "gradient":
        return np.asarray((along - along.min()) / (np.ptp(along) + 1e-6), np.float32)
    frequency = rng.uniform(0.05, 0.6)
    bend = 4 * rng.random() * noise(rng, size, 2)
    waves = np.sin(frequency * along + bend)
    if kind == "checks":
        waves = waves * np.sin(frequency * (rows * np.cos(angle) - columns * np.sin(angle)) + bend)
    mix = 0.5 + 0.5 * waves
    return np.asarray(mix > 0.5 if rng.random() < 0.5 else mix, np.float32)


def shape(rng: Generator, size: int) -> Pixels:
    """``uint8[size, size]``: one shape about the middle, 255 inside, with a soft edge of a pixel."""
    draw = _SHAPES[int(rng.integers(len(_SHAPES)))]
    canvas = np.zeros((2 * size, 2 * size), np.uint8)
    draw(rng, canvas)
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _around(rng: Generator, canvas: Pixels, corners: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.sort(rng.uniform(0, 2 * np.pi, corners)), canvas.shape[0] * 0.47 * rng.uniform(0.35, 1, corners)


def _fill(canvas: Pixels, angles: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> None:
    points = canvas.shape[0] / 2 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 255)


def _polygon(rng: Generator, canvas: Pixels) -> None:
    _fill(canvas, *_around(rng, canvas, int(rng.integers(3, 12))))


def _smooth(rng: Generator, canvas: Pixels) -> None:
    angles, radii = _around(rng, canvas, int(rng.integers(5, 14)))
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    spectrum = np.fft.rfft(np.interp(turn, angles, radii, period=2 * np.pi))
    spectrum[int(rng.integers(4, 10)) :] = 0
    _fill(canvas, turn, np.fft.irfft(spectrum, len(turn)))


def _island(rng: Generator, canvas: Pixels) -> None:
    size = canvas.shape[0]
    rows, columns = np.mgrid[:size, :size]
    height = noise(rng, size, 4) - 1.8 * np.hypot(rows - size / 2, columns - size / 2) / size
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((height > np.percentile(height, 70)).astype(np.uint8))
    canvas[pieces == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])] = 255


def _ring(rng: Generator, canvas: Pixels) -> None:
    size = canvas.shape[0]
    axes = (int(size * 0.4), int(size * 0.4 * rng.uniform(0.4, 1)))
    cv2.ellipse(canvas, (size // 2,) * 2, axes, rng.uniform(0, 180), 0, rng.uniform(200, 360), 255, _stroke(rng, size))


def _line(rng: Generator, canvas: Pixels) -> None:
    """A bent stroke: thin things are what small models lose first."""
    size = canvas.shape[0]
    knots = rng.uniform(0.08, 0.92, (int(rng.integers(2, 6)), 2)) * size
    dense = np.stack(
        [np.interp(np.linspace(0, 1, 40), np.linspace(0, 1, len(knots)), knots[:, axis]) for axis in (0, 1)], axis=-1
    )
    dense = cv2.GaussianBlur(dense, (1, 9), 3, borderType=cv2.BORDER_REPLICATE)
    cv2.polylines(canvas, [np.asarray(dense, np.int32)], isClosed=False, color=255, thickness=_stroke(rng, size))


def _stroke(rng: Generator, size: int) -> int:
    return int(size * np.exp(rng.uniform(np.log(0.03), np.log(0.16))))


def _two(rng: Generator, canvas: Pixels) -> None:
    """Two of the others, one upon the other."""
    for _ in range(2):
        _SHAPES[int(rng.integers(len(_SHAPES) - 1))](rng, canvas)


_SHAPES: tuple[Callable[[Generator, Pixels], None], ...] = (_polygon, _smooth, _smooth, _island, _ring, _line, _two)
