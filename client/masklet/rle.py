"""Run-lengths: masks as short strings, in COCO's compressed form. Used on both sides of the wire; needs NumPy alone.

    rle = masklet.rle.encode(mask)      # {"size": [720, 1280], "counts": "..."}, ready for JSON
    mask = masklet.rle.decode(rle)

COCO counts a mask's pixels down its columns, from the left column to the right one. A *run* is a series of equal pixels
in that order. The lengths of all runs describe the mask: background first (its length is 0 where the first pixel is
foreground), then foreground and background in turn. `find_runs` and `paint_runs` go from masks to lengths and back,
`write_counts` and `read_counts` from lengths to COCO's string and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument

_BITS = 5  # of a run in one character
_MORE = 32  # the bit that says that the next character belongs to the same run, too
_FIRST_CHARACTER = ord("0")
_MAX_CHARACTERS = 7  # of one run: enough for every length below 2**34
# A number below the n-th of these (or not below its negative) fits into n characters.
_BLOCK = 1 << 16  # so many characters are read at a time
_LIMITS = np.array([1 << (_BITS * n - 1) for n in range(1, _MAX_CHARACTERS)])


class Rle(TypedDict):
    """A mask in COCO's compressed run-length encoding, as pycocotools and COCO's JSON files have it.

    Attributes:
        size: Height and width in pixels.
        counts: The lengths of the runs, as `write_counts` writes them.
    """

    size: list[int]
    counts: str


def encode(mask: npt.NDArray[np.bool_]) -> Rle:
    """Encode a mask.

    Args:
        mask: ``bool[H, W]``.

    Returns:
        The mask's size and run-lengths, ready for JSON.

    Raises:
        InvalidArgument: The mask is not two-dimensional.
    """
    pixels = np.asarray(mask)
    if pixels.ndim != 2:
        raise InvalidArgument.of("mask", f"has the shape {list(pixels.shape)}, must be [H, W]")
    return Rle(size=list(pixels.shape), counts=write_counts(find_runs(pixels.astype(np.bool_, copy=False))).decode())


def decode(rle: Rle) -> npt.NDArray[np.bool_]:
    """Decode a mask.

    Args:
        rle: As `encode` returns it, or from another program that writes COCO's compressed run-lengths.

    Returns:
        ``bool[H, W]``, in C order.

    Raises:
        InvalidArgument: The run-lengths are malformed, or belong to a mask of another size.
    """
    height, width = rle["size"]
    return paint_runs(read_counts(rle["counts"].encode("ascii", "replace"), height, width), height, width)


def find_runs(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The lengths of a mask's runs.

    Args:
        mask: ``bool[H, W]``.

    Returns:
        ``int64[N]``, background first; their sum is H * W.
    """
    height, width = mask.shape
    if not mask.size:
        return np.zeros(1, np.int64)
    # Only the places where a run begins are put into the order of columns: to transpose all pixels takes longer.
    rows, columns = np.divmod(np.flatnonzero(mask[1:] != mask[:-1]), width)
    tops = np.flatnonzero(mask[0, 1:] != mask[-1, :-1]) + 1  # columns that begin unlike the end of the one before
    starts = np.concatenate((columns * height + rows + 1, tops * height))
    starts.sort()
    return np.diff(np.concatenate(([0, 0] if mask[0, 0] else [0], starts, [height * width])))


