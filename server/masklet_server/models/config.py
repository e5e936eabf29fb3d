"""Reading a model's configuration: sam2's YAML with `_target_`s, checked before anything in it is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masklet.errors import InvalidArgument
from masklet_server.models.sizes import ALLOWED_SIZES, is_allowed

_MODEL_TARGETS = frozenset(
    {
        "sam2.modeling.sam2_base.SAM2Base",
        "sam2.sam2_video_predictor.SAM2VideoPredictor",
        "sam2.sam2_video_predictor.SAM2VideoPredictorVOS",
    }
)
_ROPE_ATTENTION = "sam2.modeling.sam.transformer.RoPEAttention"
_SINE_POSITIONS = "sam2.modeling.position_encoding.PositionEmbeddingSine"
# A configuration may come from the network, and hydra calls every function that it names, such as os.system. The list
# has full names, not prefixes, because the attributes of a module include everything that the module imports.
_PART_TARGETS = frozenset(
    {
        "masklet_server.models.trunk.MobileNetV2Trunk",
        "sam2.modeling.backbones.hieradet.Hiera",
        "sam2.modeling.backbones.image_encoder.FpnNeck",
        "sam2.modeling.backbones.image_encoder.ImageEncoder",
        "sam2.modeling.memory_attention.MemoryAttention",
        "sam2.modeling.memory_attention.MemoryAttentionLayer",
        "sam2.modeling.memory_encoder.CXBlock",
        "sam2.modeling.memory_encoder.Fuser",
        "sam2.modeling.memory_encoder.MaskDownSampler",
        "sam2.modeling.memory_encoder.MemoryEncoder",
        "sam2.modeling.sam.transformer.Attention",
        _ROPE_ATTENTION,
        _SINE_POSITIONS,
    }
)

ModelConfig = dict[str, Any]


def read_model_config(path: Path) -> ModelConfig:
    """The ``model`` node of a configuration as plain dictionaries and lists, with interpolations resolved.

    Raises:
        InvalidArgument: The file is not YAML, has no ``model``, or names modules other than sam2's and masklet's.
    """
    from omegaconf import OmegaConf

    try:
        root = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # of OmegaConf, of its YAML parser, of the file system
        raise InvalidArgument.of("config", f"{path} cannot be read as a model's configuration: {error}") from error
    model = root.get("model") if isinstance(root, dict) else None
    if not isinstance(model, dict) or model.get("_target_") not in _MODEL_TARGETS:
        raise InvalidArgument.of(
            "config",
            f"{path} has no 'model' with one of these _target_s: {', '.join(sorted(_MODEL_TARGETS))}; "
            "begin with a copy of one of sam2's configurations, such as configs/sam2.1/sam2.1_hiera_t.yaml",
        )
    for part in _nodes(model):
        target = part.get("_target_")
        if part is not model and target is not None and target not in _PART_TARGETS:
            raise InvalidArgument.of(
                "config", f"{path} names {target!r}; only sam2's own modules and masklet's trunk are allowed"
            )
    model.setdefault("image_size", 512)  # SAM2Base's own default
    return model


def adapted(model: ModelConfig, *, image_size: int | None) -> ModelConfig:
    """The configuration with the overrides of upstream's video predictor, and another image size if one is given.

    `model` is changed in place and returned. The overrides are those of `sam2.build_sam.build_sam2_video_predictor`.

    Raises:
        InvalidArgument: The image size is not allowed (`masklet_server.models.sizes`).
    """
    size = model["image_size"] = image_size or model["image_size"]
    if not is_allowed(size):
        raise InvalidArgument.of("image_size", f"is {size}, must be {ALLOWED_SIZES}")
    side = size // model.get("backbone_stride", 16)
    for part in _nodes(model):
        part.pop("weights_path", None)  # Hiera would unpickle it; the checkpoint holds the trunk's weights
        if part.get("_target_") == _ROPE_ATTENTION:
            part["feat_sizes"] = [side, side]
        if part.get("_target_") == _SINE_POSITIONS:
            part["warmup_cache"] = False  # it would fill a CUDA device's cache for 1024 x 1024 at every size
    model["compile_image_encoder"] = False
    model["binarize_mask_from_pts_for_mem_enc"] = True
    model["sam_mask_decoder_extra_args"] = {
        **(model.get("sam_mask_decoder_extra_args") or {}),
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    return model


def _nodes(node: object) -> Iterator[dict[Any, Any]]:
    """All dictionaries in a tree of dictionaries and lists, the root first."""
    if isinstance(node, dict):
        yield node
        children = list(node.values())
    else:
        children = list(node) if isinstance(node, list) else []
    for child in children:
        yield from _nodes(child)
