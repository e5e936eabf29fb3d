"""Single pictures at full size, and the processes that decode them."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from masklet.errors import DataLoss, InvalidArgument, MaskletError, ResourceExhausted, Unavailable
from masklet_server.budgets.budget import Bounds
from masklet_server.budgets.shares import BudgetLimits, Budgets
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.picture_pool import decode_picture, pool_for
from tests.support.clips import picture

LIMITS = VideoLimits()


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def photo(index: int = 0, width: int = 90, height: int = 60) -> Image.Image:
    return Image.fromarray(picture(index, width, height))


async def one(data: bytes, limits: VideoLimits = LIMITS) -> npt.NDArray[np.uint8]:
    return await asyncio.wait_for(decode_picture(Picture("encoded", data), limits), 60)


async def test_a_single_picture_at_full_size() -> None:
    image = photo(0, 1000, 700)
    pixels = await one(encoded(image))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(image))
    raw = await decode_picture(Picture("bgr24", image.tobytes(), 700, 1000), LIMITS)
    assert np.array_equal(raw, np.asarray(image)[..., ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_exif_orientation(orientation: int) -> None:
    upright = photo(0, 96, 64)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(await one(encoded(stored, "PNG", exif=exif)), np.asarray(upright))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "I;16"])
async def test_modes(mode: str) -> None:
    gray = photo().convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    else:
        image = gray.quantize() if mode == "P" else gray.convert("RGB").convert(mode)
    expected = np.asarray(gray.convert("1" if mode == "1" else "L").convert("RGB")).astype(int)
    pixels = await one(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert np.abs(pixels - expected).max() <= 2


async def test_transparent_pixels_are_put_on_black() -> None:
    image = photo().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (await one(encoded(image))).max() == 0
    palette = photo().convert("P")
    assert (await one(encoded(palette, transparency=bytes(256)))).max() == 0


async def test_only_the_first_frame_counts() -> None:
    first, second = photo(0), photo(5)
    pixels = await one(encoded(first, "TIFF", save_all=True, append_images=[second]))
    assert np.array_equal(pixels, np.asarray(first))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data do not have."""
    data = bytearray(encoded(photo(0, 8, 8)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


BAD_FILES: dict[str, tuple[bytes, type[MaskletError]]] = {
    "rubbish": (b"rubbish" * 100, InvalidArgument),
    "targa": (encoded(photo(), "TGA"), InvalidArgument),
    "postscript": (encoded(photo(), "EPS"), InvalidArgument),
    "truncated": (encoded(photo(), "JPEG")[:-200], DataLoss),
    "bomb": (bomb(60_000, 60_000), ResourceExhausted),
    "long side": (bomb(20_000, 2), ResourceExhausted),
}


@pytest.mark.parametrize("kind", BAD_FILES)
async def test_bad_files(kind: str) -> None:
    data, error = BAD_FILES[kind]
    with pytest.raises(error) as caught:
        await one(data)
    if isinstance(caught.value, InvalidArgument):
        assert caught.value.violations[0].field == "data"
    assert np.array_equal(await one(encoded(photo())), np.asarray(photo()))


async def test_flipped_bits() -> None:
    rng = np.random.default_rng(0)
    for file_format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        good = encoded(photo(), file_format)
        for flips in (1, 3, 10, 30):
            data = bytearray(good)
            for position in rng.integers(0, len(data), flips):
                data[position] ^= 1 << int(rng.integers(8))
            try:
                assert (await one(bytes(data))).ndim == 3
            except MaskletError as error:
                assert error.message  # noqa: PT017
    assert (await one(encoded(photo()))).shape == (60, 90, 3)


def wait_for_death(pid: int) -> None:
    """Wait until not even a zombie of the process is left."""
    while not is_gone(pid):
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether not even a zombie of the process is left."""
    return not Path(f"/proc/{pid}").exists()


async def test_processes_are_kept_and_replaced_when_they_die() -> None:
    limits = VideoLimits(max_side=9999)  # processes of our own
    data = encoded(photo())
    await one(data, limits)
    pool = pool_for(limits)
    (pid,) = pool.idle_pids
    await one(data, limits)
    assert pool.idle_pids == [pid]
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_for_death, pid)
    await one(data, limits)
    assert pid not in pool.idle_pids
    assert is_gone(pid)


async def test_a_process_that_dies_at_work_is_an_error() -> None:
    limits = VideoLimits(max_side=9998, first_frame_timeout_seconds=1.0)
    data = encoded(photo())
    await one(data, limits)
    os.kill(pool_for(limits).idle_pids[0], signal.SIGSTOP)
    with pytest.raises(Unavailable, match="first_frame_timeout_seconds = 1: its decoding process did hardly anything"):
        await one(data, limits)
    await one(data, limits)
    stopped = pool_for(limits).idle_pids[0]
    os.kill(stopped, signal.SIGSTOP)
    waiting = asyncio.ensure_future(one(data, limits))
    await asyncio.sleep(0.2)
    os.kill(stopped, signal.SIGSEGV)
    os.kill(stopped, signal.SIGCONT)
    with pytest.raises(DataLoss, match="SIGSEGV"):
        await waiting
    assert is_gone(stopped)


async def test_a_picture_is_not_blamed_for_the_end_of_the_process_that_forks_decoders() -> None:
    limits = VideoLimits(max_side=9993)
    data = encoded(photo())
    await one(data, limits)
    pid = pool_for(limits).idle_pids[0]
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.ensure_future(one(data, limits))
    await asyncio.sleep(0.2)
    fork_server.replace(fork_server.start())
    with pytest.raises(Unavailable, match="your input is not the cause, send it again"):
        await waiting
    assert np.array_equal(await one(data, limits), np.asarray(photo()))


async def test_many_single_pictures_at_once() -> None:
    images = [photo(index) for index in range(20)]
    results = await asyncio.gather(*(one(encoded(image)) for image in images))
    assert all(np.array_equal(pixels, np.asarray(image)) for pixels, image in zip(results, images, strict=True))


def test_processes_serve_several_event_loops() -> None:
    data = encoded(photo())
    for _ in range(2):
        assert asyncio.run(decode_picture(Picture("encoded", data), LIMITS)).shape == (60, 90, 3)


def scan_bomb(scans: int, side: int = 1024) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each takes long, and has few bytes."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


async def test_a_picture_with_very_many_scans_is_refused_at_once() -> None:
    assert (await one(scan_bomb(20))).shape == (1024, 1024, 3)
    with pytest.raises(ResourceExhausted, match="more than 100 scans"):
        await one(scan_bomb(5000))


async def test_a_film_behind_a_photo_is_no_scan() -> None:
    film = b"\xff\xda" * 200  # as often as in 13 MB of a film that a phone has put there
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}):
        data = encoded(photo(), "JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 150, **options)
        assert (await one(data + film)).shape == (60, 90, 3)


@pytest.mark.slow
async def test_a_picture_has_a_bound_of_processor_time() -> None:
    limits = VideoLimits(max_side=9997, picture_cpu_seconds=1)
    with pytest.raises(ResourceExhausted, match="more processor time than picture_cpu_seconds = 1"):
        await one(scan_bomb(80, side=5800), limits)
    assert (await one(encoded(photo()), limits)).shape == (60, 90, 3)


@pytest.mark.slow
async def test_a_client_with_many_slow_pictures_leaves_a_process_to_others() -> None:
    limits = VideoLimits(max_side=9996, picture_cpu_seconds=0)
    budgets = Budgets(BudgetLimits())
    slow = Picture("encoded", scan_bomb(60, side=4000))
    flood = [asyncio.create_task(decode_picture(slow, limits, budgets.of("a"))) for _ in range(12)]
    await asyncio.sleep(0.5)  # all processes that it may have are at work
    began = time.monotonic()
    await decode_picture(Picture("encoded", encoded(photo())), limits, budgets.of("b"))
    alone = time.monotonic() - began
    done = sum(task.done() for task in flood)
    await asyncio.gather(*flood)
    all_of_them = time.monotonic() - began
    assert done < 6, "it did not wait for those that came before it"
    assert alone < all_of_them / 3
    assert budgets.decoders.budget.used == 0


async def test_a_picture_that_takes_more_memory_than_there_is_ends_alone() -> None:
    limits = VideoLimits(max_side=9995)
    budgets = Budgets(BudgetLimits(decoder_memory=Bounds(10**9, 40 * 1024**2)))
    # Memory is measured every tenth of a second: many scans, so that a busy machine measures it in time, too.
    large = Picture("encoded", scan_bomb(95, side=5900))
    with pytest.raises(ResourceExhausted, match="max_decoder_memory_bytes_per_client"):
        await decode_picture(large, limits, budgets.of("a"))
    assert (await decode_picture(Picture("encoded", encoded(photo())), limits, budgets.of("a"))).shape == (60, 90, 3)
    budgets.close()


async def test_a_frozen_process_is_noticed_even_while_a_large_picture_is_sent() -> None:
    limits = VideoLimits(max_side=9994, first_frame_timeout_seconds=1.0)
    await one(encoded(photo()), limits)
    os.kill(pool_for(limits).idle_pids[0], signal.SIGSTOP)
    raw = Picture("rgb24", bytes(3000 * 3000 * 3), 3000, 3000)
    with pytest.raises(Unavailable, match="first_frame_timeout_seconds = 1: its decoding process did hardly anything"):
        await asyncio.wait_for(decode_picture(raw, limits), 20)