def paint_runs(runs: npt.NDArray[np.int64], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask that runs describe.

    Args:
        runs: ``int64[N]``, lengths of the runs, background first; their sum must be height * width.
        height: Rows of the mask.
        width: Columns of the mask.

    Returns:
        ``bool[H, W]``, in C order.
    """
    mask = np.zeros((height, width), np.bool_)
    painted = runs[: len(runs) // 2 * 2]  # without background at the end
    if not len(painted):
        return mask
    # Only columns with foreground are turned from columns to rows, which is most of the work.
    left, end = int(painted[0]) // height, int(painted.sum())
    right = -(-end // height)
    lengths = np.append(painted, right * height - end)
    lengths[0] -= left * height
    down = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask[:, left:right] = down.reshape(right - left, height).T
    return mask


def write_counts(runs: npt.NDArray[np.int64]) -> bytes:
    """Lengths of runs as COCO's compressed string (pycocotools' ``rleToString``).

    From the fourth run on, the difference to the run before the last one is written. A number is cut into groups of
    five bits, the lowest first. Each group is a character from "0" on; its sixth bit says that more groups follow. The
    highest bit of the last group is the sign.

    Args:
        runs: ``int64[N]``, background first, N at least 1.

    Returns:
        ASCII characters from "0" to "o".
    """
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    characters = np.searchsorted(_LIMITS, np.where(numbers < 0, ~numbers, numbers), side="right") + 1
    ends = np.cumsum(characters)
    place = np.arange(ends[-1]) - np.repeat(ends - characters, characters)
    groups = (np.repeat(numbers, characters) >> (_BITS * place)) & (_MORE - 1) | _MORE
    groups[ends - 1] &= _MORE - 1
    counts: bytes = (groups + _FIRST_CHARACTER).astype(np.uint8).tobytes()
    return counts


def read_counts(counts: bytes, height: int, width: int, *, field: str = "rle") -> npt.NDArray[np.int64]:
    """Lengths of the runs that COCO's compressed string holds (pycocotools' ``rleFrString``), checked.

    Nothing is allocated for the lengths before all of them have been checked.

    Args:
        counts: As `write_counts` writes it.
        height: Rows of the mask.
        width: Columns of the mask.
        field: The name of the field that errors blame.

    Returns:
        ``int64[N]``, none below 0, background first; their sum is height * width.

    Raises:
        InvalidArgument: The string is malformed, or belongs to a mask of another size.
    """
    lengths = np.empty(check_counts(counts, height, width, field=field), np.int64)
    position = 0
    for runs in _checked_blocks(counts, _Size(height, width, field)):
        lengths[position : position + runs.size] = runs
        position += runs.size
    return lengths


def check_counts(counts: bytes, height: int, width: int, *, field: str = "rle") -> int:
    """Check COCO's compressed string; returns the number of its runs. It takes some memory, whatever the mask's size.

    Args:
        counts: As `write_counts` writes it.
        height: Rows of the mask.
        width: Columns of the mask.
        field: The name of the field that errors blame.

    Raises:
        InvalidArgument: The string is malformed, or belongs to a mask of another size.
    """
    return sum(runs.size for runs in _checked_blocks(counts, _Size(height, width, field)))


def paint_counts(counts: bytes, height: int, width: int, *, field: str = "rle") -> npt.NDArray[np.bool_]:
    """The mask that COCO's compressed string describes, checked. It takes the memory of two masks, however many runs.

    Args:
        counts: As `write_counts` writes it.
        height: Rows of the mask.
        width: Columns of the mask.
        field: The name of the field that errors blame.

    Returns:
        ``bool[H, W]``, in C order.

    Raises:
        InvalidArgument: The string is malformed, or belongs to a mask of another size.
    """
    if len(counts) <= _BLOCK:
        return paint_runs(read_counts(counts, height, width, field=field), height, width)
    check_counts(counts, height, width, field=field)
    down = np.empty(height * width, np.bool_)
    position, is_foreground = 0, False
    for runs in _checked_blocks(counts, _Size(height, width, field)):
        painted = np.repeat(np.arange(runs.size) % 2 == (not is_foreground), runs)
        down[position : position + painted.size] = painted
        position += painted.size
        is_foreground ^= runs.size % 2 == 1  # whether the next run is
    return np.ascontiguousarray(down.reshape(width, height).T)


@dataclass(frozen=True)
class _Size:
    """What the runs are held against, and the name of their field."""

    height: int
    width: int
    field: str


def _checked_blocks(counts: bytes, size: _Size) -> Iterator[npt.NDArray[np.int64]]:
    """The lengths of the runs, some thousand at a time. Who has taken all of them knows that they fit the size."""
    pixels = size.height * size.width
    total, number = 0, 0
    for runs in _blocks(counts, size.field):
        number += runs.size
        total += int(runs.sum())
        if runs.min() < 0:
            raise _malformed(size.field, "a run has a length below 0")
        # The longest run is held against the size as well: a sum of long ones can overflow to the right number.
        if runs.max() > pixels or total > pixels:
            raise InvalidArgument.of(
                size.field,
                f"the runs make more than {size.width}x{size.height} = {pixels} pixels; "
                "was the mask made for another size?",
            )
        if number > pixels + _BLOCK:  # other programs write some runs of length 0
            raise InvalidArgument.of(
                size.field,
                f"has more runs than {size.width}x{size.height} pixels can have; leave out those of length 0",
            )
        yield runs
    if total != pixels:
        raise InvalidArgument.of(
            size.field,
            f"the runs make {total} pixels, but {size.width}x{size.height} has {pixels}; "
            "was the mask made for another size?",
        )


def _blocks(counts: bytes, field: str) -> Iterator[npt.NDArray[np.int64]]:
    """The lengths of the runs, as many at a time as a block of characters has; any number may come out."""
    data = np.frombuffer(counts, np.uint8)
    if not data.size:
        raise _malformed(field, "it is empty")
    start = index = 0
    before = [0, 0]  # the last length of an even and of an odd place
    while start < data.size:
        groups = data[start : start + _BLOCK] - np.uint8(_FIRST_CHARACTER)  # below "0" becomes large
        if groups.max() >= 2 * _MORE:
            raise _malformed(field, "it must consist of characters from '0' to 'o'")
        ends = np.flatnonzero(groups < _MORE)
        characters = np.diff(ends, prepend=-1)
        if not ends.size or characters.max() > _MAX_CHARACTERS:
            raise _malformed(field, "a run is cut off at the end, or too long")
        numbers = _numbers(groups[: ends[-1] + 1], ends, characters)
        for parity in (0, 1):
            # From the fourth run on, the difference to the run before the last one is written.
            places = slice(2 if index == parity == 0 else (parity - index) % 2, None, 2)
            if numbers[places].size:
                numbers[places] = before[parity] + np.cumsum(numbers[places])
                before[parity] = int(numbers[places][-1])
        start += int(ends[-1]) + 1
        index += numbers.size
        yield numbers


def _numbers(
    groups: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], characters: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The numbers that groups of five bits make, each of which ends at one of `ends` and has so many characters."""
    starts = ends - characters + 1
    place = np.arange(groups.size) - np.repeat(starts, characters)
    numbers = np.add.reduceat((groups & (_MORE - 1)).astype(np.int64) << (_BITS * place), starts)
    is_negative = groups[ends] & (_MORE >> 1)
    return numbers - np.where(is_negative, np.int64(1) << (_BITS * characters), 0)


def _malformed(field: str, why: str) -> InvalidArgument:
    return InvalidArgument.of(field, f"is not COCO's compressed run-length encoding; {why}")
