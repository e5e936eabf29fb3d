from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument
from masklet_server.models.build import build_model, build_reference
from masklet_server.models.registry import ModelSpec, Registry


@pytest.fixture(scope="module")
def nano() -> ModelSpec:
    return Registry.load().get("nano")


@pytest.fixture(scope="module")
def tiny() -> ModelSpec:
    return Registry.load().get("sam2.1-tiny")


@pytest.fixture
def own(nano: ModelSpec, tmp_path: Path) -> ModelSpec:
    """A fine-tuned nano whose files the test writes."""
    return ModelSpec("own", str(nano.config_path()), str(tmp_path / "own.pt"), image_size=384)


def config_with(nano: ModelSpec, folder: Path, old: str, new: str) -> str:
    text = nano.config_path().read_text()
    assert old in text
    path = folder / "changed.yaml"
    path.write_text(text.replace(old, new, 1))
    return str(path)


def states_equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_nano_loads_as_float32_for_inference(nano: ModelSpec) -> None:
    model = build_model(nano)
    assert type(model) is SAM2Base
    assert model.image_size == nano.image_size == 384
    assert not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_575_650
    for parameter in model.parameters():
        assert (parameter.dtype, parameter.device.type, parameter.requires_grad) == (torch.float32, "cpu", False)
    stored = load_file(nano.checkpoint_path())
    assert all(torch.equal(value, stored[name].to(value.dtype)) for name, value in model.state_dict().items())


def test_nano_makes_the_features_it_was_trained_to_make(nano: ModelSpec) -> None:
    """The numbers come from `training.learning.model.new_model` with these weights, on the same ramp."""
    ramp = torch.linspace(-2, 2, 3 * 128 * 128).reshape(1, 3, 128, 128)
    with torch.inference_mode():
        features: dict[str, Any] = build_model(nano, image_size=128).forward_image(ramp)
    means = [feature.double().mean().item() for feature in features["backbone_fpn"]]
    deviations = [feature.double().std().item() for feature in features["backbone_fpn"]]
    assert [list(feature.shape) for feature in features["backbone_fpn"]] == [
        [1, 16, 32, 32],
        [1, 32, 16, 16],
        [1, 128, 8, 8],
    ]
    assert means == pytest.approx([0.067449, -0.15418, -0.002675], abs=1e-4)
    assert deviations == pytest.approx([0.17496, 0.532203, 0.904923], abs=1e-4)


def test_the_reference_is_upstreams_predictor_with_the_same_weights(nano: ModelSpec) -> None:
    reference, model = build_reference(nano), build_model(nano)
    assert type(reference) is SAM2VideoPredictor
    assert reference.fill_hole_area == 8
    for built in (reference, model):
        assert built.binarize_mask_from_pts_for_mem_enc is True
        decoder = built.sam_mask_decoder
        assert decoder.dynamic_multimask_via_stability is True
        assert decoder.dynamic_multimask_stability_delta == 0.05
        assert decoder.dynamic_multimask_stability_thresh == 0.98
    assert states_equal(reference, model)


def test_a_seed_gives_the_same_random_weights_each_time_and_needs_no_checkpoint(tiny: ModelSpec) -> None:
    before = torch.get_rng_state()
    model = build_model(tiny, seed=7, image_size=256)
    assert torch.equal(torch.get_rng_state(), before)
    assert states_equal(model, build_reference(tiny, seed=7, image_size=256))
    assert not states_equal(model, build_model(tiny, seed=8, image_size=256))


def test_random_weights_are_not_degenerate(tiny: ModelSpec) -> None:
    for name, parameter in build_model(tiny, seed=7, image_size=256).named_parameters():
        if parameter.ndim > 1 or name.endswith(".gamma"):
            assert parameter.abs().max() > 1e-3, name


@pytest.mark.parametrize("name", ["sam2.1-tiny", "sam2.0-tiny", "nano"])
def test_random_models_look_at_the_picture_and_at_the_prompt(name: str) -> None:
    model = build_model(Registry.load().get(name), weights=False, seed=1, image_size=256)
    torch.manual_seed(0)
    pictures = torch.nn.functional.interpolate(torch.randn(2, 3, 16, 16), size=(256, 256), mode="bicubic")
    with torch.inference_mode():
        logits = [mask(model, picture[None], x) for picture in pictures for x in (60.0, 200.0)]
    assert all(low.abs().max() > 0.5 for low in logits)
    assert (logits[0] - logits[1]).abs().mean() > 0.05
    assert (logits[0] - logits[2]).abs().mean() > 0.002


def mask(model: Any, picture: torch.Tensor, x: float) -> torch.Tensor:
    """Low-resolution logits for one click on one picture."""
    features = model.forward_image(picture)["backbone_fpn"]
    point = {
        "point_coords": torch.tensor([[[x, 100.0]]]),
        "point_labels": torch.ones(1, 1, dtype=torch.int32),
    }
    heads = model._forward_sam_heads(  # noqa: SLF001 - upstream's; its public methods need a whole video
        features[-1], point_inputs=point, high_res_features=features[:-1]
    )
    logits: torch.Tensor = heads[3]
    return logits


