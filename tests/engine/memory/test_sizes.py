"""What tracking is said to take of memory, beside what it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import torch

from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.serving.engine import Engine
from tests.support.engine import click, job, prompted, small_network

PROMPTED = (0, 5, 11)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    started = Engine({"nano": small_network()})
    started.start()
    yield started
    await started.close()


@pytest.mark.parametrize("policy", MemoryPolicy)
async def test_a_bank_takes_at_most_what_was_counted_for_it(engine: Engine, policy: MemoryPolicy) -> None:
    said = engine.models["nano"].memory
    bank = engine.new_bank("nano", memory_policy=policy)
    bank.keeps_prompts = True
    for index in range(20):
        await engine.run(job(bank, index, [click()] if index in PROMPTED else ()))
        frames = sum(index >= at for at in PROMPTED)
        assert bank.nbytes <= said.tracked_object + frames * said.conditioning_frame
    if policy is MemoryPolicy.SAM2:  # not far from it; the features of a prompted frame are not kept for long
        top = 256 * small_network().grid_size ** 2 * 4
        assert bank.nbytes + top > 0.8 * (said.tracked_object + len(PROMPTED) * said.conditioning_frame)


async def test_a_history_takes_at_most_what_was_counted_for_it(engine: Engine) -> None:
    said = engine.models["nano"].memory
    history = engine.new_history("nano", TensorFile(10**9))
    for index in PROMPTED:
        await engine.run(prompted(history, index, click()))
    for index in range(20):
        await engine.run(job(history, index))
        assert history.nbytes <= said.tracked_object + len(PROMPTED) * said.conditioning_frame


def test_features_are_counted_by_the_stream() -> None:
    with torch.inference_mode():
        (features,) = small_network().encode_pixels(torch.zeros(1, 128, 128, 3, dtype=torch.uint8))
    model = Engine({"nano": small_network()}).models["nano"]
    assert features.nbytes <= model.memory.stream / model.encode_ahead <= 1.3 * features.nbytes
