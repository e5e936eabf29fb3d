"""The recipe of a training run: YAML, checked before anything starts."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import TrainingError
from training.samples.dataset import DEFAULT_MIX
from training.samples.scenes import SceneKind


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptMix(_Part):
    """How often each kind of prompt comes on the first frame; see `training.learning.prompts.PromptKind`."""

    point: float = Field(default=0.4, ge=0)
    points: float = Field(default=0.2, ge=0)
    box: float = Field(default=0.15, ge=0)
    mask: float = Field(default=0.25, ge=0)
    logits: float = Field(default=0.05, ge=0)


class Losses(_Part):
    """Weights of the parts of the loss, and how fine it looks.

    Attributes:
        focal: Of the focal loss.
        positive: Of pixels of the object in it; the others get the rest to 1.
        dice: Of the dice loss.
        iou: Of the IoU head's error.
        presence: Of the object score's cross entropy.
        stride: Pixels of the frame to one at which masks are compared: 4 is what the decoder draws, 1 the frame itself.
    """

    focal: float = 10.0
    positive: float = Field(default=0.75, ge=0, le=1)
    dice: float = 2.0
    iou: float = 1.0
    presence: float = 1.0
    stride: int = Field(default=4, ge=1, le=4)


class Pictures(_Part):
    """Single frames that are learnt in the same steps as a stage's clips, so that clips do not make them worse.

    Attributes:
        batch: Frames of a step.
        objects: Of a frame that are predicted, each by itself, from the same features.
        weight: Of their loss, where that of the clips is 1.
        least_area: Of an object, as a part of the frame.
        mix: Of scenes.
        prompts: Of prompts; masks are left out.
        correct: Part of the steps with a click where the prediction is wrong.
    """

    batch: int = Field(ge=1)
    objects: int = Field(default=1, ge=1)
    weight: float = Field(default=1.0, gt=0)
    least_area: float = Field(default=0.003, gt=0, lt=1)
    mix: dict[SceneKind, float] = Field(default_factory=lambda: dict(DEFAULT_MIX))
    prompts: PromptMix = PromptMix()
    correct: float = Field(default=0.3, ge=0, le=1)


class Stage(_Part):
    """One part of the run: clips of one size and length.

    Attributes:
        name: In logs and in names of files.
        size: Side of the frames in pixels, a multiple of 32.
        frames: Of a clip.
        batch: Clips of a step.
        steps: How many.
        learning_rate: Its peak; it warms up and falls along a cosine to a fiftieth.
        warmup: Steps until the peak.
        pace: Of motion; see `ClipRecipe`.
        mix: Of scenes.
        objects: Of a clip that are followed, each by itself, from the same features.
        least_area: Of an object in the first frame, as a part of the frame.
        absence: Part of the clips whose object is away for some frames; see `ClipRecipe`. Only with one object.
        prompts: Of prompts.
        losses: How masks are judged.
        correct: Part of the steps with a click where the prediction is wrong, on the first frame or a later one.
        memory_dropout: Part of the memories of unprompted frames that are lost.
        trunk_rate: As the run's, for this stage alone; the run's if not given.
        pictures: Single frames that are learnt in the same steps; none if not given.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    size: int = Field(ge=64, multiple_of=32)
    frames: int = Field(ge=1)
    batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(default=100, ge=0)
    pace: float = Field(default=1.0, ge=0)
    mix: dict[SceneKind, float] = Field(default_factory=lambda: dict(DEFAULT_MIX))
    objects: int = Field(default=1, ge=1)
    least_area: float = Field(default=0.003, gt=0, lt=1)
    absence: float = Field(default=0.0, ge=0, le=1)
    prompts: PromptMix = PromptMix()
    losses: Losses = Losses()
    correct: float = Field(default=0.3, ge=0, le=1)
    memory_dropout: float = Field(default=0.0, ge=0, lt=1)
    trunk_rate: float | None = Field(default=None, ge=0)
    pictures: Pictures | None = None

    @model_validator(mode="after")
    def _one_object_may_be_away(self) -> Stage:
        if self.absence and self.objects > 1:
            raise ValueError("objects must be 1 where absence is not 0")
        return self


class TrainConfig(_Part):
    """A whole run.

    Attributes:
        model: The model's configuration, as `masklet_server.models.paths.config_file` finds it.
        cache: What ``training.prepare`` wrote; relative paths count from the working directory.
        out: Where checkpoint and logs go.
        init: Weights to start from (safetensors) in place of the trunk's alone; empty for none.
        seed: Of everything random.
        trunk_rate: Learning rate of the trunk, as a part of that of the rest; 0 leaves it as it is, which saves its
            gradients.
        frozen_blocks: First blocks of the trunk that are left as they are in any case, and its stem with them: those of
            the largest features, whose gradients cost most.
        weight_decay: Of weights with more than one dimension, the trunk's aside.
        clip_gradient: Norm at which gradients are cut.
        ema: Decay of the averaged weights, which are what is exported.
        save_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
        stages: One after the other.
    """

    model: str = "masklet-nano.yaml"
    cache: Path
    out: Path
    init: str = ""
    seed: int = 0
    trunk_rate: float = Field(default=0.15, ge=0)
    frozen_blocks: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_gradient: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    save_every: int = Field(default=200, ge=1)
    log_every: int = Field(default=20, ge=1)
    stages: tuple[Stage, ...] = Field(min_length=1)


def read_config(path: Path) -> TrainConfig:
    """A recipe from its file.

    Raises:
        TrainingError: It is no YAML, or something in it is missing, unknown or out of range.
    """
    from omegaconf import OmegaConf

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # of OmegaConf, of its YAML parser, of the file system
        raise TrainingError(f"{path} cannot be read: {error}") from error
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TrainingError(f"{path}: {place}: {first['msg']}") from error
