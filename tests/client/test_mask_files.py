"""Masks in picture files, as people and programs draw them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from masklet._media.mask_files import davis_colours, read_mask_file
from masklet.errors import InvalidArgument
from tests.support.cases import FOLDER

DISC = np.hypot(*np.mgrid[-30:30, -40:40]) < 20
OTHER = np.zeros_like(DISC)
OTHER[:8, :9] = True
IDS = np.where(OTHER, 2, DISC.astype(int)).astype(np.uint8)


def gray(foreground: int, background: int = 0) -> Image.Image:
    return Image.fromarray(np.where(DISC, foreground, background).astype(np.uint8))


def palette(colours: npt.ArrayLike, indices: npt.NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    return image


def rgba(colour: npt.ArrayLike) -> Image.Image:
    pixels = np.zeros((*DISC.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = DISC * 255
    return Image.fromarray(pixels)


def cutout() -> Image.Image:
    return rgba(np.random.default_rng(0).integers(0, 255, (*DISC.shape, 3)))


ONE: dict[str, Callable[[], Image.Image]] = {
    "white on black": lambda: gray(255),
    "ones": lambda: gray(1),
    "one bit": lambda: gray(255).convert("1"),
    "smooth edges": lambda: gray(255).filter(ImageFilter.GaussianBlur(1)),
    "faint on black": lambda: gray(200),
    "RGB": lambda: gray(255).convert("RGB"),
    "red on black": lambda: Image.merge("RGB", (gray(128), gray(0), gray(0))),
    "16 bits": lambda: Image.fromarray(DISC.astype(np.uint16) * 65535),
    "palette, white first": lambda: palette([[255] * 3, [0] * 3], np.where(DISC, 0, 1).astype(np.uint8)),
    "palette, black first": lambda: palette([[0] * 3, [255] * 3], DISC.astype(np.uint8)),
    "palette of DAVIS": lambda: palette(davis_colours(), DISC.astype(np.uint8)),
    "palette without colours": lambda: palette([[0] * 3, [0] * 3], DISC.astype(np.uint8)),
    "gray ramp as a palette": lambda: palette([[i] * 3 for i in range(256)], np.asarray(gray(255))),
    "white, the rest transparent": lambda: rgba((255, 255, 255)),
    "all black, in the alpha channel": lambda: rgba((0, 0, 0)),
    "cut-out of a photograph": cutout,
    "opaque RGBA": lambda: gray(255).convert("RGBA"),
}


@pytest.mark.parametrize("kind", ONE)
def test_one_object(tmp_path: Path, kind: str) -> None:
    ONE[kind]().save(tmp_path / "mask.png")
    masks = read_mask_file(tmp_path / "mask.png")
    assert list(masks) == [1]
    wrong = masks[1] ^ DISC
    assert wrong.sum() <= (40 if kind == "smooth edges" else 0)


@pytest.mark.parametrize("quality", [20, 75, 95])
def test_noise_of_jpeg(tmp_path: Path, quality: int) -> None:
    for image in (gray(255), gray(255).convert("RGB")):
        image.save(tmp_path / "mask.jpg", quality=quality)
        masks = read_mask_file(tmp_path / "mask.jpg")
        assert list(masks) == [1]
        assert (masks[1] ^ DISC).mean() < 0.01


SEVERAL: dict[str, tuple[Callable[[], Image.Image], tuple[int, int]]] = {
    "palette of DAVIS": (lambda: palette(davis_colours(), IDS), (1, 2)),
    "palette of any colours": (lambda: palette([[0, 0, 0], [9, 200, 3], [200, 30, 30]], IDS), (1, 2)),
    "gray ids": (lambda: Image.fromarray(IDS), (1, 2)),
    "larger gray ids": (lambda: Image.fromarray(IDS * 40), (40, 80)),
    "colours of DAVIS": (lambda: palette(davis_colours(), IDS).convert("RGB"), (1, 2)),
    "ids in red, green and blue": (
        lambda: palette([[0, 0, 0], [7, 0, 0], [1, 2, 3]], IDS).convert("RGB"),
        (7, 1 + 2 * 256 + 3 * 65536),
    ),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_objects(tmp_path: Path, kind: str) -> None:
    make, ids = SEVERAL[kind]
    make().save(tmp_path / "mask.png")
    masks = read_mask_file(tmp_path / "mask.png")
    assert tuple(masks) == ids
    np.testing.assert_array_equal(masks[ids[0]], IDS == 1)
    np.testing.assert_array_equal(masks[ids[1]], IDS == 2)


@pytest.mark.parametrize(("name", "areas"), [
    ("mask_palette_white_first.png", {1: 3613}),
    ("mask_in_alpha_white.png", {1: 3613}),
    ("mask_in_alpha_black.png", {1: 3613}),
    ("mask_two_objects.png", {1: 3601, 2: 311}),
])  # fmt: skip
def test_the_cases(name: str, areas: dict[int, int]) -> None:
    assert {key: int(mask.sum()) for key, mask in read_mask_file(FOLDER / name).items()} == areas


@pytest.mark.parametrize(("image", "message"), [
    (gray(0), "has no foreground pixel"),
    (Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)), "colours; a mask has one"),
])  # fmt: skip
def test_what_is_no_mask(tmp_path: Path, image: Any, message: str) -> None:
    image.save(tmp_path / "mask.png")
    with pytest.raises(InvalidArgument, match=message):
        read_mask_file(tmp_path / "mask.png")
