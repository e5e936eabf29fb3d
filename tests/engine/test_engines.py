"""Several engines in one process: two on the CPU, as there may be two on GPUs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import torch

from masklet.errors import FailedPrecondition, InvalidArgument, NotFound
from masklet_server.engine.engines import Engines
from masklet_server.engine.serving.engine import Engine, EngineOptions
from masklet_server.engine.serving.image_predictor import PictureCache
from masklet_server.engine.serving.picture_jobs import PictureJob, PicturePrompt
from masklet_server.engine.serving.scheduler import Scheduler
from tests.support import synthetic
from tests.support.engine import click, job, new_bank, small_network


@pytest.fixture
async def both() -> AsyncIterator[tuple[Engines, list[Engine]]]:
    members = [Engine({"nano": small_network()}) for _ in range(2)]
    engines = Engines(members)
    engines.start()
    yield engines, members
    await engines.close()


async def test_sessions_that_come_at_once_are_spread(both: tuple[Engines, list[Engine]]) -> None:
    engines, members = both
    placed = [engines.place() for _ in range(6)]
    assert Counter(map(id, placed)) == {id(member): 3 for member in members}


async def test_a_session_goes_where_fewer_objects_are(both: tuple[Engines, list[Engine]]) -> None:
    engines, (first, second) = both
    banks = [first.new_bank("nano") for _ in range(3)]
    assert [engines.place() for _ in range(3)] == [second] * 3
    more = [second.new_bank("nano") for _ in range(4)]
    assert engines.place() is first
    del banks, more
    assert Counter(map(id, (engines.place() for _ in range(4)))) == {id(first): 2, id(second): 2}


async def test_two_streams_track_at_once_with_the_masks_that_each_has_alone(
    both: tuple[Engines, list[Engine]],
) -> None:
    engines, _ = both

    async def tracked(engine: Engine, seed: int) -> list[Any]:
        bank = new_bank()
        outputs = [
            await engine.run(job(bank, index, [click()] if index == 0 else [], name=str(seed), seed=seed))
            for index in range(4)
        ]
        return [output.objects[0].mask for output in outputs]

    together = await asyncio.gather(*(tracked(engines.place(), seed) for seed in range(2)))
    for seed, masks in enumerate(together):
        alone = await tracked(engines.place(), seed)
        assert all(np.array_equal(one, other) for one, other in zip(masks, alone, strict=True))


async def test_a_picture_is_found_again_by_its_id(both: tuple[Engines, list[Engine]]) -> None:
    engines, _ = both
    prompt = PicturePrompt(box=np.array([10, 10, 60, 60], np.float32))
    homes = set()
    for seed in range(6):
        picture = synthetic.frame(0, 64, 80, seed=seed)
        first = await engines.segment(PictureJob("nano", "s", picture, [prompt]))
        again = await engines.segment(PictureJob("nano", "s", first.image_id, [prompt]))
        assert np.array_equal(first.results[0][0].mask, again.results[0][0].mask)
        homes.add(int(PictureCache.id_of(picture)[:8], 16) % 2)
    assert homes == {0, 1}, "the pictures of this test use both devices"
    for unknown in ("no number", "", "ffffffff"):
        with pytest.raises(NotFound, match="send the picture again"):
            await engines.segment(PictureJob("nano", "s", unknown, [prompt]))


async def test_all_devices_are_named_and_counted(both: tuple[Engines, list[Engine]]) -> None:
    engines, (first, second) = both
    assert engines.models["nano"].device == "cpu, cpu"
    assert engines.default_model == "nano"
    banks = [first.new_bank("nano"), second.new_bank("nano")]
    for engine, bank in zip((first, second), banks, strict=True):
        await engine.run(job(bank, 0, [click()]))
    assert engines.bank_bytes() == first.bank_bytes() + second.bank_bytes() > 0


async def test_the_server_is_broken_if_one_engine_is(both: tuple[Engines, list[Engine]]) -> None:
    engines, members = both
    assert not engines.broken.done()
    for member in members:
        member.broken.set_result(None)
    assert engines.broken.done()


def test_devices_must_differ_and_exist() -> None:
    with pytest.raises(InvalidArgument, match="names a device twice"):
        Engines.load([], EngineOptions(device="cpu,cpu"))
    with pytest.raises(FailedPrecondition, match=r"device is all, but torch .* finds no CUDA device"):
        Engines.load([], EngineOptions(device="all"))
    with pytest.raises(InvalidArgument, match="at least one device"):
        Engines([])


@pytest.mark.parametrize(
    ("names", "found"), [("all", ["cuda:0", "cuda:1", "cuda:2"]), ("cuda:2,cuda:0", ["cuda:2", "cuda:0"])]
)
def test_each_gpu_gets_an_engine_of_its_own(names: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    loaded: list[str] = []

    def load(models: object, options: EngineOptions, *, observer: object = None) -> Engine:
        loaded.append(options.device)
        return Engine({"nano": small_network()})

    monkeypatch.setattr(Engine, "load", load)
    engines = Engines.load([], EngineOptions(device=names))
    assert loaded == found
    assert Counter(id(engines.place()) for _ in range(2 * len(found))).most_common()[-1][1] == 2
    with pytest.raises(InvalidArgument, match="names a device twice"):
        Engines.load([], EngineOptions(device="cuda,cuda:0"))
    with pytest.raises(FailedPrecondition, match=r"no cuda:3: this machine has 3 CUDA devices"):
        Engines.load([], EngineOptions(device="cuda:0,cuda:3"))


async def test_an_engines_thread_uses_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA streams and graphs are made on the thread's current device, which is the first one unless it is set."""
    used: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    network = small_network()
    monkeypatch.setattr(network, "device", torch.device("cuda", 1))
    scheduler = Scheduler({"nano": network}, PictureCache(0))
    scheduler.start()
    await scheduler.close()
    assert used == [torch.device("cuda", 1)]
