"""Synthetic clips: textured ellipses over a textured ground, with their true masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Blob:
    """An ellipse and its motion, in fractions of the picture's width and height."""

    start: tuple[float, float]
    velocity: tuple[float, float]
    radii: tuple[float, float] = (0.12, 0.16)
    color: tuple[int, int, int] = (220, 90, 40)

    def center(self, frame_index: int, height: int, width: int) -> tuple[float, float]:
        """X and y in pixels; the blob bounces off the borders, so that it never leaves the picture."""
        x, y = (_bounce(s + v * frame_index) for s, v in zip(self.start, self.velocity, strict=True))
        return x * width, y * height

    def mask(self, frame_index: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """The blob's mask ``bool[H, W]``."""
        cx, cy = self.center(frame_index, height, width)
        ys, xs = np.mgrid[:height, :width] + 0.5
        rx, ry = self.radii[0] * width, self.radii[1] * height
        inside: npt.NDArray[np.bool_] = ((xs - cx) / rx) ** 2 + ((ys - cy) / ry) ** 2 <= 1
        return inside


BLOBS = (
    Blob((0.3, 0.4), (0.012, 0.006)),
    Blob((0.7, 0.6), (-0.01, 0.004), radii=(0.1, 0.1), color=(40, 120, 230)),
    Blob((0.5, 0.75), (0.004, -0.012), radii=(0.14, 0.08), color=(60, 200, 80)),
)


def _bounce(position: float, low: float = 0.2, high: float = 0.8) -> float:
    span = high - low
    phase = (position - low) % (2 * span)
    return low + (phase if phase <= span else 2 * span - phase)


@lru_cache(maxsize=64)
def texture(height: int, width: int, seed: int, contrast: float = 40.0) -> npt.NDArray[np.float32]:
    """Smooth noise ``float32[H, W, 3]`` around 0, the same read-only array for the same arguments."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(max(2, height // 16), max(2, width // 16), 3)).astype(np.float32)
    fine = rng.normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.asarray(smooth * contrast + fine * 6, np.float32)
    noise.flags.writeable = False
    return noise


def frame(frame_index: int, height: int, width: int, blobs: tuple[Blob, ...] = BLOBS, seed: int = 0) -> Image:
    """One frame ``uint8[H, W, 3]`` RGB."""
    picture = 110 + texture(height, width, seed)
    for i, blob in enumerate(blobs):
        inside = blob.mask(frame_index, height, width)
        surface = np.array(blob.color, np.float32) + texture(height, width, seed + 100 + i, contrast=15)
        picture[inside] = surface[inside]
    return np.clip(picture, 0, 255).astype(np.uint8)


def clip(num_frames: int, height: int, width: int, blobs: tuple[Blob, ...] = BLOBS, seed: int = 0) -> Image:
    """All frames ``uint8[T, H, W, 3]`` RGB."""
    return np.stack([frame(i, height, width, blobs, seed) for i in range(num_frames)])


@dataclass(frozen=True)
class Scene:
    """A ball that rolls to the right at constant speed, behind a wall or out of the picture, and may pass its twin.

    Attributes:
        start: X of its centre on frame 0, in parts of the width.
        speed: Of the width, in a frame.
        wall: Left and right side of a grey wall in front of it, in parts of the width; None: there is none.
        twin: Whether a ball of the same looks lies in the corner below its way.
    """

    start: float = 0.2
    speed: float = 0.025
    wall: tuple[float, float] | None = (0.42, 0.72)
    twin: bool = False

    RADIUS: ClassVar = 0.15  # of the height
    COLOR: ClassVar = (220, 90, 40)

    def frame(self, frame_index: int, height: int, width: int) -> Image:
        """One frame ``uint8[H, W, 3]`` RGB."""
        picture = 110 + texture(height, width, 0)
        balls = [self.ball(frame_index, height, width)] + ([_disc(0.12, 0.82, height, width)] if self.twin else [])
        for inside in balls:
            picture[inside] = (np.array(self.COLOR, np.float32) + texture(height, width, 100, contrast=15))[inside]
        wall = self._wall(height, width)
        picture[wall] = (np.array((70, 70, 80), np.float32) + texture(height, width, 7, contrast=10))[wall]
        return np.clip(picture, 0, 255).astype(np.uint8)

    def ball(self, frame_index: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Mask ``bool[H, W]`` of the whole ball, as if there were no wall."""
        return _disc(self.start + self.speed * frame_index, 0.45, height, width)

    def visible(self, frame_index: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Mask ``bool[H, W]`` of the visible part of the ball."""
        return self.ball(frame_index, height, width) & ~self._wall(height, width)

    def clip(self, num_frames: int, height: int, width: int) -> Image:
        """All frames ``uint8[T, H, W, 3]`` RGB."""
        return np.stack([self.frame(i, height, width) for i in range(num_frames)])

    def _wall(self, height: int, width: int) -> npt.NDArray[np.bool_]:
        wall = np.zeros((height, width), np.bool_)
        if self.wall is not None:
            left, right = self.wall
            wall[:, round(left * width) : round(right * width)] = True
        return wall


def _disc(x: float, y: float, height: int, width: int) -> npt.NDArray[np.bool_]:
    ys, xs = np.mgrid[:height, :width] + 0.5
    inside: npt.NDArray[np.bool_] = np.hypot(xs - x * width, ys - y * height) <= Scene.RADIUS * height
    return inside


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = np.logical_or(a, b).sum()
    return 1.0 if union == 0 else float(np.logical_and(a, b).sum() / union)
