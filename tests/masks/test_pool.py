"""Masks are prepared for sending: at once if that is quick, else in a thread."""

from __future__ import annotations

import asyncio
import io
import threading

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from masklet.errors import InvalidArgument
from masklet_server.masks import pool as masks_pool
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.pool import MaskPool
from masklet_server.masks.runs import Runs
from tests.support.masks import decode, sandboxed_png


def disc(side: int) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:side, :side]
    found: npt.NDArray[np.bool_] = (rows - side // 2) ** 2 + (columns - side // 3) ** 2 < (side // 4) ** 2
    return found


def noise(side: int) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(0).random((side, side)) < 0.5


@pytest.mark.parametrize(
    ("mask", "encoding", "in_a_thread"),
    [
        (disc(64), MaskEncoding.COCO_RLE, False),
        (disc(64), MaskEncoding.NONE, False),
        (disc(64), MaskEncoding.PNG, True),
        (noise(128), MaskEncoding.COCO_RLE, True),
    ],
)
async def test_masks_are_encoded_and_measured(
    mask: npt.NDArray[np.bool_], encoding: MaskEncoding, in_a_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[threading.Thread] = []

    def watched(runs: Runs, encoding: MaskEncoding) -> EncodedMask:
        where.append(threading.current_thread())
        return encode(runs, encoding)

    monkeypatch.setattr(masks_pool, "encode", watched)
    pool = MaskPool(threads=1)
    try:
        ready = await pool.prepare(Runs.of(mask), encoding)
    finally:
        pool.close()
    assert (where[0] is not threading.main_thread()) == in_a_thread
    assert ready.area == mask.sum()
    assert ready.box == Runs.of(mask).box
    if encoding is not MaskEncoding.NONE:
        assert np.array_equal(decode(ready.encoded), mask)


async def test_work_is_done_in_a_thread() -> None:
    pool = MaskPool(threads=1)
    try:
        assert await pool.run(threading.current_thread) is not threading.main_thread()
    finally:
        pool.close()


def png(pixels: npt.NDArray[np.uint8], **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


async def decoded(mask: EncodedMask) -> npt.NDArray[np.bool_]:
    pool = MaskPool(1, sandboxed_png)
    try:
        return await pool.of("somebody").decode(mask, lambda pixels: pixels)
    finally:
        pool.close()


@pytest.mark.parametrize("encoding", [MaskEncoding.COCO_RLE, MaskEncoding.PNG])
async def test_masks_of_clients_are_decoded(encoding: MaskEncoding) -> None:
    assert np.array_equal(await decoded(encode(Runs.of(disc(64)[:50]), encoding)), disc(64)[:50])


async def test_a_png_above_127_is_foreground() -> None:
    pixels = np.array([[0, 127, 128, 255]], np.uint8)
    mask = await decoded(EncodedMask(MaskEncoding.PNG, 1, 4, png(pixels)))
    assert mask.tolist() == [[False, False, True, True]]


async def test_a_cut_png_is_refused() -> None:
    data = png(np.random.default_rng(0).integers(0, 255, (90, 160), np.uint8))
    with pytest.raises(InvalidArgument, match="broken PNG") as raised:
        await decoded(EncodedMask(MaskEncoding.PNG, 90, 160, data[:2000]))
    assert raised.value.violations[0].field == "data"


async def test_a_png_that_is_shown_turned_is_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(InvalidArgument, match="shown as 4x6, but height and width say 6x4"):
        await decoded(EncodedMask(MaskEncoding.PNG, 4, 6, png(np.zeros((4, 6), np.uint8), exif=exif)))


async def test_a_png_is_decoded_by_whom_the_pool_is_given_and_by_nobody_else() -> None:
    asked: list[tuple[bytes, str]] = []

    async def decode_png(data: bytes, client: str) -> npt.NDArray[np.uint8]:
        asked.append((data, client))
        return np.full((2, 3, 3), 255, np.uint8)

    mask = EncodedMask(MaskEncoding.PNG, 2, 3, png(np.zeros((2, 3), np.uint8)))
    pool, other = MaskPool(1, decode_png), MaskPool(1)
    try:
        found = await pool.of("somebody").decode(mask, lambda pixels: pixels)
        assert found.all(), "these are not the file's own pixels"
        assert asked == [(mask.data, "somebody")]
        with pytest.raises(InvalidArgument, match="must be COCO_RLE here"):
            await other.decode(mask, lambda pixels: pixels)
    finally:
        pool.close()
        other.close()


async def test_a_client_with_much_work_leaves_a_thread_to_the_others() -> None:
    pool, release = MaskPool(), threading.Event()
    try:
        busy = [asyncio.create_task(pool.of("busy").run(lambda: release.wait(30))) for _ in range(8)]
        await asyncio.sleep(0.05)
        where = await asyncio.wait_for(pool.of("other").run(threading.current_thread), 10)
        assert where is not threading.main_thread()
        assert not any(task.done() for task in busy)
        release.set()
        assert await asyncio.gather(*busy) == [True] * 8
    finally:
        release.set()
        pool.close()
