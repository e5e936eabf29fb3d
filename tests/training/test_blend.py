from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.blend import blend
from training.errors import TrainingError


def test_what_lies_between() -> None:
    first = {"weight": torch.tensor([0.0, 4.0]), "count": torch.tensor([3])}
    second = {"weight": torch.tensor([2.0, 0.0]), "count": torch.tensor([5])}
    blended = blend(first, second, 0.25)
    assert blended["weight"].tolist() == [0.5, 3.0]
    assert blended["count"].tolist() == [5], "whole numbers are not to be averaged"


@pytest.mark.parametrize("other", [{"other": torch.zeros(2)}, {"weight": torch.zeros(3)}])
def test_other_models_are_refused(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(TrainingError, match="different names or shapes"):
        blend({"weight": torch.zeros(2)}, other, 0.5)


@pytest.mark.slow
def test_files(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_file({"weight": torch.full((2, 2), value).half()}, tmp_path / f"{name}.safetensors")
    command = [sys.executable, "-m", "training.blend", "a.safetensors", "b.safetensors", "--out", "c.safetensors"]
    root = Path(__file__).parents[2]
    # This tree's, wherever masklet is installed from.
    found = os.pathsep.join(str(root / part) for part in ("", "client", "server"))
    subprocess.run(command, check=True, cwd=tmp_path, env={"PYTHONPATH": found, "PATH": ""})
    written = load_file(tmp_path / "c.safetensors")["weight"]
    assert written.dtype == torch.float16
    assert written.tolist() == [[1.5, 1.5], [1.5, 1.5]]
