"""OpenVINO computes a part of the network where it is right and quicker, and torch computes the rest."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from masklet.errors import FailedPrecondition, InvalidArgument
from masklet_server.engine.network import device
from masklet_server.engine.network.device import make_network
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.openvino import choose
from masklet_server.engine.network.openvino.choose import accelerate
from masklet_server.engine.network.openvino.compiled import CompiledModel, Model
from masklet_server.engine.network.tensors import FeatureBatch, Features, Past
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry

CPU = torch.device("cpu")
SIZE = 128


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openvino")


def networks(dtype: torch.dtype, cache: Path) -> tuple[Network, Network]:
    """Nano by torch, and with OpenVINO's help."""
    model = build_model(Registry.load().get("nano"), image_size=SIZE)
    by_torch, helped = Network(copy.deepcopy(model), CPU, dtype), Network(copy.deepcopy(model), CPU, dtype)
    accelerate(helped, model, cache)
    return by_torch, helped


@pytest.fixture(autouse=True)
def openvino_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says, so that it is OpenVINO that is looked at."""
    monkeypatch.setattr(choose, "_best_seconds", lambda *_: (1.0, 2.0))


def past_of(network: Network, memories: int = 7, pointers: int = 16, objects: int = 1) -> Past:
    generator = torch.Generator().manual_seed(1)
    side, model = network.grid_size, network.model
    shape = (objects, memories, model.mem_dim, side, side)
    return Past(
        torch.randn(*shape, generator=generator).to(torch.bfloat16),
        torch.arange(memories).clamp(max=model.num_maskmem - 1).expand(objects, -1),
        torch.randn(objects, pointers, model.hidden_dim, generator=generator).to(network.dtype),
        torch.linspace(0, 1, pointers).expand(objects, -1),
    )


def pixels(count: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def difference(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / b.float().abs().max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@torch.inference_mode()
def test_features_and_steps_are_those_of_torch(dtype: torch.dtype, tolerance: float, cache: Path) -> None:
    by_torch, helped = networks(dtype, cache)
    assert (by_torch.runtime, helped.runtime) == ("torch", "openvino")

    want, got = by_torch.encode_pixels(pixels(2)), helped.encode_pixels(pixels(2))
    for a, b in zip(got, want, strict=True):
        assert a.top.dtype == b.top.dtype == dtype
        assert all(difference(*pair) < tolerance for pair in zip((a.top, *a.fine), (b.top, *b.fine), strict=True))

    # From equal features on, so that the step alone is compared; two objects with pasts of their own.
    batch, past = Features.stack(want), past_of(by_torch, objects=2)
    (decoded, memory), (right, right_memory) = helped.step(batch, past), by_torch.step(batch, past)
    assert memory.shape == right_memory.shape
    assert memory.dtype == torch.bfloat16
    assert difference(memory, right_memory) < max(tolerance, 2**-7)  # both are rounded to bfloat16
    assert difference(decoded.pointer, right.pointer) < tolerance
    assert torch.allclose(decoded.predicted_iou, right.predicted_iou, atol=max(tolerance / 4, 1e-4))
    assert torch.equal(decoded.object_score > 0, right.object_score > 0)


@torch.inference_mode()
def test_the_encoder_begins_the_step_where_openvino_computes_both(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_torch, helped = networks(torch.float32, cache)
    (features,) = helped.encode_pixels(pixels())
    assert features.started is not None
    batch, past = Features.stack([features]), past_of(by_torch)
    without = FeatureBatch(batch.top, batch.fine)
    assert difference(helped.step(without, past)[0].logits, helped.step(batch, past)[0].logits) < 1e-4
    assert difference(features.started, by_torch.encode_pixels(pixels())[0].top.flatten(1).T) > 1e-2

    # The encoder is asked second.
    times = iter([(2.0, 1.0), (1.0, 2.0)])
    monkeypatch.setattr(choose, "_best_seconds", lambda *_: next(times))
    _, encoder_alone = networks(torch.float32, cache)
    assert encoder_alone.runtime == "openvino"
    (features,) = encoder_alone.encode_pixels(pixels())
    assert features.started is None
    assert torch.equal(encoder_alone.step(without, past)[0].logits, by_torch.step(without, past)[0].logits)


@torch.inference_mode()
def test_what_is_slower_is_left_to_torch(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_best_seconds", lambda *_: (2.0, 1.0))
    by_torch, helped = networks(torch.bfloat16, cache)
    assert helped.runtime == "torch"
    got, want = helped.encode_pixels(pixels())[0], by_torch.encode_pixels(pixels())[0]
    assert torch.equal(got.top, want.top)


@pytest.mark.slow
def test_what_is_wrong_is_left_to_torch(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile_ = Model.compile

    def wrong(model: Model, *args: object, **kwargs: object) -> object:
        compiled = compile_(model, *args, **kwargs)  # type: ignore[arg-type]
        monkeypatch.setattr(type(compiled), "__call__", spoiled)
        return compiled

    call = CompiledModel.__call__

    def spoiled(compiled: CompiledModel, *arguments: Tensor) -> tuple[Tensor, ...]:
        return tuple(result + 1000 for result in call(compiled, *arguments))

    monkeypatch.setattr(Model, "compile", wrong)
    with caplog.at_level(logging.WARNING):
        _, helped = networks(torch.bfloat16, cache)
    assert helped.runtime == "torch"
    for what in ("image encoder", "memory attention", "mask decoder", "memory encoder"):
        assert f"OpenVINO computes the {what} wrongly here" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(("memories", "pointers"), [(1, 1), (3, 3), (7, 16), (8, 17), (9, 18)])
@torch.inference_mode()
def test_every_size_of_memory_is_attended_to_the_same_each_time(memories: int, pointers: int, cache: Path) -> None:
    by_torch, helped = networks(torch.float32, cache)
    features, past = Features.stack(by_torch.encode_pixels(pixels())), past_of(by_torch, memories, pointers)
    first, *others = [helped.step(features, past) for _ in range(5)]
    assert difference(first[0].pointer, by_torch.step(features, past)[0].pointer) < 1e-4
    for decoded, memory in others:
        assert torch.equal(decoded.logits, first[0].logits)
        assert torch.equal(memory, first[1])


@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
@pytest.mark.slow
def test_objects_that_threads_share_out_are_those_of_one_thread(
    threads: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several objects at the same time, and each of them alone, are what torch gives."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    by_torch, helped = networks(torch.float32, cache)
    assert helped.workers.threads == threads
    assert helped.encode_ahead == threads
    batch, past = Features.stack(helped.encode_pixels(pixels(3))), past_of(by_torch, objects=3)
    want, _ = by_torch.step(batch, past)
    together, _ = helped.step(batch, past)
    for i, (one, its_past) in enumerate(zip(batch.one_by_one(), past.one_by_one(), strict=True)):
        alone, _ = helped.step(one, its_past)
        assert difference(alone.logits, want.logits[i : i + 1]) < 1e-3
        assert difference(together.logits[i : i + 1], alone.logits) < 1e-4
    helped.workers.close()


@torch.inference_mode()
def test_keys_of_a_memory_are_made_once_and_of_the_right_memory(cache: Path) -> None:
    by_torch, helped = networks(torch.float32, cache)
    batch = Features.stack(helped.encode_pixels(pixels()))
    plain = past_of(by_torch)
    memories = [memory.clone() for memory in plain.memories[0]]

    def step(order: list[int]) -> Tensor:
        sources = [memories[i] for i in order]
        past = Past(torch.stack(sources)[None], plain.ages, plain.pointers, plain.distances, [sources])
        want, _ = by_torch.step(batch, past)
        got, _ = helped.step(batch, past)
        assert difference(got.logits, want.logits) < 1e-3
        assert difference(got.predicted_iou, want.predicted_iou) < 1e-3
        # Not the logits, which are all alike where the object is not seen.
        return torch.cat([got.predicted_iou.flatten(), got.object_score.flatten()])

    first = step([0, 1, 2, 3, 4, 5, 6])
    assert not torch.equal(first, step([0, 6, 5, 4, 3, 2, 1]))  # other ages
    assert torch.equal(first, step([0, 1, 2, 3, 4, 5, 6]))
    kept = helped.kept_bytes
    layers, channels, (width, side, _) = 2, 128, memories[0].shape
    assert kept == 7 * (layers * channels + width) * side**2 * 4
    memories[3] = torch.randn(memories[3].shape, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16)
    assert not torch.equal(first, step([0, 1, 2, 3, 4, 5, 6]))
    assert helped.kept_bytes == kept, "what was kept of the memory that ended is no longer kept"
    memories.clear()
    assert helped.kept_bytes == 0
    assert by_torch.kept_bytes == 0


@pytest.mark.slow
def test_float32_by_name_is_exact_and_torch_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("MASKLET_CACHE", str(cache))
    model = build_model(Registry.load().get("nano"), image_size=SIZE)
    assert make_network(copy.deepcopy(model), CPU, "float32").runtime == "torch"
    assert make_network(copy.deepcopy(model), CPU, "bfloat16").runtime == "openvino"
    assert make_network(copy.deepcopy(model), CPU, "bfloat16", runtime="torch").runtime == "torch"
    assert make_network(copy.deepcopy(model), CPU, "float32", runtime="openvino").runtime == "openvino"
    assert (cache / "openvino").is_dir()


def test_a_runtime_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(Registry.load().get("nano"), image_size=SIZE)
    with pytest.raises(InvalidArgument, match="runtime: is 'tensorrt', must be one of auto, torch, openvino"):
        make_network(model, CPU, runtime="tensorrt")
    monkeypatch.setattr(device, "is_installed", lambda: False)
    with pytest.raises(FailedPrecondition, match="pip install openvino"):
        make_network(model, CPU, runtime="openvino")
    assert make_network(model, CPU, "bfloat16").runtime == "torch"


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("no such primitive"), ImportError("libtbb.so is missing"), OSError(5)])
def test_where_openvino_fails_torch_computes(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Model, "convert", fail)
    monkeypatch.setenv("MASKLET_CACHE", "/proc/none")
    model = build_model(Registry.load().get("nano"), image_size=SIZE)
    with caplog.at_level(logging.WARNING):
        assert make_network(copy.deepcopy(model), CPU, "bfloat16").runtime == "torch"
    assert "OpenVINO cannot be used, so torch computes everything" in caplog.text
    with pytest.raises(FailedPrecondition, match="OpenVINO cannot be used"):
        make_network(model, CPU, runtime="openvino")


@pytest.mark.slow
def test_a_user_without_a_home_keeps_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(device, "cache_folder", homeless)
    model = build_model(Registry.load().get("nano"), image_size=SIZE)
    assert make_network(model, CPU, "bfloat16").runtime == "openvino"
