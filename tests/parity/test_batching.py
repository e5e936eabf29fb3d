"""Dynamic batching moves rounding, not masks: mean IoU with the lone run at least 0.999."""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt
import pytest
import torch

from masklet.prompts import Prompt
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.batch import EngineObserver
from masklet_server.engine.serving.engine import Engine
from masklet_server.engine.serving.jobs import FrameInput, ObjectTask, StreamContext, Track
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support import synthetic

HEIGHT, WIDTH, NUM_FRAMES = 180, 240, 10


class Batches(EngineObserver):
    """Notes how many objects were stepped together."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_encode(self, batch_size: int, seconds: float) -> None:
        pass

    def on_step(self, batch_size: int, seconds: float) -> None:
        self.sizes.append(batch_size)

    def on_queue(self, seconds: float) -> None:
        pass


async def follow(engine: Engine, stream: int, *, deterministic: bool = False) -> list[npt.NDArray[np.bool_]]:
    """Masks ``bool[H, W]`` of one object in a clip of its own."""
    size = engine.models["nano"].image_size
    blob = synthetic.BLOBS[stream % 3]
    bank = engine.new_bank("nano")
    masks = []
    frames = await asyncio.to_thread(synthetic.clip, NUM_FRAMES, size, size, seed=stream)
    await asyncio.sleep(0.1)  # so that all start together
    for index in range(NUM_FRAMES):
        prompts = [Prompt(point_coords=[blob.center(0, HEIGHT, WIDTH)])] if index == 0 else []
        job = Track(
            StreamContext(str(stream), "nano", deterministic=deterministic),
            FrameInput(index, frames[index], HEIGHT, WIDTH),
            [ObjectTask(bank, prompts)],
        )
        masks.append((await engine.run(job)).objects[0].mask)
    return masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
async def test_four_sessions_in_one_batch(dtype: torch.dtype) -> None:
    observer = Batches()
    network = Network(build_model(Registry.load().get("nano"), image_size=256), torch.device("cpu"), dtype)
    engine = Engine({"nano": network}, observer=observer)
    engine.start()
    try:
        alone = [await follow(engine, stream) for stream in range(4)]
        observer.sizes.clear()
        together = await asyncio.gather(*(follow(engine, stream) for stream in range(4)))
        assert max(observer.sizes) == 4, "the sessions never shared a batch"
    finally:
        await engine.close()
    for lone, batched in zip(alone, together, strict=True):
        assert any(mask.any() for mask in lone)
        mean_iou = np.mean([synthetic.iou(a, b) for a, b in zip(lone, batched, strict=True)])
        assert mean_iou >= 0.999


async def test_a_deterministic_session_gives_the_same_bits_in_company() -> None:
    observer = Batches()
    network = Network(build_model(Registry.load().get("nano"), image_size=256), torch.device("cpu"))
    engine = Engine({"nano": network}, observer=observer)
    engine.start()
    try:
        alone = await follow(engine, 0, deterministic=True)
        observer.sizes.clear()
        runs = await asyncio.gather(follow(engine, 0, deterministic=True), follow(engine, 1), follow(engine, 2))
    finally:
        await engine.close()
    assert max(observer.sizes) == 2, "the other two should have shared batches"
    for lone, accompanied in zip(alone, runs[0], strict=True):
        np.testing.assert_array_equal(lone, accompanied)
