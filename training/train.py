"""Train a model.

    python -m training.train --config training/nano.yaml [--resume] [--minutes N] [--device auto|cpu|cuda] [--workers N]

A run can be killed at any moment; with ``--resume`` it goes on from its last checkpoint with the samples that were to
come next. An interrupt (Ctrl-C, SIGTERM) ends it after the step in hand, with a checkpoint.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save_file

from training.cli import run
from training.config import Stage, TrainConfig, read_config
from training.data.cache import Cache
from training.errors import TrainingError
from training.learning import checkpoint
from training.learning.checkpoint import RunState
from training.learning.forward import ClipForward, ClipPlan, FrameOutput
from training.learning.log import RunLog, Window
from training.learning.losses import Judgement, judge
from training.learning.model import WeightMean, halved, new_model, parameter_groups, start_weights
from training.learning.prompts import draw_prompt
from training.learning.team import Team
from training.samples.dataset import Batch, ClipDataset, ClipRecipe, batches

Judged = tuple[FrameOutput, Judgement]

_LEAST_RATE = 0.02  # of the peak, at a stage's end
_BETAS = (0.9, 0.98)


def rate_at(stage: Stage, step: int) -> float:
    """The learning rate of a stage's step: up in a line, down along a cosine."""
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.learning_rate * (_LEAST_RATE + (1 - _LEAST_RATE) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done))))


def _mean_loss(judged: list[Judged]) -> torch.Tensor:
    return torch.stack([judgement.loss for _, judgement in judged]).mean()


def _note(window: Window, judged: list[Judged], *, last: int) -> None:
    """Add the figures of a step to the log; `last` is the number of a clip's last frame."""
    # One wait for the device instead of one for each figure.
    totals = [torch.stack([j.loss, (j.iou * j.present).sum(), j.present.sum(), j.right.sum()]) for _, j in judged]
    for (output, judgement), figures in zip(judged, torch.stack(totals).tolist(), strict=True):
        loss, iou, present, right = figures
        window.add("loss", loss)
        window.add("presence", right, len(judgement.right))
        for name in (output.role, *(("last",) if output.frame == last > 0 else ())):
            window.add(f"iou/{name}", iou, int(present))


@dataclass(frozen=True)
class Place:
    """Where a run is.

    Attributes:
        stage: Number of the stage.
        step: Steps done in it.
        total: Steps done in all.
    """

    stage: int = 0
    step: int = 0
    total: int = 0


