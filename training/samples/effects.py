"""What a camera and a codec do to pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.data.cache import Pixels
from training.samples.procedural import Generator


@dataclass(frozen=True)
class Effects:
    """Of one clip; `apply` leaves the truth as it is.

    Attributes:
        gain: Of brightness in the first frame.
        drift: Of the gain, from frame to frame.
        flicker: Its random part.
        softness: Deviation of a blur, in pixels.
        grain: Deviation of noise, in grey levels.
        quality: JPEG's, 1 to 100; 0 for none.
    """

    gain: float = 1
    drift: float = 0
    flicker: float = 0
    softness: float = 0
    grain: float = 0
    quality: int = 0

    @classmethod
    def draw(cls, rng: Generator) -> Effects:
        """Each effect in some of the clips."""
        return cls(
            gain=rng.uniform(0.7, 1.2),
            drift=rng.normal(0, 0.03),
            flicker=0.05 if rng.random() < 0.1 else 0,
            softness=rng.uniform(0.4, 1.2) if rng.random() < 0.3 else 0,
            grain=rng.uniform(1, 10) if rng.random() < 0.4 else 0,
            quality=int(rng.integers(25, 90)) if rng.random() < 0.35 else 0,
        )

    def apply(self, rng: Generator, frame: Pixels, t: int) -> Pixels:
        """``uint8[S, S, 3]`` as the camera hands it over."""
        gain = max(0.2, self.gain + self.drift * t + self.flicker * rng.normal())
        shown = cv2.convertScaleAbs(frame, alpha=gain)
        if self.softness:
            shown = cv2.GaussianBlur(shown, (0, 0), self.softness)
        if self.grain:
            grain = self.grain * rng.standard_normal(shown.shape[:2], dtype=np.float32)
            shown = cv2.add(shown, cv2.cvtColor(grain, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
        if self.quality:
            shown = _compressed(np.asarray(shown, np.uint8), self.quality)
        return np.asarray(shown, np.uint8)


def _compressed(frame: Pixels, quality: int) -> Pixels:
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
