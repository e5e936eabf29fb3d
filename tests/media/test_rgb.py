"""One picture in many forms: on its way to a server, in the server's decoding process, and under an overlay."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from masklet._media.pictures import load_rgb, picture_to_wire
from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2
from masklet_media.rgb import gray_scale, to_rgb
from masklet_server.rpc import from_wire
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sandbox.picture_pool import decode_picture
from tests.support.cases import FOLDER
from tests.support.clips import picture

Pixels = npt.NDArray[np.uint8]
COLOURS = picture(3, 64, 48)
GRAY = COLOURS[..., 1]


def server_sees(wire: common_pb2.Picture) -> Pixels:
    return asyncio.run(decode_picture(from_wire.picture(wire, "picture"), VideoLimits()))


def transparent() -> Image.Image:
    alpha = np.zeros((48, 64), np.uint8)
    alpha[10:40, 20:50] = 255
    alpha[:5] = 128
    return Image.fromarray(np.dstack([COLOURS, alpha]))


def turned() -> Image.Image:
    image = Image.fromarray(COLOURS)
    image.getexif()[0x0112] = 6
    return image


def fractions() -> Image.Image:
    values = GRAY.astype(np.float32) / 255
    values[0, :3] = (np.nan, np.inf, -np.inf)
    return Image.fromarray(values)


FORMS: dict[str, tuple[Callable[[], Image.Image], str, dict[str, Any]]] = {
    "16-bit gray PNG": (lambda: Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG", {}),
    "16-bit gray TIFF": (lambda: Image.fromarray(GRAY.astype(np.uint16) * 200), "TIFF", {}),
    "32-bit TIFF": (lambda: Image.fromarray(GRAY.astype(np.int32) * 70_000), "TIFF", {}),
    "float TIFF": (fractions, "TIFF", {}),
    "float TIFF of bytes": (lambda: Image.fromarray(GRAY.astype(np.float32)), "TIFF", {}),
    "float TIFF of any range": (lambda: Image.fromarray(GRAY.astype(np.float32) * 31 - 900), "TIFF", {}),
    "alpha PNG": (transparent, "PNG", {}),
    "alpha WebP": (transparent, "WEBP", {"lossless": True}),
    "gray and alpha": (lambda: transparent().convert("LA"), "PNG", {}),
    "palette": (lambda: Image.fromarray(COLOURS).quantize(16), "PNG", {}),
    "palette with a transparent colour": (lambda: Image.fromarray(COLOURS).quantize(16), "PNG", {"transparency": 3}),
    "CMYK": (lambda: Image.fromarray(COLOURS).convert("CMYK"), "JPEG", {}),
    "black and white": (lambda: Image.fromarray(GRAY).convert("1"), "PNG", {}),
    "orientation": (turned, "JPEG", {}),
    "GIF": (lambda: Image.fromarray(COLOURS).quantize(16), "GIF", {}),
    "AVIF": (lambda: Image.fromarray(COLOURS), "AVIF", {}),
    "PPM, which servers do not read": (lambda: Image.fromarray(COLOURS), "PPM", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_path_its_bytes_and_a_pillow_image_are_the_same_picture_everywhere(tmp_path: Path, form: str) -> None:
    make, file_format, options = FORMS[form]
    path = tmp_path / "picture"
    image = make()
    if form == "orientation":
        options = {"exif": image.getexif()}
    image.save(path, file_format, **options)
    opened = Image.open(io.BytesIO(path.read_bytes()))
    expected = np.asarray(to_rgb(opened))
    assert expected.shape == ((64, 48, 3) if form == "orientation" else (48, 64, 3))
    assert expected.std() > 10, "a picture, and not one colour"
    for given in (path, str(path), path.read_bytes(), Image.open(io.BytesIO(path.read_bytes()))):
        np.testing.assert_array_equal(load_rgb(given), expected)
        np.testing.assert_array_equal(server_sees(picture_to_wire(given)), expected)


ARRAYS: dict[str, npt.NDArray[Any]] = {
    "16-bit gray": GRAY.astype(np.uint16) * 257,
    "fractions": GRAY.astype(np.float32) / 255,
    "float64": GRAY.astype(np.float64) / 255,
    "float bytes": GRAY.astype(np.float32),
    "any range": GRAY.astype(np.float32) * 31 - 900,
    "alpha": np.asarray(transparent()),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_is_the_picture_that_pillow_makes_of_it(kind: str) -> None:
    array = ARRAYS[kind]
    image = Image.fromarray(array.astype(np.float32) if array.dtype == np.float64 else array)
    expected = np.asarray(to_rgb(image))
    assert np.abs(load_rgb(array).astype(int) - expected).max() <= (1 if array.dtype.kind == "f" else 0)
    np.testing.assert_array_equal(server_sees(picture_to_wire(array)), load_rgb(array))


def test_colours_of_16_bits_and_of_fractions() -> None:
    np.testing.assert_array_equal(load_rgb(COLOURS.astype(np.uint16) * 256), COLOURS)
    assert np.abs(load_rgb(COLOURS / 255).astype(int) - COLOURS).max() <= 1


def test_the_case() -> None:
    path = FOLDER / "gray16.png"
    with Image.open(path) as image:
        expected = np.asarray(image) >> 8
        assert expected.max() > 200
        for given in (path, image, np.asarray(image)):
            np.testing.assert_array_equal(load_rgb(given), np.stack([expected] * 3, axis=-1))
            np.testing.assert_array_equal(server_sees(picture_to_wire(given))[..., 1], expected)


def test_what_is_no_picture() -> None:
    with pytest.raises(InvalidArgument, match="not a picture that can be read"):
        load_rgb(b"no picture")
    assert picture_to_wire(b"no picture").data == b"no picture", "for the server to refuse"
    with pytest.raises(InvalidArgument, match="must be uint8"):
        picture_to_wire(np.zeros((4, 4), np.int64))
    with pytest.raises(InvalidArgument, match="is empty"):
        picture_to_wire(b"")
    with pytest.raises(InvalidArgument, match="has the shape"):
        picture_to_wire(np.zeros((4, 4, 2), np.uint8))


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0, 1, (255, 0)), (0, 0.5, (255, 0)), (0, 200, (1, 0)), (3, 60_000, (1 / 256, 0)), (-1, 1, (127.5, 127.5)),
    (0, 2**20, (255 / 2**20, 0)), (-5, -5, (0, 0)),
])  # fmt: skip
def test_ranges_of_gray(low: float, high: float, expected: tuple[float, float]) -> None:
    assert gray_scale(low, high) == pytest.approx(expected)
