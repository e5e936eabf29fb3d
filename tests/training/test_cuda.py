"""Training on a CUDA device."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.support.training import small_cache
from training.config import TrainConfig
from training.learning import checkpoint
from training.train import Trainer

pytestmark = pytest.mark.gpu


def test_a_run_on_the_device_goes_on_on_the_cpu(tmp_path: Path) -> None:
    small_cache(tmp_path, images=True)
    stage = {"batch": 4, "warmup": 0, "learning_rate": 1e-4}
    config = TrainConfig.model_validate(
        {
            "cache": tmp_path / "cache",
            "out": tmp_path / "run",
            "log_every": 1,
            "stages": [
                {**stage, "name": "frames", "size": 64, "frames": 1, "steps": 3},
                {**stage, "name": "clips", "size": 96, "frames": 3, "steps": 6, "correct": 1.0},
            ],
        }
    )
    on_device = Trainer(config, device=torch.device("cuda"), workers=2, resume=False)
    assert not on_device.run(lambda: on_device.place.total == 7)
    saved = checkpoint.load(config.out)
    assert all(value.device.type == "cpu" for value in saved.mean.values())
    assert all(math.isfinite(float(value.sum())) for value in saved.mean.values())
    assert Trainer(config, device=torch.device("cpu"), workers=0, resume=True).run()
    assert checkpoint.load(config.out).total == 9