def test_another_image_size_reaches_everything_that_depends_on_it(tiny: ModelSpec) -> None:
    model = build_model(tiny, seed=1, image_size=256)
    assert model.image_size == 256
    assert model.sam_image_embedding_size == 16
    assert model.sam_prompt_encoder.input_image_size == (256, 256)
    tables = [module.freqs_cis for module in model.modules() if hasattr(module, "freqs_cis")]
    assert len(tables) == 8
    assert {(table.shape[0], table.device.type) for table in tables} == {(256, "cpu")}


@pytest.mark.parametrize("size", [32, 100, -64])
def test_image_sizes_that_do_not_suit_are_refused(nano: ModelSpec, size: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"image_size: is {size}, must be a multiple of 32"):
        build_model(nano, seed=1, image_size=size)


def test_a_fine_tuned_checkpoint_of_sam2s_trainer_loads(own: ModelSpec) -> None:
    model = build_model(own, seed=3)
    torch.save({"model": model.state_dict(), "epoch": 3}, own.checkpoint_path())
    assert states_equal(build_model(own), model)


def test_a_missing_checkpoint_names_the_command(
    tiny: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLET_CACHE", str(tmp_path))
    with pytest.raises(FailedPrecondition, match=r"sam2\.1-tiny: there is no .* masklet models download sam2\.1-tiny"):
        build_model(tiny)


def test_a_truncated_checkpoint_is_data_loss(nano: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(nano.checkpoint_path().read_bytes()[:-1000])
    with pytest.raises(
        DataLoss, match=rf"short\.safetensors has {nano.bytes - 1000:,} bytes, nano needs {nano.bytes:,}"
    ):
        build_model(replace(nano, checkpoint=str(path)))
    with pytest.raises(DataLoss, match=r"short\.safetensors cannot be read as a checkpoint"):
        build_model(replace(nano, checkpoint=str(path), bytes=0))


def test_a_truncated_pt_is_data_loss(own: ModelSpec) -> None:
    path = own.checkpoint_path()
    torch.save({"model": build_model(own, seed=3).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DataLoss, match=r"own\.pt cannot be read as a checkpoint: .*; check the path"):
        build_model(own)


@pytest.mark.parametrize("content", [b"", b"<html>Please sign in</html>", pickle.dumps([1, 2, 3]), bytes(10_000)])
def test_what_is_no_checkpoint_is_data_loss(own: ModelSpec, content: bytes) -> None:
    own.checkpoint_path().write_bytes(content)
    with pytest.raises(DataLoss, match=r"own\.pt (cannot be read as a checkpoint|has no weights)"):
        build_model(own)


def test_a_checkpoint_that_would_run_code_is_refused(own: ModelSpec, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"model": Evil()}, own.checkpoint_path())
    with pytest.raises(DataLoss, match="it contains more than tensors"):
        build_model(own)
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_another_model_names_what_differs(own: ModelSpec, nano: ModelSpec) -> None:
    state = load_file(nano.checkpoint_path())
    state["extra.weight"] = torch.zeros(1)
    state["no_mem_embed"] = torch.zeros(1, 1, 256)
    del state["maskmem_tpos_enc"]
    spec = replace(own, checkpoint=own.checkpoint.replace(".pt", ".safetensors"))
    save_file(state, spec.checkpoint_path())
    with pytest.raises(
        DataLoss,
        match=r"not a checkpoint of masklet-nano\.yaml: 3 weights differ, such as: extra\.weight is unknown; "
        r"maskmem_tpos_enc is missing; no_mem_embed has the shape \[1, 1, 256\], not \[1, 1, 128\]",
    ):
        build_model(spec)


def test_a_configuration_cannot_call_what_it_likes(own: ModelSpec, nano: ModelSpec, tmp_path: Path) -> None:
    trunk = "_target_: masklet_server.models.trunk.MobileNetV2Trunk"
    call = f"_target_: sam2.modeling.backbones.hieradet.torch.os.mkdir\n      path: {tmp_path / 'pwned'}"
    spec = replace(own, config=config_with(nano, tmp_path, trunk, call))
    with pytest.raises(InvalidArgument, match=r"names 'sam2\.modeling\.backbones\.hieradet\.torch\.os\.mkdir'"):
        build_model(spec, seed=1)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("text", ["", "model: 5", "model: {_target_: os.system}", "a: [", "trainer: {model: {}}"])
def test_what_is_no_configuration_is_refused(own: ModelSpec, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InvalidArgument, match=r"bad\.yaml (has no 'model'|cannot be read)"):
        build_model(replace(own, config=str(tmp_path / "bad.yaml")), seed=1)


def test_an_unknown_option_in_a_configuration_is_named(own: ModelSpec, nano: ModelSpec, tmp_path: Path) -> None:
    spec = replace(own, config=config_with(nano, tmp_path, "num_maskmem: 4", "num_maskmems: 4"))
    with pytest.raises(InvalidArgument, match="num_maskmems"):
        build_model(spec, seed=1)


@pytest.mark.slow
def test_building_imports_no_torchvision_and_warns_of_nothing() -> None:
    program = (
        "import sys\n"
        "from masklet_server.models.build import build_model, build_reference\n"
        "from masklet_server.models.registry import Registry\n"
        "spec = Registry.load().get('nano')\n"
        "build_model(spec), build_reference(spec)\n"
        "sys.exit(any(name.partition('.')[0] == 'torchvision' for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_listing_models_needs_no_torch() -> None:
    program = "import sys, masklet_server.models.registry as r; r.Registry.load(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
