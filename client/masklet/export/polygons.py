"""Outlines of masks as polygons: along the edges of pixels, exactly, or simplified.

A ring is a closed polygon, `float64[N, 2]`, x and y of its corners; the first corner is not repeated. Coordinates are
those of the contract: the top-left pixel reaches from 0 to 1. Seen on the screen, outer rings run clockwise, and the
rings of holes counter-clockwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float64]
"""``float64[N, 2]``: x and y of the corners of a closed polygon."""

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def rings(mask: npt.NDArray[np.bool_], *, tolerance: float = 0.0) -> list[Ring]:
    """The outlines of a mask: one ring for each part (pixels that share a side), and one for each hole.

    Args:
        mask: ``bool[H, W]``.
        tolerance: By how many pixels a ring may leave the outline (Douglas and Peucker's algorithm). A ring that would
            vanish stays as it is.

    Returns:
        The rings, the largest first; none for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    inside = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    found = sorted((ring + np.array([left, top]) for ring in _traced(inside)), key=lambda ring: -abs(area(ring)))
    return [_simplified(ring, tolerance) for ring in found] if tolerance > 0 else found


def outer_rings(mask: npt.NDArray[np.bool_], *, tolerance: float = 0.0) -> list[Ring]:
    """The outlines of a mask as polygons without holes: a hole is joined to its part by a cut of no width.

    Args:
        mask: ``bool[H, W]``.
        tolerance: As for `rings`.

    Returns:
        One ring for each part of the mask.
    """
    parts: list[list[Ring]] = []
    holes = []
    for ring in rings(mask):
        if area(ring) > 0:
            parts.append([ring])
        else:
            holes.append(ring)
    for hole in holes:
        around = (part for part in parts if _contains(part[0], _beside(hole)))
        min(around, key=lambda part: area(part[0])).append(hole)
    if tolerance > 0:
        parts = [[_simplified(ring, tolerance) for ring in part] for part in parts]
    return [joined(part) for part in parts]


def joined(several: Sequence[Ring]) -> Ring:
    """Rings as a single one: each is joined to those before it by a cut of no width, there and back.

    Args:
        several: At least one ring, the outer one first; the rings of holes run the other way round.

    Returns:
        A ring that encloses the same pixels, under the even-odd rule and the non-zero rule.
    """
    whole = several[0]
    for ring in several[1:]:
        here, there = _nearest(whole, ring)
        turned = np.roll(ring, -there, axis=0)
        whole = np.concatenate((whole[: here + 1], turned, turned[:1], whole[here:]))
    return whole


def _nearest(these: Ring, those: Ring) -> tuple[int, int]:
    """The indices of the two corners that are nearest to each other; a few of them are compared at a time."""
    best = (float("inf"), 0, 0)
    for begin in range(0, len(these), 256):
        squares = ((these[begin : begin + 256, None] - those[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(squares.argmin()), squares.shape)
        best = min(best, (float(squares[here, there]), begin + int(here), int(there)))
    return best[1], best[2]


def fill(several: Sequence[Ring], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centres lie in rings, by the even-odd rule: what a program draws that knows corners of pixels.

    Args:
        several: The rings; they may leave the picture.
        size: Height and width of the picture.

    Returns:
        ``bool[H, W]``.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.uint8)  # where a row changes sides
    for ring in several:
        for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
            if y0 == y1:
                continue
            low, high = min(y0, y1), max(y0, y1)
            rows = np.arange(max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5))))
            crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
            np.bitwise_xor.at(flips, (rows, columns), 1)
    return np.asarray(np.bitwise_xor.accumulate(flips[:, :width], axis=1).astype(np.bool_))


