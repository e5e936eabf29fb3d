"""Masks are prepared for sending: at once if that is quick, else in a thread."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest

from masklet_server.masks import pool as masks_pool
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, decode, encode
from masklet_server.masks.pool import MaskPool
from masklet_server.masks.runs import Runs


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
