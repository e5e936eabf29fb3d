"""Things that are pasted into a scene: their pixels, how they move, and the pasting."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.data.cache import Pixels
from training.samples.motion import Limbs, Matrix, Path, Warp, affine
from training.samples.procedural import Floats, Generator

_LEAST_BLUR = 1.5  # pixels; below that nobody sees it
_MOST_BLUR = 31
_HALF = 127  # of a pixel covered


@dataclass(frozen=True)
class Sprite:
    """One thing in a scene.

    Attributes:
        pixels: ``uint8[N, N, 4]``: RGB, and how much of a pixel it covers.
        path: Where it is.
        warp: How it bends, if it does.
        limbs: The figure it is cut to at each moment, in place of its own outline.
        gone: Frames (first, last + 1) in which it is not there.
        shutter: Part of a frame's time in which motion blurs it.
    """

    pixels: Pixels
    path: Path
    warp: Warp | None = None
    limbs: Limbs | None = None
    gone: tuple[int, int] = (0, 0)
    shutter: float = 0

    def paste(self, frame: Pixels, ids: Pixels, number: int, t: int, camera: Matrix) -> None:
        """Draw it into ``frame``, ``uint8[S, S, 3]``, and its number into ``ids``, ``uint8[S, S]``."""
        if self.gone[0] <= t < self.gone[1]:
            return
        size, canvas = frame.shape[0], self.pixels.shape[0]
        to_frame = pixels_of(size) @ camera @ self.path.at(t) @ np.linalg.inv(pixels_of(canvas))
        blur = self._blur(t, size)
        x0, y0, x1, y1 = self._box(to_frame, size, margin=0 if blur is None else max(blur.shape))
        if x0 >= x1 or y0 >= y1:
            return
        inverse = np.asarray(np.linalg.inv(affine(move=(-x0, -y0)) @ to_frame), np.float64)
        patch = self._patch(inverse, x1 - x0, y1 - y0, t)
        alpha = np.ascontiguousarray(patch[..., 3])
        colour = cv2.multiply(np.ascontiguousarray(patch[..., :3]), _thrice(alpha), scale=1 / 255)
        if blur is not None:
            alpha = np.asarray(cv2.filter2D(alpha, -1, blur, borderType=cv2.BORDER_CONSTANT), np.uint8)
            colour = cv2.filter2D(colour, -1, blur, borderType=cv2.BORDER_CONSTANT)
        region = frame[y0:y1, x0:x1]
        region[:] = cv2.add(cv2.multiply(region, _thrice(~alpha), scale=1 / 255), colour)
        ids[y0:y1, x0:x1][alpha > _HALF] = number

    def _patch(self, inverse: Matrix, width: int, height: int, t: int) -> Pixels:
        """``uint8[height, width, 4]``: the sprite as a region of the frame sees it."""
        pixels = self.pixels
        if self.limbs is not None:
            pixels = np.dstack([pixels[..., :3], self.limbs.alpha(t, len(pixels))])
        if self.warp is None:
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            return np.asarray(cv2.warpAffine(pixels, inverse[:2], (width, height), flags=flags), np.uint8)
        columns = np.arange(width, dtype=np.float32)[None, :]
        rows = np.arange(height, dtype=np.float32)[:, None]
        (a, b, c), (d, e, f) = inverse[:2].astype(np.float32)
        bend = self.warp.field(t, width, height) * np.float32(len(pixels))
        map_x, map_y = a * columns + b * rows + c + bend[..., 0], d * columns + e * rows + f + bend[..., 1]
        return np.asarray(cv2.remap(pixels, map_x, map_y, cv2.INTER_LINEAR), np.uint8)

    def _box(self, to_frame: Matrix, size: int, margin: int) -> tuple[int, int, int, int]:
        canvas = len(self.pixels)
        slack = 0.1 * canvas if self.warp is not None else 0
        low, high = -slack, canvas + slack
        corners = to_frame @ np.array([[low, high, low, high], [low, low, high, high], [1, 1, 1, 1]])
        x0, y0 = np.floor(corners[:2].min(axis=1)).astype(int) - margin
        x1, y1 = np.ceil(corners[:2].max(axis=1)).astype(int) + margin
        return max(0, int(x0)), max(0, int(y0)), min(size, int(x1)), min(size, int(y1))

    def _blur(self, t: int, size: int) -> Floats | None:
        """The kernel of its motion while the shutter is open, or None if that is too short to see."""
        if not self.shutter:
            return None
        return line_kernel((self.path.position(t + 0.5) - self.path.position(t - 0.5)) * size * self.shutter)


def _thrice(channel: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(channel, cv2.COLOR_GRAY2RGB), np.uint8)


def line_kernel(move: npt.NDArray[np.float64]) -> Floats | None:
    """A blur along a line of pixels (x, y), or None if the line is too short to see."""
    length = float(np.hypot(*move))
    if length < _LEAST_BLUR:
        return None
    move = move * min(1, _MOST_BLUR / length)
    half = math.ceil(min(length, _MOST_BLUR) / 2)
    kernel = np.zeros((2 * half + 1,) * 2, np.float32)
    first, last = ((half + sign * move / 2).round().astype(int).tolist() for sign in (-1, 1))
    cv2.line(kernel, first, last, 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)


def pixels_of(size: int) -> Matrix:
    """From the unit square about the origin to pixels, whose centres are whole numbers."""
    return affine(scale=size, move=(size / 2 - 0.5, size / 2 - 0.5))


def shrunk(pixels: Pixels, size: float) -> Pixels:
    """Pixels at about the size at which they will be seen, so that warping need not skip any."""
    side = int(np.clip(np.ceil(size), 8, len(pixels)))
    if side == len(pixels):
        return pixels
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def recoloured(rng: Generator, pixels: Pixels, strength: float = 1) -> Pixels:
    """Other brightness, contrast and tint; perhaps other colours altogether."""
    channels = 3 if rng.random() < 0.5 else 1
    gain = np.exp(rng.normal(0, 0.3 * strength, (1, channels)))
    bias = rng.normal(0, 25 * strength, (1, channels))
    table = np.clip(np.arange(256)[:, None] * gain + bias, 0, 255).astype(np.uint8)
    colour = cv2.LUT(
        np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(np.broadcast_to(table, (256, 3))[None])
    )
    if rng.random() < 0.2 * strength:
        colour = colour[..., rng.permutation(3)]
    return np.concatenate([colour, pixels[..., 3:]], axis=-1)
