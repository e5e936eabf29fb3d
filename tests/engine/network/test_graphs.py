"""Functions are recorded for shapes that come often, and replayed; recording itself needs a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from masklet_server.engine.network.graphs import RUNS_BEFORE, CudaCapture, Function, GraphCache, InBuckets


class Recorder:
    """A fake of CUDA's recording that remembers the shapes."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.replayed = 0

    def capture(self, function: Function, arguments: Sequence[Tensor]) -> Function:
        self.recorded.append(tuple(arguments[0].shape))

        def replay(*arguments: Tensor) -> tuple[Tensor, ...]:
            self.replayed += 1
            return function(*arguments)

        return replay


def double(x: Tensor) -> tuple[Tensor, ...]:
    return (2 * x,)


def test_what_comes_again_is_recorded_once_and_then_replayed() -> None:
    recorder = Recorder()
    cached = GraphCache(double, recorder.capture)

    for i in range(RUNS_BEFORE + 4):
        assert torch.equal(cached(torch.full((2,), i))[0], torch.full((2,), 2 * i))

    assert recorder.recorded == [(2,)]
    assert recorder.replayed == 3


def test_each_shape_and_dtype_has_its_own_recording() -> None:
    recorder = Recorder()
    cached = GraphCache(double, recorder.capture)

    for _ in range(RUNS_BEFORE + 1):
        cached(torch.zeros(2))
        cached(torch.zeros(3))
        cached(torch.zeros(3, dtype=torch.float64))

    assert recorder.recorded == [(2,), (3,), (3,)]


def test_there_are_never_more_recordings_than_allowed() -> None:
    recorder = Recorder()
    cached = GraphCache(double, recorder.capture, limit=2)

    for _ in range(RUNS_BEFORE + 2):
        for side in (1, 2, 3):
            assert torch.equal(cached(torch.ones(side))[0], torch.full((side,), 2.0))

    assert recorder.recorded == [(1,), (2,)]


def test_what_cannot_be_recorded_is_run_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    def capture(_: Function, __: Sequence[Tensor]) -> Function:
        nonlocal tries
        tries += 1
        raise torch.OutOfMemoryError("CUDA out of memory")

    cached = GraphCache(double, capture)

    for _ in range(3 * RUNS_BEFORE):
        assert torch.equal(cached(torch.ones(2))[0], torch.full((2,), 2.0))

    assert tries == 1
    assert "[[2]] cannot be recorded and is run as it is: CUDA out of memory" in caplog.text


def test_forgotten_recordings_are_made_again() -> None:
    recorder = Recorder()
    cached = GraphCache(double, recorder.capture)
    for _ in range(2):
        for _ in range(RUNS_BEFORE + 2):
            cached(torch.zeros(2))
        cached.forget()
    assert recorder.recorded == [(2,), (2,)]


def test_batches_are_padded_to_the_next_size() -> None:
    seen: list[int] = []

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(x))
        return x + y, 2 * y

    padded = InBuckets(function, (4, 1, 8))
    for count in (1, 2, 4, 5, 8, 9):
        x, y = torch.randn(count, 3), torch.randn(count, 3)
        found = padded(x, y)
        assert torch.equal(found[0], x + y)
        assert torch.equal(found[1], 2 * y)
    assert seen == [1, 4, 4, 8, 8, 9]


@pytest.mark.gpu
def test_a_recording_gives_what_the_function_gives() -> None:
    weight = torch.randn(64, 64, device="cuda")

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.relu(x @ weight), (x + y).sum(dim=0)

    cached = GraphCache(function, CudaCapture())
    kept = []
    for i in range(RUNS_BEFORE + 3):
        x, y = torch.full((8, 64), float(i), device="cuda"), torch.randn(8, 64, device="cuda")
        for found, expected in zip(cached(x, y), function(x, y), strict=True):
            torch.testing.assert_close(found, expected)
        kept.append(cached(x, y)[0])

    assert not torch.equal(kept[-1], kept[-2]), "a later replay wrote over an earlier answer"
