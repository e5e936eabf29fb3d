from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

import training
from masklet_server.models.trunk import MobileNetV2Trunk
from training.config import Stage, TrainConfig, read_config
from training.errors import TrainingError
from training.learning import checkpoint
from training.learning.checkpoint import RunState
from training.learning.model import WeightMean, new_model, parameter_groups, start_weights
from training.train import rate_at

STAGE = Stage(name="a", size=64, frames=1, batch=1, steps=100, learning_rate=1.0, warmup=10)


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"cache": "cache", "out": "out", "stages": [STAGE], **changes})


def test_a_new_model_trains_with_frozen_norms() -> None:
    before = torch.get_rng_state()
    model = new_model("masklet-nano.yaml", 64, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    assert all(parameter.requires_grad for parameter in model.parameters())
    again = new_model("masklet-nano.yaml", 128, 0)  # weights fit all sizes
    again.load_state_dict(model.state_dict())


def test_groups_hold_every_parameter_once() -> None:
    model = new_model("masklet-nano.yaml", 64, 0)
    groups = parameter_groups(model, config())
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    matrices, others, trunk = groups
    assert (matrices["rate"], others["rate"], trunk["rate"]) == (1, 1, 0.15)
    assert others["weight_decay"] == 0
    assert {id(p) for p in trunk["params"]} == {id(p) for p in model.image_encoder.trunk.parameters()}


def test_a_trunk_of_rate_zero_has_no_gradients() -> None:
    model = new_model("masklet-nano.yaml", 64, 0)
    parameter_groups(model, config(trunk_rate=0))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if not name.startswith("image_encoder.trunk.")}


def test_first_blocks_of_the_trunk_can_be_left_alone() -> None:
    model = new_model("masklet-nano.yaml", 64, 0)
    parameter_groups(model, config(frozen_blocks=2))
    trunk = model.image_encoder.trunk
    alone = {id(p) for part in (trunk.stem, trunk.blocks[0], trunk.blocks[1]) for p in part.parameters()}
    assert {id(p) for p in model.parameters() if not p.requires_grad} == alone
    assert len(trunk.blocks) > 12  # block 1 is not taken for blocks 10 and up


def test_a_stage_may_have_a_trunk_rate_of_its_own() -> None:
    model = new_model("masklet-nano.yaml", 64, 0)
    still = Stage.model_validate({**STAGE.model_dump(), "trunk_rate": 0})
    assert parameter_groups(model, config(trunk_rate=0.5), still)[2]["rate"] == 0
    assert not any(p.requires_grad for p in model.image_encoder.trunk.parameters())
    assert parameter_groups(model, config(trunk_rate=0.5), STAGE)[2]["rate"] == 0.5
    assert all(p.requires_grad for p in model.parameters())


def test_only_one_object_may_be_away() -> None:
    assert Stage.model_validate({**STAGE.model_dump(), "objects": 3}).objects == 3
    with pytest.raises(ValidationError, match="objects must be 1"):
        Stage.model_validate({**STAGE.model_dump(), "objects": 3, "absence": 0.5})


def test_start_weights(tmp_path: Path) -> None:
    model = new_model("masklet-nano.yaml", 64, 0)
    trunk = tmp_path / "trunk.safetensors"
    assert start_weights(model, config(), trunk) == "random weights"
    weights = {name: torch.full_like(value, 2) for name, value in MobileNetV2Trunk().state_dict().items()}
    save_file(weights, trunk)
    assert start_weights(model, config(), trunk) == str(trunk)
    assert (model.image_encoder.trunk.stem.conv.weight == 2).all()
    with pytest.raises(TrainingError, match="holds no weights of this model"):
        start_weights(model, config(init=str(trunk)), trunk)
    whole = tmp_path / "whole.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, whole)
    assert start_weights(model, config(init=str(whole)), trunk) == str(whole)


def test_the_mean_follows_slowly() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    mean = WeightMean(layer.named_parameters(), decay=0.9)
    nn.init.ones_(layer.weight)
    mean.update(layer.named_parameters())
    assert mean.values["weight"].item() == pytest.approx(1 - 2 / 11)  # young: it forgets fast
    mean.load({"weight": torch.zeros(1, 1)}, updates=1000)
    mean.update(layer.named_parameters())
    assert mean.values["weight"].item() == pytest.approx(0.1)
    assert mean.updates == 1001


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(STAGE, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(1)
    assert rates[100] == pytest.approx(0.02)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


def state(step: int) -> RunState:
    return RunState(0, "a", step, step, {"w": torch.ones(1)}, {"w": torch.ones(1)}, 1, {}, torch.get_rng_state())


def test_checkpoints_replace_each_other(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has training been started"):
        checkpoint.load(tmp_path)
    checkpoint.save(state(1), tmp_path)
    checkpoint.save(state(2), tmp_path)
    assert checkpoint.load(tmp_path).step == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_kill_while_saving_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(state(1), tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(state(2), tmp_path)
    assert checkpoint.load(tmp_path).step == 1


def test_damaged_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.load(tmp_path)
    torch.save({"version": 0}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="another version"):
        checkpoint.load(tmp_path)


RECIPES = sorted(Path(training.__file__).parent.rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_the_recipes_that_ship_are_valid(path: Path) -> None:
    recipe = read_config(path)
    assert recipe.stages[-1].size == (448 if path.stem == "nano-448" else 384)
    assert all(stage.prompts.mask == 0 for stage in recipe.stages if stage.frames == 1), "nothing to be learnt there"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: a\nstages: []", "cache: Field required"),
        ("cache: a\nout: b\nstages: []", "stages: .* at least 1"),
        ("cache: a\nout: b\nstages: [{name: a, size: 65, frames: 1, batch: 1, steps: 1, learning_rate: 1}]", "size"),
        ("cache: a\nout: b\nspeed: 1\nstages: []", "speed|stages"),
        ("a: [", "cannot be read"),
    ],
)
def test_recipes_with_mistakes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        read_config(path)
