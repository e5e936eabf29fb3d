"""Pictures check themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest

from masklet.errors import InvalidArgument
from masklet_server.video.picture import Picture


def test_nv12_data_has_an_even_size() -> None:
    with pytest.raises(InvalidArgument, match="even"):
        Picture("nv12", bytes(7 * 4 * 3 // 2), 7, 4)


BAD_PICTURES: list[tuple[dict[str, Any], str]] = [
    ({"format": "jpeg", "data": b"x"}, "format"),
    ({"format": "encoded", "data": b""}, "data"),
    ({"format": "rgb24", "data": b"123", "height": 0, "width": 1}, "height"),
    ({"format": "rgb24", "data": b"123", "height": 1, "width": -1}, "width"),
    ({"format": "rgb24", "data": b"1234", "height": 1, "width": 1}, "data"),
    ({"format": "gray8", "data": b"123", "height": 1, "width": 1}, "data"),
    ({"format": "encoded", "data": b"x", "pts_seconds": math.nan}, "pts_seconds"),
    ({"format": "encoded", "data": b"x", "pts_seconds": 1e300}, "pts_seconds"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_PICTURES)
def test_pictures_check_themselves(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Picture(**fields)
    assert caught.value.violations[0].field == field


def test_repr() -> None:
    assert repr(Picture("rgb24", b"abc", 1, 1)) == "Picture(rgb24, 3 bytes, 1x1, pts_seconds=None)"
