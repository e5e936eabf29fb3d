"""How the edges of masks are drawn: as the model gives them, or moved to the edges of colour nearby.

SAM 2 draws masks on a grid that is four times as fine as its features, 96 x 96 for nano. Shown at the size of a video,
such a mask has visible squares. A guided filter describes the mask around each point of the grid as a linear function
of the picture's colours there, and applies these functions to the picture at the model's own size.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from torch import Tensor

from masklet_server.masks.guided_on_cpu import CpuGuide
from masklet_server.masks.guided_on_device import DeviceGuide


class Edges(Enum):
    """How the edges of masks are drawn."""

    NONE = "none"
    """As the model gives them, enlarged bilinearly. SAM 2's own."""
    GUIDED = "guided"
    """Moved to the edges of colour nearby."""


class Guide(Protocol):
    """One frame's colours, by which the edges of all its masks are drawn."""

    def draw(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Masks with finer edges.

        Args:
            logits: ``float32[B, 1, h, w]``, h and w being the guide's grid.
            height: Rows of the masks.
            width: Columns of the masks.

        Returns:
            ``bool[B, H, W]``.
        """


def guide_of(pixels: Tensor, grid: int) -> Guide:
    """The guide for a frame.

    Args:
        pixels: ``uint8[S, S, 3]`` RGB at the model's size, on the device of the logits.
        grid: Side of the logits, a divisor of S.
    """
    return CpuGuide(pixels.numpy(), grid) if pixels.device.type == "cpu" else DeviceGuide(pixels, grid)
