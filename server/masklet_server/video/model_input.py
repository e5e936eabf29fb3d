"""The pictures that a model takes."""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.video.formats import Scaling


@dataclass(frozen=True)
class ModelInput:
    """What frames have to become for a model: ``uint8[size, size, 3]``.

    Attributes:
        size: Side of the square that the model sees, in pixels.
        scaling: How frames of files and packets are made as small; single pictures are resized by Pillow.
    """

    size: int
    scaling: Scaling = "bicubic"
