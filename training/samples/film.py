"""Real video as what is behind everything: its frames as they are, its object where it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from typing_extensions import Self

from training.data.cache import Pack, Pixels, Video
from training.samples.lifted import filled
from training.samples.motion import Matrix, affine
from training.samples.procedural import Generator
from training.samples.sprites import pixels_of, recoloured

_LEAST_SIDE = 0.45  # of the video's frame that a crop shows
_STILL = 0.12  # part of the clips that show one frame only, seen by a moving camera
_MOST_STRIDE = 4  # frames of the video to one of the clip


@dataclass(frozen=True)
class Film:
    """A part of a real video; a `Backdrop` to a scene.

    Attributes:
        frames: ``uint8[H, W, 3]`` each, of all videos.
        masks: ``uint8[H, W]`` each, 1 where the object is.
        numbers: Those of the frames that are seen, by time.
        base: From their pixels to the frame's unit square.
        tint: Seed of the change of colours, the same for all frames.
        emptied: The object is painted over.
    """

    frames: Pack
    masks: Pack
    numbers: tuple[int, ...]
    base: Matrix
    tint: int
    emptied: bool = False

    def draw(self, size: int, t: int, camera: Matrix) -> tuple[Pixels, Pixels]:
        """``uint8[size, size, 3]`` and ``uint8[size, size]``, 1 where the object is."""
        frame, mask = self.frames[self.numbers[t]], self.masks[self.numbers[t]]
        if self.emptied:
            frame, mask = filled(frame, mask), np.zeros_like(mask)
        matrix = pixels_of(size) @ camera @ self.base
        mirrored = cv2.BORDER_REFLECT_101
        seen = cv2.warpPerspective(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=mirrored)
        cover = cv2.warpPerspective(mask * np.uint8(255), matrix, (size, size), flags=cv2.INTER_LINEAR)
        tinted = recoloured(np.random.default_rng(self.tint), np.asarray(seen, np.uint8), 0.5)
        return tinted, (cover > 127).astype(np.uint8)

    def without(self, number: int) -> Self:
        """The same with its object painted over."""
        assert number == 1
        return replace(self, emptied=True)


def choose(rng: Generator, videos: tuple[Video, ...], length: int) -> tuple[int, ...]:
    """Numbers of `length` frames of a video, some of its frames apart, or one of them again and again."""
    video = videos[int(rng.integers(len(videos)))]
    if length == 1 or rng.random() < _STILL:
        return (video.first + int(rng.integers(video.count)),) * length
    most = max(1, min(_MOST_STRIDE, (video.count - 1) // (length - 1)))
    stride = int(rng.integers(1, most + 1))
    start = int(rng.integers(max(1, video.count - stride * (length - 1))))
    return tuple(video.first + min(start + stride * t, video.count - 1) for t in range(length))


def crop(rng: Generator, mask: Pixels) -> Matrix:
    """From a frame's pixels to the unit square: all of the frame, or a part that shows some of the object.

    As when masklet sees video, frames are squeezed into a square.
    """
    height, width = mask.shape
    places = np.flatnonzero(mask)
    if rng.random() < 0.3 or not len(places):
        return stretched(width, height, (width / 2, height / 2))
    part = rng.uniform(_LEAST_SIDE, 1)
    across, down = width * part, height * min(1, part * float(np.exp(rng.normal(0, 0.2))))
    y, x = divmod(int(rng.choice(places)), width)
    x, y = x + rng.normal(0, 0.15) * across, y + rng.normal(0, 0.15) * down
    return stretched(
        across, down, (np.clip(x, across / 2, width - across / 2), np.clip(y, down / 2, height - down / 2))
    )


def stretched(width: float, height: float, centre: tuple[float, float]) -> Matrix:
    """From pixels to the unit square: a rectangle about a centre that becomes all of it."""
    scale, aspect = 1 / np.sqrt(width * height), np.sqrt(height / width)
    return affine(scale=scale, aspect=aspect) @ affine(move=(-centre[0], -centre[1]))
