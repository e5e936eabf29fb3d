"""Prompts: clicks, a box or a mask that show an object. Used on both sides of the wire; each prompt checks itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument

MAX_ID = 2**32 - 1
MAX_POINTS = 256
FOREGROUND = 1
BACKGROUND = 0


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Prompt:
    """Points, a box, points with a box, or a mask, for one object on one frame.

    Coordinates are pixels of the video as shown (rotation applied), x to the right and y down. Arguments may be
    anything from which NumPy can make an array; the attributes are arrays of the shapes below.

    Attributes:
        object_id: A number above 0 that the caller chooses, the same for one object on all frames.
        frame_index: The number of the frame, counted from 0.
        point_coords: ``float32[N, 2]``, x and y of each click, or None.
        point_labels: ``int32[N]``, 1 for foreground and 0 for background, or None. If only coordinates are given, all
            are foreground.
        box: ``float32[4]``, x0, y0, x1, y1, or None.
        mask: ``bool[H, W]`` at the video's size, or None. Excludes points and box.
        keep_old_points: True: add the points to those given before for this object on this frame (SAM 2's
            ``clear_old_points=False``).
        pts_seconds: A time in seconds, in place of `frame_index`: the prompt is for the frame nearest to it, the
            earlier one of two that are equally near. None: `frame_index` counts.

    Raises:
        InvalidArgument: A value is out of range or of the wrong shape; `violations` names the field.
    """

    object_id: int
    frame_index: int
    point_coords: npt.NDArray[np.float32] | None
    point_labels: npt.NDArray[np.int32] | None
    box: npt.NDArray[np.float32] | None
    mask: npt.NDArray[np.bool_] | None
    keep_old_points: bool
    pts_seconds: float | None

    def __init__(
        self,
        object_id: int = 1,
        frame_index: int = 0,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        keep_old_points: bool = False,
        pts_seconds: float | None = None,
    ) -> None:
        coords, labels = check_points(point_coords, point_labels)
        values = {
            "object_id": _check_id("object_id", object_id, lowest=1),
            "frame_index": _check_id("frame_index", frame_index, lowest=0),
            "point_coords": coords,
            "point_labels": labels,
            "box": check_box(box),
            "mask": check_mask(mask),
            "keep_old_points": bool(keep_old_points),
            "pts_seconds": _check_time(pts_seconds),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_parts()

    def _check_parts(self) -> None:
        if self.mask is not None and (self.point_coords is not None or self.box is not None):
            raise InvalidArgument.of("mask", "excludes points and box; send those in another prompt")
        if self.mask is None and self.point_coords is None and self.box is None:
            raise InvalidArgument.of("points", "the prompt is empty; give at least one point, a box or a mask")
        if self.pts_seconds is not None and self.frame_index:
            raise InvalidArgument.of("pts_seconds", "excludes frame_index; give one of the two")
        if self.keep_old_points and (self.box is not None or self.mask is not None):
            raise InvalidArgument.of(
                "keep_old_points",
                "goes with points alone; leave it out for a box or a mask, which replaces earlier points",
            )

    def check_size(self, height: int, width: int) -> None:
        """Check the prompt against the size of the video.

        Args:
            height: Rows of the video as shown.
            width: Columns of the video as shown.

        Raises:
            InvalidArgument: A point or the box lies outside, or the mask has another size.
        """
        check_within(height, width, point_coords=self.point_coords, box=self.box, mask=self.mask)

    def __repr__(self) -> str:
        when = f"frame_index={self.frame_index}" if self.pts_seconds is None else f"pts_seconds={self.pts_seconds}"
        parts = [f"object_id={self.object_id}", when]
        if self.point_coords is not None and self.point_labels is not None:
            coords, labels = self.point_coords.tolist(), self.point_labels.tolist()
            parts.append(f"points={[(*xy, label) for xy, label in zip(coords, labels, strict=True)]}")
        if self.box is not None:
            parts.append(f"box={self.box.tolist()}")
        if self.mask is not None:
            parts.append(f"mask=bool{list(self.mask.shape)}")
        return f"Prompt({', '.join(parts)})"


def _check_id(field: str, value: Any, *, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidArgument.of(field, f"must be a whole number, not {value!r}")
    if not lowest <= value <= MAX_ID:
        raise InvalidArgument.of(field, f"is {value}, must lie between {lowest} and {MAX_ID}")
    return int(value)


def _check_time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise InvalidArgument.of("pts_seconds", f"must be a finite number of seconds, not {value!r}")
    return float(value)


def check_points(
    coords: npt.ArrayLike | None, labels: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int32] | None]:
    """Check clicks, and make arrays of them.

    Args:
        coords: ``[N, 2]``, x and y of each click, or None.
        labels: ``[N]``, 1 for foreground and 0 for background; None: all are foreground.

    Returns:
        ``float32[N, 2]`` and ``int32[N]``; None for both where there are no clicks.

    Raises:
        InvalidArgument: A shape is wrong, a coordinate is not finite, or a label is neither 0 nor 1.
    """
    if coords is None:
        if labels is not None:
            raise InvalidArgument.of("points", "labels are given without coordinates; give both")
        return None, None
    points = _floats("points", coords)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InvalidArgument.of("points", f"coordinates must have the shape [N, 2], not {list(points.shape)}")
    marks = np.ones(len(points), np.int32) if labels is None else np.asarray(labels)
    if marks.shape != (len(points),):
        raise InvalidArgument.of(
            "points", f"{len(points)} coordinates, but labels of shape {list(marks.shape)}; give one label for each"
        )
    if len(points) == 0:
        return None, None
    if len(points) > MAX_POINTS:
        raise InvalidArgument.of("points", f"{len(points)} points are too many; at most {MAX_POINTS} are allowed")
    for i, (xy, label) in enumerate(zip(points, marks, strict=True)):
        if not np.isfinite(xy).all():
            raise InvalidArgument.of(f"points[{i}]", f"coordinates must be finite, not ({xy[0]}, {xy[1]})")
        if label not in (FOREGROUND, BACKGROUND):
            raise InvalidArgument.of(f"points[{i}].label", f"is {label}, must be 1 (foreground) or 0 (background)")
    return points, marks.astype(np.int32)


def check_box(box: npt.ArrayLike | None) -> npt.NDArray[np.float32] | None:
    """Check a box, and make an array of it.

    Args:
        box: ``[4]``, x0, y0, x1, y1, or None.

    Returns:
        ``float32[4]``; None where there is no box.

    Raises:
        InvalidArgument: It is not four finite numbers with x0 < x1 and y0 < y1.
    """
    if box is None:
        return None
    corners = _floats("box", box)
    if corners.shape != (4,):
        raise InvalidArgument.of(
            "box", f"must be the four numbers x0, y0, x1, y1, not an array of shape {list(corners.shape)}"
        )
    if not np.isfinite(corners).all():
        raise InvalidArgument.of("box", f"corners must be finite, not {corners.tolist()}")
    x0, y0, x1, y1 = corners.tolist()
    if not (x0 < x1 and y0 < y1):
        raise InvalidArgument.of(
            "box", f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) is empty or inverted; x0 < x1 and y0 < y1 must hold"
        )
    return corners


def check_mask(mask: npt.ArrayLike | None) -> npt.NDArray[np.bool_] | None:
    """Check a mask, and make an array of it.

    Args:
        mask: ``[H, W]`` of booleans; of whole numbers, where any value above 0 is foreground; or of floating-point
            numbers, if each is 0 or the same other number, such as 1.0 or 255.0. Or None.

    Returns:
        ``bool[H, W]``; None where there is no mask.

    Raises:
        InvalidArgument: It is not two-dimensional, has no foreground at all, or holds logits or probabilities.
    """
    if mask is None:
        return None
    pixels = np.asarray(mask)
    if pixels.ndim != 2:
        raise InvalidArgument.of("mask", f"must have the shape [H, W], not {list(pixels.shape)}")
    _check_binary(pixels)
    pixels = pixels.astype(np.bool_)
    if not pixels.any():
        raise InvalidArgument.of("mask", "has no foreground pixel")
    return pixels


def _check_binary(pixels: npt.NDArray[Any]) -> None:
    """Refuse logits and probabilities, of which nearly every value differs from 0."""
    if pixels.dtype.kind not in "biuf":
        raise InvalidArgument.of("mask", f"is an array of {pixels.dtype}, must be bool")
    if pixels.dtype.kind in "bu" or not pixels.size:
        return
    if not (pixels >= 0).all():  # also what is not a number
        raise InvalidArgument.of("mask", "has values below 0, as logits do; give a binary mask: logits > 0")
    values = pixels[pixels > 0]
    if pixels.dtype.kind == "f" and values.size and (values != values[0]).any():
        raise InvalidArgument.of(
            "mask", "has fractions, as probabilities do; give a binary mask: probabilities > 0.5 (logits > 0)"
        )


def check_within(
    height: int,
    width: int,
    *,
    point_coords: npt.NDArray[np.float32] | None,
    box: npt.NDArray[np.float32] | None,
    mask: npt.NDArray[np.bool_] | None,
) -> None:
    """Check prompts against the size of the picture.

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        point_coords: As `check_points` returns them.
        box: As `check_box` returns it.
        mask: As `check_mask` returns it.

    A box may reach outside by less than a pixel, as those of detectors do: the server cuts it at the picture's edge.

    Raises:
        InvalidArgument: A point or the box lies outside, or the mask has another size.
    """
    for i, (x, y) in enumerate([] if point_coords is None else point_coords.tolist()):
        if not (0 <= x <= width and 0 <= y <= height):
            raise InvalidArgument.of(
                f"points[{i}]", f"({x:g}, {y:g}) lies outside the picture of {width}x{height} pixels"
            )
    if box is not None:
        x0, y0, x1, y1 = box.tolist()
        beyond = max(-x0, -y0, x1 - width, y1 - height)
        if beyond >= 1 or x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise InvalidArgument.of(
                "box", f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) reaches outside the picture of {width}x{height} pixels"
            )
    if mask is not None and mask.shape != (height, width):
        raise InvalidArgument.of(
            "mask", f"is {mask.shape[1]}x{mask.shape[0]} pixels, the picture {width}x{height}; they must be equal"
        )


def _floats(field: str, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument.of(field, f"must be numbers: {error}") from error
