"""Files of every container and picture format that the server takes, and what can be done to their bytes."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from functools import cache

from PIL import Image

from tests.support.clips import make_clip, picture

# How many files there are; scripts/test has fewer than one runs by hand.
FILES = int(os.environ.get("MASKLET_HOSTILE_FILES", "150"))

# Container, codec and pixel format of each kind of video file.
_CLIPS = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "hevc": ("mp4", "libx265", "yuv420p"),
    "mkv": ("matroska", "ffv1", "bgr0"),
    "webm": ("webm", "libvpx-vp9", "yuv420p"),
    "ts": ("mpegts", "libx264", "yuv420p"),
    "avi": ("avi", "mpeg4", "yuv420p"),
    "mov": ("mov", "prores_ks", "yuv422p10le"),
    "mjpeg": ("avi", "mjpeg", "yuvj420p"),
    "gif": ("gif", "gif", "rgb8"),
}
VIDEO_KINDS = tuple(_CLIPS)
PICTURE_KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")


@cache
def clips() -> dict[str, bytes]:
    """A short video of each container, by its kind."""
    return {
        kind: make_clip(container, codec, size=(64, 48), frames=6, pixel_format=pixels)
        for kind, (container, codec, pixels) in _CLIPS.items()
    }


@cache
def pictures() -> dict[str, bytes]:
    """A small picture of each format, by its name."""
    found = {}
    for name in PICTURE_KINDS:
        file = io.BytesIO()
        Image.fromarray(picture(0, 64, 48)).save(file, name)
        found[name] = file.getvalue()
    return found


@cache
def png_mask() -> bytes:
    """A small mask as a PNG."""
    file = io.BytesIO()
    Image.fromarray(picture(0, 64, 48)).convert("L").save(file, "PNG")
    return file.getvalue()


def _flip(data: bytearray, source: random.Random) -> None:
    for _ in range(source.choice([1, 3, 20])):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _flip_head(data: bytearray, source: random.Random) -> None:
    for _ in range(source.choice([1, 4])):
        data[source.randrange(min(len(data), 200))] = source.randrange(256)


def _cut(data: bytearray, source: random.Random) -> None:
    del data[source.randrange(len(data)) :]


def _drop(data: bytearray, source: random.Random) -> None:
    start = source.randrange(len(data))
    del data[start : start + source.randrange(1, 400)]


def _repeat(data: bytearray, source: random.Random) -> None:
    start = source.randrange(len(data))
    piece = data[start : start + source.randrange(1, 2000)]
    data[start:start] = piece * source.randrange(1, 20)


def _large_number(data: bytearray, source: random.Random) -> None:
    """Lengths, sizes and counts are such numbers in all containers."""
    start = source.randrange(max(1, len(data) - 4))
    data[start : start + 4] = source.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", bytes(4)])


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _flip_head,
    _cut,
    _drop,
    _repeat,
    _large_number,
)


def damaged(data: bytes, seed: int) -> bytes:
    """The file with one to three things done to it; the same for the same seed."""
    source = random.Random(seed)
    changed = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 3])):
        if changed:
            source.choice(_MUTATIONS)(changed, source)
    if source.random() < 0.1:  # a file that is two files
        changed += source.choice(list(clips().values()))
    return bytes(changed)
