"""A Kalman filter with constant velocity for a box: where the box will be on the next frame.

The formula and the numbers are those of SORT (Bewley et al., https://arxiv.org/abs/1602.00763) and Deep SORT (Wojke et
al., https://arxiv.org/abs/1703.07402): noise is in proportion to the box. The centre's x and y, the width and the
height have a filter each, because none of the noises couples them. Values never change in place, so motions can be
shared between copies of a memory; OpenCV's filter can be neither copied nor written to a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# x0, y0, x1, y1
Box = tuple[float, float, float, float]

# Standard deviations as fractions of the box's width (for x and width) or height (for y and height); Deep SORT's.
POSITION_NOISE = 1 / 20
VELOCITY_NOISE = 1 / 160

_ONE_FRAME = np.array([[1.0, 1.0], [0.0, 1.0]])
_IDENTITY = np.eye(2)


@dataclass(frozen=True, eq=False)
class Motion:
    """Estimate of a box and its velocity.

    Attributes:
        mean: ``float64[4, 2]``: value and change per frame of centre x, centre y, width and height.
        covariance: ``float64[4, 2, 2]``, of each pair of value and change.
    """

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]

    @classmethod
    def start(cls, box: Box) -> Motion:
        """The estimate after the first sight of a box: it may move anywhere."""
        value = _measurement(box)
        # Twice and ten times the noises of a frame, as in Wojke et al.: the velocity is unknown.
        deviations = np.stack([2 * POSITION_NOISE * _size(value), 10 * VELOCITY_NOISE * _size(value)], axis=1)
        return cls(np.stack([value, np.zeros(4)], axis=1), deviations[:, :, None] ** 2 * _IDENTITY)

    @property
    def box(self) -> Box:
        """The most likely box: x0, y0, x1, y1."""
        (x, y, width, height) = self.mean[:, 0]
        return float(x - width / 2), float(y - height / 2), float(x + width / 2), float(y + height / 2)

    def predicted(self) -> Motion:
        """The estimate one frame later."""
        size = _size(self.mean[:, 0])
        deviations = np.stack([POSITION_NOISE * size, VELOCITY_NOISE * size], axis=1)
        covariance = _ONE_FRAME @ self.covariance @ _ONE_FRAME.T + deviations[:, :, None] ** 2 * _IDENTITY
        return Motion(self.mean @ _ONE_FRAME.T, covariance)

    def updated(self, box: Box) -> Motion:
        """The estimate after the box was seen at this place."""
        noise = (POSITION_NOISE * _size(self.mean[:, 0])) ** 2
        gain = self.covariance[:, :, 0] / (self.covariance[:, 0, 0] + noise)[:, None]
        surprise = _measurement(box) - self.mean[:, 0]
        covariance = self.covariance - gain[:, :, None] * self.covariance[:, None, 0, :]
        return Motion(self.mean + gain * surprise[:, None], covariance)

    def to_json(self) -> dict[str, Any]:
        """The numbers as lists; JSON keeps them to the last bit."""
        return {"mean": self.mean.tolist(), "covariance": self.covariance.tolist()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Motion:
        """The estimate that `to_json` wrote."""
        return cls(np.array(value["mean"], np.float64), np.array(value["covariance"], np.float64))


def overlap(a: Box, b: Box | None) -> float:
    """Intersection over union of two boxes; 0 if there is no second box."""
    if b is None:
        return 0.0
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = _area(a) + _area(b) - width * height
    return width * height / union if union > 0 else 0.0


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _measurement(box: Box) -> npt.NDArray[np.float64]:
    x0, y0, x1, y1 = box
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float64)


def _size(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sizes that noises are in proportion to; at least one pixel, so that no noise is zero."""
    return np.maximum(value[[2, 3, 2, 3]], 1.0)