def area(ring: Ring) -> float:
    """The area of a ring in pixels (the shoelace formula), below 0 where the ring is that of a hole."""
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _traced(mask: npt.NDArray[np.bool_]) -> list[Ring]:
    """Follow the edges of pixels with the foreground on the right. A mask that touches its own border is fine."""
    padded = np.pad(mask, 1)
    above_left, above = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below = padded[1:, :-1], padded[1:, 1:]
    # The edges that begin at each corner of a pixel, as bits: 1 << direction.
    edges = (below & ~above).astype(np.uint8) << _RIGHT
    edges |= (below_left & ~below).astype(np.uint8) << _DOWN
    edges |= (above_left & ~below_left).astype(np.uint8) << _LEFT
    edges |= (above & ~above_left).astype(np.uint8) << _UP
    width = edges.shape[1]
    ways = bytearray(edges.tobytes())
    steps = tuple(x + y * width for x, y in _STEPS)
    found = []
    for start in np.flatnonzero(edges).tolist():
        while ways[start]:
            found.append(_ring(ways, start, steps, width))
    return found


def _ring(ways: bytearray, start: int, steps: tuple[int, ...], width: int) -> Ring:
    """One ring from a corner on; its edges are taken out of `ways`."""
    corners: list[int] = []
    place, direction = start, -1
    while choices := ways[place]:
        # Where two pixels touch at a corner alone, two ways go on: to the right is round the same pixel.
        right = (direction + 1) % 4
        turns_right = direction >= 0 and bool(choices & (1 << right))
        if place == start and corners and not turns_right:
            break  # the other pixel's ring begins here, too
        turn = right if turns_right else choices.bit_length() - 1
        ways[place] &= ~(1 << turn)
        if turn != direction:
            corners.append(place)
            direction = turn
        place += steps[direction]
    places = np.array(corners)
    ring = np.stack((places % width, places // width), axis=1).astype(np.float64)
    return ring[1:] if len(ring) > 4 and _is_straight(ring[-1], ring[0], ring[1]) else ring


def _is_straight(before: Ring, here: Ring, after: Ring) -> bool:
    return bool((before[0] == here[0] == after[0]) or (before[1] == here[1] == after[1]))


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Douglas and Peucker's algorithm on a closed ring, from the two corners that are farthest from each other."""
    first = int(((ring - ring.mean(axis=0)) ** 2).sum(axis=1).argmax())
    turned = np.roll(ring, -first, axis=0)
    second = int(((turned - turned[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate((turned, turned[:1]))
    keep = np.zeros(len(closed), np.bool_)
    keep[[0, second, len(closed) - 1]] = True
    pending = [(0, second), (second, len(closed) - 1)]
    while pending:
        begin, end = pending.pop()
        if end - begin < 2:
            continue
        distances = _distances(closed[begin + 1 : end], closed[begin], closed[end])
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = begin + 1 + farthest
            keep[middle] = True
            pending += [(begin, middle), (middle, end)]
    found = closed[:-1][keep[:-1]]
    return found if len(found) >= 3 and area(found) * area(ring) > 0 else ring


def _distances(points: Ring, begin: Ring, end: Ring) -> npt.NDArray[np.float64]:
    """Of each point from the line between two others (from the first one where they are equal)."""
    along = end - begin
    length = float(np.hypot(along[0], along[1]))
    away = points - begin
    if length == 0:
        return np.asarray(np.hypot(away[:, 0], away[:, 1]))
    return np.asarray(np.abs(away[:, 0] * along[1] - away[:, 1] * along[0]) / length)


def _beside(hole: Ring) -> Ring:
    """The centre of a pixel in a hole: the one on the left of the hole's first edge."""
    along = (hole[1] - hole[0]) / np.abs(hole[1] - hole[0]).max()
    centre: Ring = hole[0] + along / 2 + np.array((along[1], -along[0])) / 2
    return centre


def _contains(ring: Ring, point: Ring) -> bool:
    """Whether a point lies in a ring, by the number of edges that a ray to the right crosses."""
    x, y = point
    following = np.roll(ring, -1, axis=0)
    crosses = (ring[:, 1] > y) != (following[:, 1] > y)
    heights = np.where(crosses, following[:, 1] - ring[:, 1], 1.0)
    at = ring[:, 0] + (y - ring[:, 1]) * (following[:, 0] - ring[:, 0]) / heights
    return bool(np.count_nonzero(crosses & (at > x)) % 2)
