"""Overlays, cut-outs and mask files, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import masklet
from masklet.drawing import PALETTE, colour_of

GRAY = np.full((60, 80, 3), 100, np.uint8)


def disc(height: int = 60, width: int = 80, *, x: int = 40, y: int = 30, radius: int = 15) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[:height, :width]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def test_overlay_tints_inside_outlines_and_leaves_the_rest() -> None:
    drawn = masklet.overlay(GRAY, {2: disc()}, alpha=0.5)
    assert drawn.dtype == np.uint8
    assert drawn.shape == GRAY.shape
    np.testing.assert_array_equal(drawn[30, 40], np.round(100 * 0.5 + np.array(colour_of(2)) * 0.5))
    np.testing.assert_array_equal(drawn[30, 25], colour_of(2))  # the outline lies inside the mask
    assert (drawn[30, 24] < 50).all()  # and a dark line around it
    np.testing.assert_array_equal(drawn[:10], GRAY[:10])
    assert (GRAY == 100).all()


def test_overlay_without_outline_touches_the_mask_alone() -> None:
    drawn = masklet.overlay(GRAY, {1: disc()}, outline=False)
    changed = (drawn != GRAY).any(axis=2)
    np.testing.assert_array_equal(changed, disc())


def test_no_outline_along_the_pictures_edge() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[:, :20] = True
    drawn = masklet.overlay(GRAY, {1: mask})
    np.testing.assert_array_equal(drawn[0, 5], drawn[30, 5])
    np.testing.assert_array_equal(drawn[30, 19], colour_of(1))


def test_higher_objects_lie_on_top_and_colours_repeat() -> None:
    drawn = masklet.overlay(GRAY, {2: disc(), 1: disc()}, alpha=1.0, outline=False)
    np.testing.assert_array_equal(drawn[30, 40], colour_of(2))
    assert len(set(PALETTE)) == len(PALETTE)
    assert colour_of(1) == colour_of(1 + len(PALETTE))


def test_empty_masks_draw_nothing() -> None:
    np.testing.assert_array_equal(masklet.overlay(GRAY, {1: np.zeros((60, 80), np.bool_)}), GRAY)
    np.testing.assert_array_equal(masklet.overlay(GRAY, {}), GRAY)


def test_overlay_takes_every_form_of_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    Image.fromarray(GRAY).save(file)
    expected = masklet.overlay(GRAY, {1: disc()})
    for source in (file, str(file), file.read_bytes(), Image.fromarray(GRAY), GRAY[:, :, 0]):
        np.testing.assert_array_equal(masklet.overlay(source, {1: disc()}), expected)


def test_files_are_turned_as_their_orientation_says(tmp_path: Path) -> None:
    file = tmp_path / "turned.jpg"
    image = Image.fromarray(GRAY)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, exif=exif)
    assert masklet.overlay(file, {1: disc(80, 60, x=30, y=40)}).shape == (80, 60, 3)


def test_wrong_sizes_and_pictures_are_refused() -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"masks\[3\].*5x4 pixels, the picture 80x60"):
        masklet.overlay(GRAY, {3: np.ones((4, 5), np.bool_)})
    with pytest.raises(masklet.InvalidArgument, match="is not a picture"):
        masklet.overlay(b"not a picture", {})
    with pytest.raises(masklet.InvalidArgument, match="alpha"):
        masklet.overlay(GRAY, {}, alpha=2)


def test_cutout_is_transparent_outside() -> None:
    image = masklet.cutout(GRAY, disc())
    assert image.mode == "RGBA"
    pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels[:, :, 3], disc() * np.uint8(255))
    np.testing.assert_array_equal(pixels[:, :, :3], GRAY)
    with pytest.raises(masklet.InvalidArgument, match="mask"):
        masklet.cutout(GRAY, disc()[1:])


def test_save_mask_reads_back(tmp_path: Path) -> None:
    masklet.save_mask(tmp_path / "mask.png", disc())
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), disc() * np.uint8(255))
    with pytest.raises(masklet.InvalidArgument, match=r"must be \[H, W\]"):
        masklet.save_mask(tmp_path / "mask.png", disc()[None])


def test_indexed_masks_have_daviss_palette(tmp_path: Path) -> None:
    other = np.zeros((60, 80), np.bool_)
    other[25:60, 40:] = True
    masklet.save_indexed_masks(tmp_path / "00000.png", {200: other, 1: disc()})
    with Image.open(tmp_path / "00000.png") as image:
        assert image.mode == "P"
        indices = np.asarray(image)
        palette = np.array(image.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(indices == 200, other)
    np.testing.assert_array_equal(indices == 1, disc() & ~other)
    assert palette[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


def test_indexed_masks_of_no_objects_need_a_size(tmp_path: Path) -> None:
    masklet.save_indexed_masks(tmp_path / "0.png", {}, size=(6, 8))
    with Image.open(tmp_path / "0.png") as image:
        assert image.size == (8, 6)
        assert not np.asarray(image).any()
    with pytest.raises(masklet.InvalidArgument, match="size"):
        masklet.save_indexed_masks(tmp_path / "0.png", {})


@pytest.mark.parametrize("object_id", [0, 256])
def test_ids_beyond_an_indexed_png_are_refused(tmp_path: Path, object_id: int) -> None:
    with pytest.raises(masklet.InvalidArgument, match=f"object_id {object_id}"):
        masklet.save_indexed_masks(tmp_path / "0.png", {object_id: disc()})
    assert not (tmp_path / "0.png").exists()
