"""The network as training wants it, and the running mean of its weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn

from masklet_server.models import paths
from masklet_server.models.config import adapted, read_model_config
from masklet_server.models.weights import State
from training.config import Stage, TrainConfig
from training.errors import TrainingError
from training.learning.folding import fold_norms

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

_TRUNK = "image_encoder.trunk."
_TRUNK_DECAY = 1e-4


def new_model(config: str, image_size: int, seed: int) -> SAM2Base:
    """The network with random weights, in training mode, channels last.

    Args:
        config: As `masklet_server.models.paths.config_file` finds it.
        image_size: Side of the frames in pixels.
        seed: Of the weights; the global random state is left as it is.

    Raises:
        MaskletError: The configuration is not there or cannot be used.
    """
    from hydra.utils import instantiate

    node = adapted(read_model_config(paths.config_file(config)), image_size=image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: SAM2Base = instantiate({**node, "_target_": "sam2.modeling.sam2_base.SAM2Base"}, _convert_="all")
    for module in model.modules():
        if hasattr(module, "freqs_cis"):
            module.freqs_cis = module.freqs_cis.cpu()  # sam2 puts it on a GPU if there is one, wherever the model is
    fold_norms(model)
    model.to(memory_format=torch.channels_last)
    return model.train()


def start_weights(model: nn.Module, config: TrainConfig, trunk: Path) -> str:
    """Load what training starts from into a new model; returns what that was.

    Raises:
        TrainingError: The weights are not this model's.
    """
    if config.init:
        source, state = Path(config.init), load_file(config.init)
    elif trunk.is_file():
        source, state = trunk, {_TRUNK + name: value for name, value in load_file(trunk).items()}
    else:
        return "random weights"
    unknown = model.load_state_dict(state, strict=False)
    if unknown.unexpected_keys or (config.init and unknown.missing_keys):
        names = [*unknown.unexpected_keys, *unknown.missing_keys]
        raise TrainingError(f"{source} holds no weights of this model: {len(names)} differ, such as {names[0]}")
    return str(source)


def parameter_groups(model: nn.Module, config: TrainConfig, stage: Stage | None = None) -> list[dict[str, Any]]:
    """Groups for the optimiser, in a stage; ``rate`` is each one's part of the learning rate."""
    trunk_rate = config.trunk_rate if stage is None or stage.trunk_rate is None else stage.trunk_rate
    trunk: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    blocks = [f"{_TRUNK}blocks.{i}." for i in range(config.frozen_blocks)]
    frozen = (f"{_TRUNK}stem.", *blocks) if blocks else ()
    for name, parameter in model.named_parameters():
        if name.startswith(_TRUNK):
            parameter.requires_grad_(trunk_rate > 0 and not name.startswith(frozen))
            trunk.append(parameter)
        else:
            (matrices if parameter.ndim > 1 else others).append(parameter)
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": others, "weight_decay": 0.0, "rate": 1.0},
        {"params": trunk, "weight_decay": _TRUNK_DECAY, "rate": trunk_rate},
    ]


def halved(state: State) -> State:
    """Weights as they are stored: on the CPU, in float16, contiguous; whole numbers as they are."""
    return {
        name: (value.half() if value.is_floating_point() else value)
        .cpu()
        .contiguous(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }


class WeightMean:
    """An exponential moving average of a model's parameters.

    Attributes:
        updates: How many it has seen; young means forget faster.
        values: The mean by parameter name, in float32.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self.values: State = {name: parameter.detach().clone() for name, parameter in parameters}

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Take the parameters after a step into account."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        names, current = zip(*parameters, strict=True)
        torch._foreach_lerp_([self.values[name] for name in names], list(current), 1 - decay)

    def load(self, values: State, updates: int) -> None:
        """Go on from another one."""
        for name, value in self.values.items():
            value.copy_(values[name])
        self.updates = updates
