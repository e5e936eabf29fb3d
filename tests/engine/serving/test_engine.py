"""The engine: its models, the memories that it makes, and what jobs give."""

from __future__ import annotations

import gc
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from masklet.errors import InvalidArgument, NotFound
from masklet_server.engine.serving.engine import Engine
from masklet_server.engine.serving.picture_jobs import PictureJob, PicturePrompt
from tests.support import synthetic
from tests.support.engine import HEIGHT, WIDTH, click, job, prompted, small_network, stream


def test_an_engine_needs_a_model() -> None:
    with pytest.raises(InvalidArgument, match="at least one model"):
        Engine({})


async def test_it_tells_what_it_holds(engine: Engine) -> None:
    described = engine.models["nano"]
    assert engine.default_model == "nano"
    assert (described.image_size, described.logits_size, described.dtype, described.device) == (
        128,
        32,
        "float32",
        "cpu",
    )
    assert described.parameter_count > 4_000_000
    assert described.device_name


async def test_unknown_models_are_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound, match="'huge' is not loaded; this server has nano"):
        engine.new_bank("huge")


async def test_logits_are_those_of_the_masks(engine: Engine) -> None:
    asked = replace(job(engine.new_bank("nano"), 0, [click()]), stream=stream(return_logits=True))
    output = await engine.run(asked)
    for found in (output.objects[0], output.prompts[0][0]):
        assert found.logits is not None
        assert found.logits.shape == (32, 32)
        assert found.logits.dtype == np.float32
        full = small_network().resize(torch.from_numpy(found.logits)[None, None], HEIGHT, WIDTH)[0, 0]
        np.testing.assert_array_equal(full > 0, found.mask)
    unasked = await engine.run(job(engine.new_bank("nano"), 0, [click()]))
    assert unasked.objects[0].logits is None


async def test_tracking_and_segmenting(engine: Engine) -> None:
    bank = engine.new_bank("nano")
    output = await engine.run(job(bank, 0, [click()]))
    assert output.objects[0].mask.shape == (HEIGHT, WIDTH)
    assert len(output.prompts[0]) == 1
    box = PicturePrompt(box=np.array([10, 10, 50, 50], np.float32))
    picture = PictureJob("nano", "b", synthetic.frame(0, HEIGHT, WIDTH), [box])
    assert (await engine.segment(picture)).results[0][0].mask.shape == (HEIGHT, WIDTH)


async def test_prompting_alone_leaves_the_tracking_to_another_job(engine: Engine) -> None:
    apart, together = engine.new_bank("nano"), engine.new_bank("nano")
    alone = await engine.run(prompted(apart, 0, click()))
    assert alone.objects == []
    assert not apart.was_tracked(0)
    tracked, both = await engine.run(job(apart, 0)), await engine.run(job(together, 0, [click()]))
    assert (alone.prompts[0][0].mask == both.prompts[0][0].mask).all()
    assert (tracked.objects[0].mask == both.objects[0].mask).all()
    assert apart.was_tracked(0)


async def test_bank_bytes_count_living_banks_only(engine: Engine) -> None:
    bank = engine.new_bank("nano")
    await engine.run(job(bank, 0, [click()]))
    assert engine.bank_bytes() == bank.nbytes > 0
    del bank
    gc.collect()
    assert engine.bank_bytes() == 0


@pytest.mark.slow
def test_bank_bytes_may_be_asked_while_banks_come_and_go() -> None:
    engine = Engine({"nano": small_network()})
    over = threading.Event()

    def make_banks() -> None:
        while not over.is_set():
            engine.new_bank("nano")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    keep = [engine.new_bank("nano") for _ in range(300)]
    thread = threading.Thread(target=make_banks)
    thread.start()
    try:
        assert {engine.bank_bytes() for _ in range(200)} == {0}
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)
    del keep
