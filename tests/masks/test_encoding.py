"""Masks as bytes, compared with pycocotools and Pillow both ways; malformed data is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from masklet.errors import InvalidArgument
from masklet_server.masks import encoding as encoding_module
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, check, check_data, encode
from masklet_server.masks.runs import Runs
from tests.support.masks import decode

ENCODINGS = (MaskEncoding.COCO_RLE, MaskEncoding.PNG)
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


def disc(height: int = 90, width: int = 160) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    return np.asarray((rows - 40) ** 2 + (columns - 70) ** 2 < 30**2)


def png(pixels: npt.NDArray[np.uint8], **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def rle(height: int, width: int, data: bytes) -> EncodedMask:
    return EncodedMask(MaskEncoding.COCO_RLE, height, width, data)


@given(MASKS)
def test_rle_is_what_pycocotools_reads_and_writes(mask: npt.NDArray[np.bool_]) -> None:
    encoded = encode(Runs.of(mask), MaskEncoding.COCO_RLE)
    reference = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    assert encoded.data == reference["counts"]
    assert [encoded.height, encoded.width] == reference["size"]
    assert np.array_equal(decode(encoded), mask)


@given(MASKS)
def test_png_comes_back_as_it_went(mask: npt.NDArray[np.bool_]) -> None:
    encoded = encode(Runs.of(mask), MaskEncoding.PNG)
    with Image.open(io.BytesIO(encoded.data)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), mask * 255)
    assert np.array_equal(decode(encoded), mask)


def test_large_masks_have_long_runs_and_still_agree() -> None:
    mask = np.zeros((1080, 1920), np.bool_)
    mask[5:1000, 3:1900] = True
    mask[500, 900] = False
    assert np.array_equal(decode(encode(Runs.of(mask), MaskEncoding.COCO_RLE)), mask)


def test_a_mask_that_is_a_view_is_encoded_as_it_looks() -> None:
    mask = disc()[::-1, ::2]
    for encoding in ENCODINGS:
        assert np.array_equal(decode(encode(Runs.of(mask), encoding)), mask)


def test_no_mask_has_no_data() -> None:
    assert encode(Runs.of(disc()), MaskEncoding.NONE) == EncodedMask(MaskEncoding.NONE, 90, 160, b"")


@given(st.binary(max_size=60), st.integers(1, 50), st.integers(1, 50))
def test_any_bytes_are_a_mask_of_that_size_or_refused(data: bytes, height: int, width: int) -> None:
    try:
        mask = decode(rle(height, width, data))
    except InvalidArgument as error:
        assert error.violations[0].field == "data"  # noqa: PT017 - either outcome is right
    else:
        assert mask.shape == (height, width)


@given(hnp.arrays(np.uint8, st.integers(1, 80), elements=st.integers(48, 111)), st.integers(1, 9), st.integers(1, 9))
def test_any_rle_characters_are_a_mask_of_that_size_or_refused(
    data: npt.NDArray[np.uint8], height: int, width: int
) -> None:
    mask = rle(height, width, data.tobytes())
    try:
        check_data(mask)
    except InvalidArgument:
        return
    assert decode(mask).shape == (height, width)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (rle(4, 4, b""), "not COCO's"),
        (rle(4, 4, b"\xff\x00"), "not COCO's"),
        (rle(4, 4, b"P"), "a run is cut"),
        (rle(4, 4, b"Poooooooooooooo0"), "too long"),
        (rle(4, 5, encode(Runs.of(np.eye(4, dtype=bool)), MaskEncoding.COCO_RLE).data), "16 pixels, but 5x4 has 20"),
        (EncodedMask(MaskEncoding.PNG, 4, 4, b"hello"), "not a PNG"),
        (EncodedMask(MaskEncoding.PNG, 4, 4, b"GIF89a" + bytes(60)), "not a PNG"),
        (EncodedMask(MaskEncoding.PNG, 4, 4, png(np.zeros((4, 5), np.uint8))), "PNG is 5x4"),
        (EncodedMask(MaskEncoding.PNG, 4, 4, png(np.zeros((4, 4, 3), np.uint8))), "one channel"),
        (EncodedMask(MaskEncoding.PNG, 4, 4, png(np.zeros((4, 4), np.uint16))), "8-bit"),
    ],
)
def test_data_that_lies_is_refused_before_it_is_decoded(mask: EncodedMask, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as raised:
        check_data(mask)
    assert raised.value.violations[0].field == "data"


def test_a_png_bomb_costs_nothing() -> None:
    # 60,000 x 60,000 zeros compress to about 3.5 MB; a header alone is enough here, since nothing more may be read.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk
    with pytest.raises(InvalidArgument, match="60000x60000, but height and width say 160x90"):
        check_data(EncodedMask(MaskEncoding.PNG, 90, 160, bomb))
    with pytest.raises(InvalidArgument, match="more than 1000000 pixels"):
        check(EncodedMask(MaskEncoding.PNG, 60_000, 60_000, bomb), max_bytes=100, max_pixels=1_000_000)


def test_a_png_is_not_decoded_in_this_process() -> None:
    mask = EncodedMask(MaskEncoding.PNG, 4, 4, png(np.zeros((4, 4), np.uint8)))
    check_data(mask)
    with pytest.raises(ValueError, match="not decoded in this process"):
        encoding_module.decode(mask)


@pytest.mark.parametrize(
    ("mask", "field"),
    [
        (EncodedMask(MaskEncoding.NONE, 4, 4, b""), "encoding"),
        (rle(0, 4, b"0"), "height"),
        (rle(4, 0, b"0"), "height"),
        (rle(2**32 - 1, 2**32 - 1, b"0"), "height"),
        (rle(4, 4, bytes(11)), "data"),
    ],
)
def test_limits_are_held_before_the_data_is_read(mask: EncodedMask, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check(mask, max_bytes=10, max_pixels=100)
    assert raised.value.violations[0].field == field
