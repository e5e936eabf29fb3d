"""Prompts as sam2's predictors for videos take them, as arguments of `masklet.Prompt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Clicks:
    """What a program gives: arrays, tensors on any device, or lists.

    Attributes:
        points: ``[N, 2]`` or ``[1, N, 2]``, x and y of each click; or None.
        labels: ``[N]`` or ``[1, N]``, 1 for foreground and 0 for background; or None.
        box: x0, y0, x1, y1 in any shape; or None.
    """

    points: Any = None
    labels: Any = None
    box: Any = None


def click_arguments(
    size: tuple[int, int], clicks: Clicks, *, keep_old_points: bool, are_fractions: bool
) -> dict[str, Any]:
    """The arguments of a prompt with points, a box, or both.

    Args:
        size: Height and width of the video.
        clicks: What the program gives.
        keep_old_points: Add the points to those given before.
        are_fractions: Coordinates are fractions of the video's width and height, 0 to 1.

    Raises:
        ValueError: The arguments contradict one another.
    """
    if (clicks.points is not None) != (clicks.labels is not None):
        raise ValueError("points and labels must be provided together")
    if clicks.points is None and clicks.box is None:
        raise ValueError("at least one of points or box must be provided as input")
    if clicks.box is not None and keep_old_points:
        raise ValueError(
            "cannot add box without clearing old points, since box prompt must be provided before any point prompt "
            "(please use clear_old_points=True instead)"
        )
    height, width = size
    scale = np.array([width, height] if are_fractions else [1, 1], np.float32)
    given: dict[str, Any] = {"keep_old_points": keep_old_points}
    if clicks.points is not None:
        coords, marks = array_of(clicks.points), array_of(clicks.labels)
        given["point_coords"] = (coords[0] if coords.ndim == 3 and len(coords) == 1 else coords) * scale
        given["point_labels"] = marks[0] if marks.ndim == 2 and len(marks) == 1 else marks
    if clicks.box is not None:
        given["box"] = (array_of(clicks.box).reshape(2, 2) * scale).reshape(4)
    return given


def mask_arguments(size: tuple[int, int], mask: Any) -> dict[str, Any]:
    """The arguments of a prompt with a mask.

    Args:
        size: Height and width of the video.
        mask: ``[H, W]``; of floats, those from 0.5 on are foreground.

    Raises:
        ValueError: The mask has another size than the video.
    """
    pixels = array_of(mask)
    if pixels.shape != size:
        raise ValueError(
            f"the mask has the shape {list(pixels.shape)}, must be [{size[0]}, {size[1]}], the size of the video"
        )
    return {"mask": pixels >= 0.5 if pixels.dtype.kind == "f" else pixels}


def array_of(values: Any) -> npt.NDArray[Any]:
    """A NumPy array of a tensor on any device, or of anything from which NumPy can make one."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
