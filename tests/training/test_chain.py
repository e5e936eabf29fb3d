"""The whole chain in small: cache, training, a kill, the rest of the training, export, a server that tracks with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import masklet
from masklet_server.embedded import EmbeddedServer
from masklet_server.models.build import build_model
from masklet_server.models.registry import ModelSpec
from tests.support.training import small_cache
from training.config import TrainConfig
from training.errors import TrainingError
from training.evaluate import evaluate
from training.export import Exported, export, install
from training.learning import checkpoint
from training.samples.dataset import ClipDataset, ClipRecipe
from training.train import Trainer

ROOT = Path(__file__).parents[2]
STEPS = (18, 5)

pytestmark = pytest.mark.slow


def recipe(folder: Path, out: str) -> dict[str, Any]:
    """Single frames, then pairs beside single frames, on procedural clips alone."""
    small = {"batch": 4, "warmup": 2, "mix": {"procedural": 1}}
    return {
        "cache": str(folder / "cache"),
        "out": str(folder / out),
        "log_every": 1,
        "save_every": 4,
        "stages": [
            {**small, "name": "frames", "size": 64, "frames": 1, "steps": STEPS[0], "learning_rate": 1e-3},
            {
                **small,
                "name": "clips",
                "size": 96,
                "frames": 2,
                "steps": STEPS[1],
                "learning_rate": 3e-4,
                "prompts": {"point": 0, "points": 0, "box": 0, "mask": 1, "logits": 0},
                "pictures": {
                    "batch": 2,
                    "objects": 2,
                    "weight": 0.5,
                    "mix": {"procedural": 1},
                    "prompts": {"point": 0, "points": 0, "box": 1, "mask": 0, "logits": 0},
                },
            },
        ],
    }


def trainer(config: TrainConfig, *, resume: bool = False) -> Trainer:
    return Trainer(config, device=torch.device("cpu"), workers=0, resume=resume)


def lines(config: TrainConfig, event: str) -> list[dict[str, Any]]:
    log = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    return [line for line in log if line["event"] == event]


def start_and_kill(path: Path, config: TrainConfig) -> None:
    """Train as a person does, and pull the plug after the first checkpoint."""
    command = [sys.executable, "-m", "training.train", "--config", str(path), "--device", "cpu", "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (config.out / checkpoint.FILE).is_file() and time.monotonic() < deadline:
            assert process.poll() is None, "training ended by itself"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Every part of the run computes with one thread: another number adds in another order, which Adam amplifies."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run that was killed, resumed, stopped, resumed and finished."""
    folder = tmp_path_factory.mktemp("chain")
    small_cache(folder, images=False)
    config = TrainConfig.model_validate(recipe(folder, "run"))
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe(folder, "run")))  # JSON is YAML
    start_and_kill(path, config)
    resumed = trainer(config, resume=True)
    assert resumed.place.total % config.save_every == 0
    assert 0 < resumed.place.total < sum(STEPS)
    assert not resumed.run(lambda: resumed.place.total >= STEPS[0] + 2)  # in the middle of the second stage
    last = trainer(config, resume=True)
    assert (last.place.stage, last.place.step) == (1, 2)
    assert last.run()
    return config


