"""Masks are drawn once, by the thread that needs them first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from masklet_server.masks.drawing import Drawing
from masklet_server.masks.encoding import MaskEncoding, decode
from masklet_server.masks.pool import MaskPool
from masklet_server.masks.runs import Runs

SQUARE = np.zeros((6, 8), np.bool_)
SQUARE[2:4, 3:6] = True


def test_a_mask_is_drawn_once_however_many_threads_ask() -> None:
    everybody_asks = threading.Barrier(4)
    drawn = []

    def draw() -> Runs:
        drawn.append(threading.current_thread())
        return Runs.of(SQUARE)

    drawing = Drawing(draw)
    before = drawing.is_drawn

    def ask(_: int) -> Runs:
        everybody_asks.wait(10)
        return drawing.runs

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(drawn) == 1
    assert (before, drawing.is_drawn) == (False, True)
    assert all(one is found[0] for one in found)
    assert np.array_equal(found[0].mask, SQUARE)


def test_a_failure_reaches_whoever_asks_and_may_pass() -> None:
    answers: Iterator[Runs | MemoryError] = iter([MemoryError("no room for a mask"), Runs.of(SQUARE)])

    def draw() -> Runs:
        answer = next(answers)
        if isinstance(answer, MemoryError):
            raise answer
        return answer

    drawing = Drawing(draw)
    with pytest.raises(MemoryError, match="no room"):
        _ = drawing.runs
    assert not drawing.is_drawn
    assert np.array_equal(drawing.runs.mask, SQUARE)


async def test_the_pool_draws_in_its_own_threads() -> None:
    where = []

    def draw() -> Runs:
        where.append(threading.current_thread())
        return Runs.of(SQUARE)

    pool = MaskPool(threads=1)
    try:
        drawing = Drawing(draw)
        first = await pool.prepare(drawing, MaskEncoding.COCO_RLE)
        again = await pool.prepare(drawing, MaskEncoding.COCO_RLE)
    finally:
        pool.close()
    assert len(where) == 1
    assert where[0] is not threading.main_thread()
    assert first == again
    assert np.array_equal(decode(first.encoded), SQUARE)
    assert first.box == (3, 2, 6, 4)
