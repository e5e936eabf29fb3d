"""What has to hold on a GPU: `pytest -m gpu tests/engine/devices`. Each test also runs on the CPU, in every run.

So no typing error waits for the day with a GPU. On the CPU fewer frames are tracked, and what only a GPU has (its
memory, recordings) is left out by `on_gpu`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import masklet
from benchmarks.sides import Reference, normalized
from masklet_server.embedded import EmbeddedServer
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.network import device as devices
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features, Past
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.engine import Engine
from masklet_server.engine.serving.jobs import ObjectTask
from masklet_server.models.build import build_model, build_reference
from masklet_server.models.registry import Registry
from tests.support.clips import BUNNY
from tests.support.engine import HEIGHT, SIZE, WIDTH, click, job, new_bank, pixels, stream

DEVICES = [pytest.param("cuda:0", marks=pytest.mark.gpu), "cpu"]
CPU = torch.device("cpu")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A GPU, or in its place the CPU."""
    yield torch.device(request.param)
    if request.param != "cpu":
        network.cache_clear()
        torch.cuda.empty_cache()


def on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


@functools.cache
def network(device: torch.device, dtype: torch.dtype = torch.float32, *, graphs: bool = False) -> Network:
    return Network(build_model(Registry.load().get("nano"), image_size=SIZE), device, dtype, graphs=graphs)


def tracked(net: Network, count: int, objects: int = 1) -> list[list[Tensor]]:
    """Logits of each object on each frame."""
    banks = [new_bank() for _ in range(objects)]
    context = stream(return_logits=True)
    found = []
    for index in range(count):
        tasks = [ObjectTask(bank, [click(i % 2)] if index == 0 else []) for i, bank in enumerate(banks)]
        (output,) = run_jobs(net, [replace(job(banks[0], index), tasks=tasks, stream=context)])
        found.append([torch.as_tensor(one.logits) for one in output.objects if one.logits is not None])
    return found


def iou(one: Tensor, other: Tensor) -> float:
    union = int(((one > 0) | (other > 0)).sum())
    return int(((one > 0) & (other > 0)).sum()) / union if union else 1.0


