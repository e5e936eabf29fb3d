"""The fields of a request from the page, checked one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from masklet.errors import InvalidArgument
from masklet.recording import unprintable
from masklet.rle import read_counts

Request = Mapping[str, Any]
MAX_TEXT = 200
MAX_OBJECT = 65535
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def whole(request: Request, field: str, lowest: int, highest: int) -> int:
    """A whole number.

    Raises:
        InvalidArgument: It is missing, something else, or out of range.
    """
    value = request.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InvalidArgument.of(field, f"is {value!r}, must be a whole number from {lowest} to {highest}")
    return value


def whole_or_none(request: Request, field: str, lowest: int, highest: int) -> int | None:
    """A whole number, or None where it is null or missing; errors are those of `whole`."""
    return None if request.get(field) is None else whole(request, field, lowest, highest)


def text(request: Request, field: str, otherwise: str) -> str:
    """A line of text; `otherwise` where it is null or missing.

    Raises:
        InvalidArgument: It is something else, too long, or has control characters.
    """
    value = request.get(field)
    if value is None:
        return otherwise
    if not isinstance(value, str) or len(value) > MAX_TEXT or unprintable(value):
        raise InvalidArgument.of(
            field, f"must be a line of at most {MAX_TEXT} characters without control characters, not {value!r:.60}"
        )
    return value.strip()


def colour(request: Request, field: str, otherwise: str) -> str:
    """A colour such as "#00ff00"; errors are those of `text`."""
    value = text(request, field, otherwise)
    if not _COLOUR.fullmatch(value):
        raise InvalidArgument.of(field, f"is {value!r}, must be a colour such as #00ff00")
    return value.lower()


def choice(request: Request, field: str, allowed: tuple[str, ...]) -> str:
    """One of several words.

    Raises:
        InvalidArgument: It is none of them.
    """
    value = request.get(field)
    if value not in allowed:
        raise InvalidArgument.of(field, f"is {value!r}, must be one of {', '.join(allowed)}")
    return str(value)


def points(request: Request) -> list[list[float]]:
    """The clicks of a prompt: x, y and 1 or 0.

    Raises:
        InvalidArgument: One of them is not three numbers.
    """
    value = request.get("points") or []
    if not isinstance(value, list):
        raise InvalidArgument.of("points", "must be a list of [x, y, 1 or 0]")
    for index, point in enumerate(value):
        if not isinstance(point, list) or len(point) != 3 or not all(map(_is_number, point)) or point[2] not in (0, 1):
            raise InvalidArgument.of(f"points[{index}]", f"is {point!r:.60}, must be [x, y, 1 or 0]")
    return value


def box(request: Request) -> list[float] | None:
    """The box of a prompt: x0, y0, x1, y1.

    Raises:
        InvalidArgument: It is not four numbers.
    """
    value = request.get("box")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise InvalidArgument.of("box", f"is {value!r:.60}, must be [x0, y0, x1, y1]")
    return value


def counts(request: Request, field: str, size: tuple[int, int]) -> tuple[str, int]:
    """A mask as COCO's compressed run-lengths, and its area; "" and 0 for an empty one.

    Args:
        request: Has the field.
        field: Its name.
        size: Height and width that the mask must have.

    Raises:
        InvalidArgument: It is malformed, or of another size.
    """
    value = request.get(field)
    if not isinstance(value, str):
        raise InvalidArgument.of(field, "must be COCO's compressed run-lengths, as a string")
    if not value:
        return "", 0
    area = int(read_counts(value.encode("ascii", "replace"), *size, field=field)[1::2].sum())
    return (value, area) if area else ("", 0)


def frame_of(request: Request, field: str, last_frame: int) -> int:
    """The number of a frame of the video; errors are those of `whole`."""
    return whole(request, field, 0, last_frame)


def range_of(request: Request, last_frame: int) -> tuple[int, int]:
    """The first and the last frame of a range, "from" and "to"; errors are those of `whole`."""
    first = frame_of(request, "from", last_frame)
    return first, whole(request, "to", first, last_frame)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
