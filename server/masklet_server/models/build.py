"""Making a model: its configuration, its modules and its weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from masklet.errors import InvalidArgument
from masklet_server.models.config import ModelConfig, adapted, read_model_config
from masklet_server.models.registry import ModelSpec
from masklet_server.models.weights import load_state, read_checkpoint

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_video_predictor import SAM2VideoPredictor

_BASE = "sam2.modeling.sam2_base.SAM2Base"
_REFERENCE = "sam2.sam2_video_predictor.SAM2VideoPredictor"
_COMPILED_REFERENCE = "sam2.sam2_video_predictor.SAM2VideoPredictorVOS"

# Factors of `_strengthen` by parameter name, and what it adds to the object's score.
_GAINS = (
    (re.compile(r"sam_mask_decoder\.output_hypernetworks_mlps\.\d+\.layers\.2\.weight"), 30.0),
    (re.compile(r"memory_attention\.layers\.\d+\.cross_attn_image\.[qk]_proj\.weight"), 3.0),
    (re.compile(r"memory_attention\.layers\.\d+\.cross_attn_image\.out_proj\.weight"), 10.0),
    (re.compile(r"memory_encoder\.mask_downsampler\.encoder\.\d+\.weight"), 3.0),
    (re.compile(r"obj_ptr_proj\.layers\.2\.weight"), 10.0),
)
_OBJECT_SCORE = 3.0


def build_model(
    spec: ModelSpec, *, weights: bool = True, seed: int | None = None, image_size: int | None = None
) -> SAM2Base:
    """Make the model that the engine runs: on the CPU, in float32, in evaluation mode, without gradients.

    The configuration gets the overrides of upstream's video predictor: choice among candidates by stability, and binary
    masks for the memories of prompted frames.

    Args:
        spec: Which model.
        weights: Load the checkpoint; otherwise the weights are random.
        seed: Seed of random weights; with a seed, weights are always random. The global random state is not changed.
        image_size: Side of the square that the model sees, instead of the one that `spec` chooses; see
            `masklet_server.models.sizes`.

    Raises:
        FailedPrecondition: There is no checkpoint; the message says which command fetches it.
        DataLoss: The checkpoint is damaged, or belongs to another model.
        InvalidArgument: The configuration cannot be used.
    """
    config = adapted(read_model_config(spec.config_path()), image_size=image_size or spec.chosen_size)
    return _build(spec, {**config, "_target_": _BASE}, weights=weights, seed=seed)


def build_reference(
    spec: ModelSpec,
    *,
    weights: bool = True,
    seed: int | None = None,
    image_size: int | None = None,
    compiled: bool = False,
) -> SAM2VideoPredictor:
    """Make upstream's own predictor with its own post-processing, to compare masklet with.

    The other arguments and the errors are those of `build_model`; equal arguments give equal weights. With `compiled`,
    this is the predictor that upstream makes with ``vos_optimized=True``, which compiles for minutes on first use.
    """
    config = adapted(read_model_config(spec.config_path()), image_size=image_size or spec.chosen_size)
    config["_target_"] = _COMPILED_REFERENCE if compiled else _REFERENCE
    config["compile_image_encoder"] = compiled
    return _build(spec, {**config, "fill_hole_area": 8}, weights=weights, seed=seed)


def _build(spec: ModelSpec, config: ModelConfig, *, weights: bool, seed: int | None) -> Any:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    with_checkpoint = weights and seed is None
    state = read_checkpoint(spec) if with_checkpoint else None
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            # Not hydra's compose, whose search path is global: another part of the program may have set it.
            model: nn.Module = instantiate(config, _convert_="all")
            if state is None:
                _strengthen(model)
    except InstantiationException as error:
        raise InvalidArgument.of("config", f"{spec.config_path()} does not make a model: {error}") from error
    if state is not None:
        load_state(model, state, spec)
    for module in model.modules():
        if hasattr(module, "freqs_cis"):
            module.freqs_cis = (
                module.freqs_cis.cpu()
            )  # sam2 puts it on a GPU if there is one, even if the model is on the CPU
    return model.float().eval().requires_grad_(requires_grad=False)


def _strengthen(model: nn.Module) -> None:
    """Make random weights strong enough that two runs which differ in a memory differ by more than rounding.

    After the modules' own initialisation, positions are zero, layer scales are a millionth, mask logits are within
    +-0.5, the object's score is 0, and attention is so flat that memories hardly matter. A trained model has mask
    logits of +-10 and a clear object score, and its masks depend on its memories.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".gamma"):
                nn.init.uniform_(parameter, 0.2, 0.8)
            elif parameter.ndim > 1 and not parameter.any():
                nn.init.trunc_normal_(parameter, std=0.2)
            gain = next((gain for pattern, gain in _GAINS if pattern.fullmatch(name)), None)
            if gain is not None:
                parameter.mul_(gain)
        heads: Any = model.sam_mask_decoder
        if heads.pred_obj_scores:
            heads.pred_obj_score_head.layers[-1].bias.add_(_OBJECT_SCORE)