def close(found: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(found.cpu().float(), right.float(), rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def stages(net: Network, known: list[Tensor]) -> list[Tensor]:
    """What each stage makes of equal inputs: those that the CPU has found, once it has."""
    inputs: Iterator[Tensor] = iter(known)
    found: list[Tensor] = []

    def given(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return next(inputs, tensor).to(net.device)

    features = net.encode_pixels(torch.from_numpy(np.array(pixels(0)))[None])[0]
    top, fine = given(features.top), (given(features.fine[0]), given(features.fine[1]))
    batch = Features.stack([Features(top, fine)])
    middle = torch.full((1, 1, 2), SIZE / 2, device=net.device)
    label = torch.ones(1, 1, dtype=torch.int32, device=net.device)
    decoded = net.decoder.decode(net.without_memory(batch.top), batch.fine, points=(middle, label), multimask=True)
    logits, score, pointer = given(decoded.logits), given(decoded.object_score), given(decoded.pointer)
    memory = given(net.encode_memory(batch.top, logits, score, prompted=True))
    past = Past(
        memories=memory[:, None],
        ages=torch.zeros(1, 1, dtype=torch.int64, device=net.device),
        pointers=pointer[:, None],
        distances=torch.full((1, 1), 0.5, device=net.device),
    )
    given(net.with_memory(batch.top, past))
    tracked_once, remembered = net.step(batch, past)
    given(tracked_once.logits)
    given(remembered)
    given(net.resize(logits, HEIGHT, WIDTH))
    return found


def test_every_stage_gives_what_the_cpu_gives(device: torch.device) -> None:
    right = stages(network(CPU), [])
    found = stages(network(device), right)
    assert len(found) == len(right) == 11
    for one, other in zip(found, right, strict=True):
        close(one, other)


@pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2'")
@torch.inference_mode()
def test_float32_has_the_logits_of_metas_predictor(device: torch.device) -> None:
    count = 20 if on_gpu(device) else 4
    # In a shorter clip the reference would count pointers by the clip's length, which a stream does not know.
    frames = np.stack([pixels(index) for index in range(20)])
    predictor = build_reference(Registry.load().get("nano"), image_size=SIZE).to(device)
    reference = Reference(predictor, normalized(frames).to(device), HEIGHT, WIDTH)
    reference.prompt(click())
    right = reference.propagate(0, count)
    for index, (logits,) in enumerate(tracked(network(device), count)):
        shown = network(device).resize(logits.reshape(1, 1, *logits.shape[-2:]).float(), HEIGHT, WIDTH)[0, 0]
        close(shown, right[index, 1].cpu())


def test_bfloat16_has_the_masks_of_float32(device: torch.device) -> None:
    count = 20 if on_gpu(device) else 4
    right = tracked(network(CPU), count)
    found = tracked(network(device, torch.bfloat16), count)
    assert min(iou(a[0], b[0]) for a, b in zip(found, right, strict=True)) > 0.9


def test_memory_is_flat(device: torch.device) -> None:
    net, bank = network(device), new_bank()
    sizes, allocated = [], []
    count = 60 if on_gpu(device) else 24
    for index in range(count):
        run_jobs(net, [job(bank, index, [click()] if index == 0 else [])])
        sizes.append(bank.nbytes)
        allocated.append(torch.cuda.memory_allocated(device) if on_gpu(device) else 0)
    assert len(set(sizes[20:])) == 1
    assert len(set(allocated[20:])) == 1


def test_graphs_give_the_same_logits(device: torch.device) -> None:
    count = 24 if on_gpu(device) else 4
    right = tracked(network(device), count)
    found = tracked(network(device, graphs=True), count)
    for one, other in zip(found, right, strict=True):
        close(one[0].cpu(), other[0].cpu())


def test_missing_memory_is_answered_and_survived(device: torch.device) -> None:
    async def go() -> None:
        engine = Engine({"nano": network(device)})
        engine.start()
        try:
            bank = engine.new_bank("nano")
            with out_of_memory(device), pytest.raises(masklet.ResourceExhausted, match="ran out of memory"):
                await engine.run(job(bank, 0, [click()]))
            again = engine.new_bank("nano")
            output = await engine.run(job(again, 0, [click()]))
            assert output.objects[0].runs.area > 0
        finally:
            await engine.close()

    asyncio.run(go())


def out_of_memory(device: torch.device) -> mock._patch[Callable[..., object]]:
    """The device has no memory left: on a GPU the encoder asks for more than there is."""

    def encode(_: Network, pictures: Tensor) -> list[Features]:
        if on_gpu(device):
            torch.empty(2**50, dtype=torch.uint8, device=device)
        raise torch.OutOfMemoryError(f"no memory for {len(pictures)} pictures")

    return mock.patch.object(Network, "encode_pixels", encode)


@pytest.mark.parametrize("streams", [2, 16])
def test_streams_at_once_have_the_masks_that_they_have_alone(device: torch.device, streams: int) -> None:
    count = 10 if on_gpu(device) else 2
    net = network(device)

    async def follow(engine: Engine, bank: MemoryBank, seed: int) -> list[int]:
        areas = []
        for index in range(count):
            prompts = [click()] if index == 0 else []
            output = await engine.run(job(bank, index, prompts, name=str(seed), seed=seed % 4))
            areas.append(output.objects[0].runs.area)
        return areas

    async def go(seeds: Sequence[int]) -> list[list[int]]:
        engine = Engine({"nano": net})
        engine.start()
        try:
            return await asyncio.gather(*(follow(engine, engine.new_bank("nano"), seed) for seed in seeds))
        finally:
            await engine.close()

    together = asyncio.run(go(range(streams)))
    alone = [asyncio.run(go([seed]))[0] for seed in range(min(streams, 4))]
    for seed, areas in enumerate(together):
        np.testing.assert_allclose(areas, alone[seed % 4], rtol=0.02, atol=2)


def test_a_server_on_the_device_measures_once_and_tracks(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "tuning_folder", lambda: tmp_path)
    prompt = masklet.Prompt(point_coords=[(360, 480)])
    for _ in range(2):
        with (
            EmbeddedServer(device=str(device), runtime="torch") as address,
            masklet.Client(address) as client,
            client.track(BUNNY, prompt) as tracking,
        ):
            areas = [frame.objects[1].mask.sum() for frame, _ in zip(tracking, range(4), strict=False)]
            (nano,) = [model for model in client.info().models if model.default]
        assert min(areas) > 1000
        assert bool(nano.tuning) == on_gpu(device)
        assert len(list(tmp_path.glob("*.json"))) == on_gpu(device)