class Trainer:
    """One run, from its start or from its last checkpoint.

    Raises:
        TrainingError: There is a checkpoint and `resume` was not asked for, or it is of other stages, or the cache or
            the weights to start from cannot be used.
    """

    def __init__(
        self, config: TrainConfig, *, device: torch.device, workers: int, resume: bool, team: Team | None = None
    ) -> None:
        self._config, self._device, self._workers = config, device, workers
        self._team = team or Team()
        config.out.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(config.out, silent=not self._team.leads)
        self._cache = Cache.open(config.cache)
        self._place = Place()
        saved = self._saved(resume)
        stage = config.stages[min(saved.stage if saved else 0, len(config.stages) - 1)]
        self._model = new_model(config.model, stage.size, config.seed)
        if saved is None:
            source = start_weights(self._model, config, self._cache.trunk)
            self._log.event("start", weights=source, device=str(device))
        else:
            self._model.load_state_dict(saved.model)
        self._to_device()
        self._mean = WeightMean(self._model.named_parameters(), config.ema)
        if saved is not None:
            self._restore(saved)

    @property
    def place(self) -> Place:
        """Where the run is."""
        return self._place

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train until all stages are done or something wants it to stop, and leave a checkpoint; whether it is done."""
        while self._place.stage < len(self._config.stages):
            if not self._run_stage(self._config.stages[self._place.stage], should_stop):
                self._save()
                self._log.event("stop", stage=self._place.stage, step=self._place.step, total=self._place.total)
                return False
            self._end_stage()
        self._log.event("done", total=self._place.total)
        return True

    def _saved(self, resume: bool) -> RunState | None:
        path = self._config.out / checkpoint.FILE
        if not path.is_file():
            return None
        if not resume:
            raise TrainingError(f"{path} is there already; give --resume to go on, or another 'out' to start anew")
        saved = checkpoint.load(self._config.out)
        stages = self._config.stages
        if saved.stage < len(stages) and saved.stage_name not in ("", stages[saved.stage].name):
            raise TrainingError(f"{path} was in stage {saved.stage_name!r}, which is not number {saved.stage + 1} now")
        return saved

    def _restore(self, saved: RunState) -> None:
        self._mean.load(saved.mean, saved.mean_updates)
        self._place = Place(saved.stage, saved.step, saved.total)
        self._optimiser = self._new_optimiser()
        if saved.step:
            self._optimiser.load_state_dict(saved.optimiser)
        torch.set_rng_state(saved.random)
        self._log.event("resume", stage=saved.stage, step=saved.step, total=saved.total)

    def _to_device(self) -> None:
        self._model.to(self._device)
        self._optimiser = self._new_optimiser()

    def _new_optimiser(self) -> torch.optim.AdamW:
        stages = self._config.stages
        stage = stages[self._place.stage] if self._place.stage < len(stages) else None
        groups = parameter_groups(self._model, self._config, stage)
        return torch.optim.AdamW(groups, lr=0.0, betas=_BETAS, fused=self._device.type == "cuda")

    def _run_stage(self, stage: Stage, should_stop: Callable[[], bool]) -> bool:
        """Train from the current step of a stage on; False if stopped before its end."""
        recipe = ClipRecipe(
            stage.size,
            stage.frames,
            stage.mix,
            stage.pace,
            least_area=stage.least_area,
            absence=stage.absence,
            objects=stage.objects,
        )
        seed = (self._config.seed, self._place.stage)
        clips = self._loader(recipe, seed, stage.steps, stage.batch)
        window = Window()
        waiting = time.perf_counter()
        for batch, pictures in zip(clips, self._pictures(stage), strict=False):
            window.add("wait", time.perf_counter() - waiting)
            self._step(stage, batch, pictures, window)
            if self._place.step % self._config.log_every == 0 or self._place.step == stage.steps:
                self._log.steps(
                    window,
                    stage=stage.name,
                    step=self._place.step,
                    of=stage.steps,
                    total=self._place.total,
                    rate=rate_at(stage, self._place.step - 1),
                )
                window = Window()
            if self._place.step % self._config.save_every == 0:
                self._save()
            if self._team.agree(should_stop()) and self._place.step < stage.steps:
                return False
            waiting = time.perf_counter()
        return True

    def _loader(self, recipe: ClipRecipe, seed: tuple[int, ...], steps: int, batch: int) -> Iterable[Batch]:
        """This process's share of the batches from the current step of a stage on."""
        return batches(
            ClipDataset(self._cache, recipe, seed, steps * batch),
            batch,
            start=self._place.step,
            part=(self._team.rank, self._team.share(batch)),
            workers=self._workers,
            pin_memory=self._device.type == "cuda",
        )

    def _pictures(self, stage: Stage) -> Iterable[Batch | None]:
        """The single frames that are learnt in the same steps as a stage's clips."""
        beside = stage.pictures
        if beside is None:
            return itertools.repeat(None)
        recipe = ClipRecipe(stage.size, 1, beside.mix, least_area=beside.least_area, objects=beside.objects)
        return self._loader(recipe, (self._config.seed, self._place.stage, 2), stage.steps, beside.batch)

    def _step(self, stage: Stage, clips: Batch, pictures: Batch | None, window: Window) -> None:
        seeds = (self._config.seed, self._place.stage, self._place.step, 1)
        rng = np.random.default_rng(seeds if self._team.leads else (*seeds, self._team.rank))
        judged = self._judged(stage, clips, rng)
        loss = _mean_loss(judged)
        if pictures is not None and stage.pictures is not None:
            beside = stage.pictures
            frames = stage.model_copy(
                update={
                    "frames": 1,
                    "objects": beside.objects,
                    "prompts": beside.prompts,
                    "correct": beside.correct,
                    "memory_dropout": 0.0,
                }
            )
            judged_beside = self._judged(frames, pictures, rng)
            loss = loss + beside.weight * _mean_loss(judged_beside)
            judged = [*judged, *judged_beside]
        norm = self._descend(loss, rate_at(stage, self._place.step))
        self._place = Place(self._place.stage, self._place.step + 1, self._place.total + 1)
        window.steps += 1
        window.add("gradient", norm)
        _note(window, judged, last=stage.frames - 1)

    def _judged(self, stage: Stage, batch: Batch, rng: np.random.Generator) -> list[Judged]:
        """What the model makes of a batch, and how wrong that is."""
        frames, truth = batch[0], batch[1].flatten(0, 1)
        # A mask on the only frame leaves nothing to learn.
        prompts = stage.prompts if stage.frames > 1 else stage.prompts.model_copy(update={"mask": 0.0})
        prompt = draw_prompt(rng, truth[:, 0].numpy(), prompts)
        plan = ClipPlan.draw(rng, stage.frames, prompt.kind, correct=stage.correct, memory_dropout=stage.memory_dropout)
        frames = frames.to(self._device, non_blocking=True)
        known = truth.to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            clips = ClipForward(self._model, frames, prompt.to(self._device), stage.objects)
            outputs = clips.run(rng, truth, plan)
        return [(output, judge(output, known[:, output.frame], stage.losses)) for output in outputs]

    def _descend(self, loss: torch.Tensor, rate: float) -> float:
        """One step of the optimiser; returns the gradient's norm.

        Raises:
            TrainingError: The loss is no number.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._team.average_gradients(self._model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._config.clip_gradient).item()
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {self._place.total} has a loss of {loss.item()} and a gradient of {norm}; "
                "lower the learning rate and resume from the last checkpoint"
            )
        self._optimiser.step()
        self._mean.update(self._model.named_parameters())
        return norm

    def _end_stage(self) -> None:
        """Keep the stage's weights, and go on to the next size."""
        ended = self._config.stages[self._place.stage]
        weights = {**self._model.state_dict(), **self._mean.values}
        if self._team.leads:
            save_file(halved(weights), self._config.out / f"stage-{ended.name}.safetensors")
        self._place = Place(self._place.stage + 1, 0, self._place.total)
        if self._place.stage < len(self._config.stages):
            state = self._model.state_dict()
            size = self._config.stages[self._place.stage].size
            self._model = new_model(self._config.model, size, self._config.seed)
            self._model.load_state_dict(state)
            self._to_device()
        self._save()

    def _save(self) -> None:
        if not self._team.leads:
            return
        stages = self._config.stages
        place = self._place
        checkpoint.save(
            RunState(
                stage=place.stage,
                stage_name=stages[place.stage].name if place.stage < len(stages) else "",
                step=place.step,
                total=place.total,
                model=self._model.state_dict(),
                mean=self._mean.values,
                mean_updates=self._mean.updates,
                optimiser=self._optimiser.state_dict(),
                random=torch.get_rng_state(),
            ),
            self._config.out,
        )


def stopper(minutes: float | None) -> Callable[[], bool]:
    """True once the time is over or the process was asked to end."""
    deadline = math.inf if minutes is None else time.monotonic() + minutes * 60
    asked = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.append(True))
    return lambda: bool(asked) or time.monotonic() > deadline


def main(
    config: Annotated[Path, typer.Option(metavar="FILE", help="The recipe, such as training/nano.yaml.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time, with a checkpoint.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes that make samples; half the cores if not given.")
    ] = None,
) -> None:
    """Train a model."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    processes = min(16, max(1, (os.cpu_count() or 2) // 2)) if workers is None else workers
    recipe, place, team = read_config(config), torch.device(device), Team.join()
    Trainer(recipe, device=place, workers=processes, resume=resume, team=team).run(stopper(minutes))
    team.leave()


if __name__ == "__main__":
    run(main)
