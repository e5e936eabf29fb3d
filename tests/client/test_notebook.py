"""How results look in notebooks."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import masklet
from masklet.drawing import colour_of
from tests.support.recordings import FRAMES, HEIGHT, LOST, WIDTH, frame_of, mask_of, recording


def pixels_of(png: bytes | None) -> np.ndarray:
    assert png is not None
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def test_a_frame_is_a_picture_of_its_masks() -> None:
    pixels = pixels_of(frame_of(0)._repr_png_())
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert (pixels[mask_of(2, 0)] == colour_of(2)).all()
    assert (pixels[mask_of(1, 0) & ~mask_of(2, 0)] == colour_of(1)).all()
    assert (pixels[~mask_of(1, 0) & ~mask_of(2, 0)] == 20).all()
    assert masklet.FrameResult(0, 0.0, 0, 0, {})._repr_png_() is None


def test_an_object_is_a_picture_of_its_mask() -> None:
    pixels = pixels_of(frame_of(0).objects[1]._repr_png_())
    assert (pixels[mask_of(1, 0)] == colour_of(1)).all()


def test_large_pictures_are_made_smaller() -> None:
    mask = np.ones((1080, 1920), np.bool_)
    result = masklet.ObjectResult(1, masklet.encode_rle(mask), None, 0, 1.0, 1.0, True)
    assert pixels_of(result._repr_png_()).shape == (405, 720, 3)


def test_a_recording_is_a_table_with_time_lines() -> None:
    made = recording()
    made.name(1, "<ring> & co")
    shown = made._repr_html_()
    assert "<ring>" not in shown
    root = ElementTree.fromstring(f"<div>{shown.replace('&#9632;', 'x')}</div>")
    rows = root.findall("table/tbody/tr")
    assert [row.findall("td")[2].text for row in rows] == ["<ring> & co", "sail"]
    bars = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in rows[1].iter("rect")]
    each = 360 / FRAMES
    assert bars == [
        pytest.approx((0, LOST[0] * each)),
        pytest.approx(((LOST[-1] + 1) * each, (FRAMES - 1 - LOST[-1]) * each)),
    ]
    assert rows[1].findall("td")[-1].text == "lost at frame 3, reacquired at frame 5"
    assert "<table>" in masklet.Recording()._repr_html_()
