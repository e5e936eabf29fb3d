"""transformers' SAM 2 with the weights of sam2's: the reference for `masklet.compat.transformers`."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What sam2 calls a parameter, and what transformers calls it; the rules are applied in this order.
_LAYERS = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}
_DOWNSCALING = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}
_UPSCALING = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}
_RULES: list[tuple[str, Any]] = [
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.", "vision_encoder."),
    (r"(neck\.convs\.\d+)\.conv\.", r"\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^sam_", ""),
    (
        r"(iou_prediction_head|output_hypernetworks_mlps\.\d+|pred_obj_score_head|obj_ptr_proj)\.layers\.(\d)",
        lambda m: f"{m[1]}.{_LAYERS[m[2]]}",
    ),
    (r"mlp\.layers\.0", "mlp.proj_in"),
    (r"mlp\.layers\.1", "mlp.proj_out"),
    (r"mask_downscaling\.(\d)", lambda m: f"mask_embed.{_DOWNSCALING[m[1]]}"),
    (r"output_upscaling\.(\d)", lambda m: _UPSCALING[m[1]]),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"mask_downsampler\.encoder\.12", "mask_downsampler.final_conv"),
    (
        r"mask_downsampler\.encoder\.(\d+)",
        lambda m: f"mask_downsampler.layers.{int(m[1]) // 3}.{'layer_norm' if int(m[1]) % 3 else 'conv'}",
    ),
    (r"\bfuser\b", "memory_fuser"),
    (r"\b(dw|pw)conv", lambda m: {"dw": "depthwise_conv", "pw": "pointwise_conv"}[m[1]]),
    (r"\bgamma$", "scale"),
    (r"pix_feat_proj", "feature_projection"),
    (r"out_proj", "o_proj"),
    (r"\.norm", ".layer_norm"),
    (r"^maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed", "no_memory_embedding"),
    (r"^no_mem_pos_enc", "no_memory_positional_encoding"),
    (r"^obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"^no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    (r"obj_ptr", "object_pointer"),
]


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """sam2's parameters under the names of transformers' ``Sam2VideoModel``."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        renamed = name
        for pattern, replacement in _RULES:
            renamed = re.sub(pattern, replacement, renamed)
        found[renamed] = value
    points = [found.pop(f"prompt_encoder.point_embeddings.{index}.weight") for index in range(4)]
    found["prompt_encoder.point_embed.weight"] = torch.cat(points)
    found["shared_image_embedding.positional_embedding"] = found["prompt_encoder.shared_embedding.positional_embedding"]
    return found


def stand_in_for_operators() -> None:
    """Let torchvision's Python part be imported where its compiled part is not built for this torch.

    Processors resize with functions that are Python, and need none of its operators.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or hasattr(torch.ops.torchvision, "nms"):
        return
    (folder,) = map(Path, spec.submodule_search_locations)
    try:
        for compiled in folder.glob("_C*.so"):
            torch.ops.load_library(str(compiled))  # type: ignore[no-untyped-call]
    except OSError:
        source = (folder / "_meta_registrations.py").read_text()
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in {
            "nms",
            *re.findall(r'register_meta\("(\w+)"\)', source),
            *re.findall(r'torchvision::(\w+)"', source),
        }:
            library.define(f"{name}(Tensor values) -> Tensor")  # type: ignore[no-untyped-call]
        _kept.append(library)


# A library's operators go with it.
_kept: list[torch.library.Library] = []
