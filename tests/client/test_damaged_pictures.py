"""Pictures that Pillow cannot decode: errors name the file, and what is wrong with it."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import masklet
import masklet.importing
from masklet._media.mask_files import read_mask_file
from masklet._media.pictures import load_rgb
from masklet.importing.prompts import read_prompts


def whole() -> bytes:
    noise = np.random.default_rng(0).integers(0, 2, (200, 300)) * 255
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def cut_off() -> bytes:
    return whole()[: len(whole()) // 2]


def with_a_wrong_byte() -> bytes:
    data = bytearray(whole())
    data[60] ^= 255
    return bytes(data)


def without_end_of_pixels() -> bytes:
    return png(300, 200, zlib.compress(b"\0" * 99))


def huge() -> bytes:
    return png(30_000, 30_000, zlib.compress(b"\0" * 99))


def png(width: int, height: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def prompts(path: Path) -> object:
    (path.parent / "p.json").write_text(json.dumps([{"mask": path.name}]))
    return read_prompts(path.parent / "p.json")


def cut_out(path: Path) -> object:
    return masklet.cutout(path, np.ones((200, 300), np.bool_))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (cut_off, "is damaged"),
        (with_a_wrong_byte, "is damaged"),
        (without_end_of_pixels, "is damaged"),
        (huge, "is too large"),
    ],
)
@pytest.mark.parametrize(
    "read", [read_mask_file, load_rgb, lambda path: masklet.importing.read(path.parent), prompts, cut_out]
)
def test_damaged_pictures_are_named(
    read: Callable[[Path], object],
    data: Callable[[], bytes],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Pillow's own limit, which the decoding process lifts for itself: a test of that may have run in this process.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**30 // 12)
    (tmp_path / "0.png").write_bytes(data())
    with pytest.raises(masklet.InvalidArgument, match=rf"0\.png {told}: "):
        read(tmp_path / "0.png")


def test_files_that_are_not_there_are_not_damaged(tmp_path: Path) -> None:
    for read in (read_mask_file, load_rgb):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone.png")