@pytest.fixture(scope="module")
def exported(run: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(run, tmp_path_factory.mktemp("exported"))


def test_loss_falls_over_kills_and_stops(run: TrainConfig) -> None:
    steps = lines(run, "steps")
    assert {line["total"] for line in steps} == set(range(1, sum(STEPS) + 1))
    assert steps[-1]["total"] == sum(STEPS)
    frames = {line["total"]: line["loss"] for line in steps if line["stage"] == "frames"}
    losses = [frames[total] for total in sorted(frames)]
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    assert [line["event"] for line in lines(run, "resume")] == ["resume"] * 2
    assert len(lines(run, "done")) == 1
    names = set().union(*steps)
    assert {"presence", "wait", "seconds_per_step", "iou/track", "iou/last"} <= names
    assert names & {"iou/point", "iou/points", "iou/box"}


def test_what_was_resumed_is_what_would_have_been(run: TrainConfig, tmp_path: Path) -> None:
    straight = run.model_copy(update={"out": tmp_path})
    assert trainer(straight).run()
    one, other = checkpoint.load(run.out), checkpoint.load(straight.out)
    assert (one.stage, one.step, one.total) == (other.stage, other.step, other.total) == (2, 0, sum(STEPS))
    assert one.mean_updates == other.mean_updates
    for name, value in one.mean.items():
        torch.testing.assert_close(value, other.mean[name], rtol=1e-3, atol=1e-4, msg=name)


def test_single_frames_are_learnt_beside_clips(run: TrainConfig, tmp_path: Path) -> None:
    clips = [line for line in lines(run, "steps") if line["stage"] == "clips"]
    assert all("iou/box" in line for line in clips), "only the single frames are prompted by boxes"
    alone = run.model_copy(
        update={"out": tmp_path, "stages": [run.stages[0], run.stages[1].model_copy(update={"pictures": None})]}
    )
    assert trainer(alone).run()
    one, other = checkpoint.load(run.out), checkpoint.load(alone.out)
    assert any((value - other.mean[name]).abs().max() > 1e-4 for name, value in one.mean.items())
    assert not any("iou/box" in line for line in lines(alone, "steps") if line["stage"] == "clips")


def test_a_run_is_not_overwritten_by_mistake(run: TrainConfig) -> None:
    with pytest.raises(TrainingError, match="give --resume to go on"):
        trainer(run)
    assert trainer(run, resume=True).run()  # nothing is left to do


def test_what_is_exported_is_the_mean(run: TrainConfig, exported: Exported) -> None:
    model = build_model(ModelSpec("tiny", str(exported.config), str(exported.checkpoint)))
    saved = checkpoint.load(run.out)
    name = "sam_mask_decoder.iou_token.weight"
    assert torch.equal(dict(model.named_parameters())[name], saved.mean[name].half().float())
    assert exported.size == exported.checkpoint.stat().st_size < 12_000_000
    assert exported.steps == sum(STEPS)
    assert f'sha256 = "{exported.sha256}"' in exported.registry_lines()


def test_a_run_starts_from_a_stage_of_another(run: TrainConfig, tmp_path: Path) -> None:
    stage = run.out / "stage-frames.safetensors"
    onward = trainer(run.model_copy(update={"out": tmp_path, "init": str(stage)}))
    assert not onward.run(lambda: True)  # after one step
    saved = checkpoint.load(tmp_path)
    assert saved.step == 1
    assert lines(run.model_copy(update={"out": tmp_path}), "start")[0]["weights"] == str(stage)
    name = "sam_mask_decoder.iou_token.weight"
    torch.testing.assert_close(saved.model[name], load_file(stage)[name].float(), rtol=0, atol=2e-3)


def test_installing(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklet_server.models.paths.checkpoints_folder", lambda: tmp_path)
    assert install(exported) == (tmp_path / "masklet-nano.safetensors", tmp_path / "masklet-nano.yaml")
    assert (tmp_path / "masklet-nano.safetensors").read_bytes() == exported.checkpoint.read_bytes()


def davis(folder: Path, cache: Path) -> Path:
    """Three frames of a procedural clip, laid out as DAVIS is."""
    from training.data.cache import Cache

    frames, (mask,) = ClipDataset(Cache.open(cache), ClipRecipe(size=96, frames=3), (3,), 8).clip(0)
    pictures, annotations = folder / "JPEGImages" / "clip", folder / "Annotations" / "clip"
    pictures.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for t in range(3):
        Image.fromarray(frames[t]).save(pictures / f"{t:05d}.jpg")
        Image.fromarray(mask[t].astype(np.uint8)).save(annotations / f"{t:05d}.png")
    return folder


def test_a_server_tracks_with_it(run: TrainConfig, exported: Exported, tmp_path: Path) -> None:
    pictures = davis(tmp_path, run.cache) / "JPEGImages" / "clip"
    model = f"trained={exported.checkpoint}:{exported.config}"
    with EmbeddedServer(model=model, device="cpu") as address, masklet.Client(address) as client:
        results = list(client.track(pictures, [masklet.Prompt(object_id=1, point_coords=[(48, 48)])]))
    assert [result.frame_index for result in results] == [0, 1, 2]
    assert all(result.objects[1].mask.shape == (96, 96) for result in results)


def test_evaluation(run: TrainConfig, exported: Exported, tmp_path: Path) -> None:
    figures = evaluate([str(davis(tmp_path, run.cache))], exported.checkpoint, str(exported.config), device="cpu")
    assert figures.keys() == {"mask", "point"}
    for report in figures.values():
        assert report["model"].startswith("trained=")
        assert 0 <= report["mean"]["J&F"] <= 1
