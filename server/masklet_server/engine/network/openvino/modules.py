"""The parts of the network as modules that OpenVINO can convert: tensors alone, and nothing that depends on values.

Shapes: one object; C the model's width, M the width of a memory, S the side of the square picture, h = w = S / 16.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Encode(nn.Module):
    """From a picture's pixels to its features; see `Network.encode_pixels`.

    Args:
        encoder: Takes ``float32[1, 3, S, S]``, normalised.
        mean: ``float32[3]`` of the normalisation, of values between 0 and 1.
        std: Its standard deviation, likewise.
        start: Takes ``[1, C, h, w]``; what it gives is a further result. None: there is none.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, mean: Tensor, std: Tensor, start: nn.Module | None = None) -> None:
        super().__init__()
        self._encoder, self._start = encoder, start
        self.register_buffer("mean", mean * 255)
        self.register_buffer("std", std * 255)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``[1, S, S, 3]``, 0 to 255, to ``[1, C, h, w]``, ``[1, C/8, 4h, 4w]`` and ``[1, C/4, 2h, 2w]``."""
        features: tuple[Tensor, ...] = self._encoder(((pixels - self.mean) / self.std).permute(0, 3, 1, 2))
        return features if self._start is None else (*features, self._start(features[0]))


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A kernel (see `attention.Kernel`) that is one operation of OpenVINO's."""
    return F.scaled_dot_product_attention(q, k, v)


class Decode(nn.Module):
    """From attended features to a mask, without a prompt; see `MaskDecoder.decode`.

    Args:
        network: In float32; a `Network`, which imports this module's package.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._decoder = network.decoder
        self._multimask = network.decoder.use_multimask(initial=False, num_points=0)

    def forward(self, attended: Tensor, fine0: Tensor, fine1: Tensor) -> tuple[Tensor, ...]:
        """Logits ``[1, 1, 4h, 4w]``, predicted IoU ``[1]``, pointer ``[1, C]`` and object score ``[1, 1]``."""
        decoded = self._decoder.decode(attended, (fine0, fine1), multimask=self._multimask)
        return decoded.logits, decoded.predicted_iou, decoded.pointer, decoded.object_score


class Remember(nn.Module):
    """From a mask to a memory; see `Network.encode_memory`.

    Args:
        network: In float32; a `Network`.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._model = network.model
        side, size = network.logits_size, network.image_size
        # Bilinear resizing is a product with the same few weights in every row and column, which OpenVINO takes in a
        # tenth of the time.
        weights = F.interpolate(torch.eye(side)[None, None], size=(size, side), mode="bilinear", align_corners=False)
        self.register_buffer("rows", weights[0, 0].contiguous())
        self.register_buffer("columns", weights[0, 0].t().contiguous())

    def forward(self, top: Tensor, logits: Tensor, object_score: Tensor) -> Tensor:
        """``[1, C, h, w]``, ``[1, 1, 4h, 4w]`` and ``[1, 1]`` to ``[1, M, h, w]``."""
        model = self._model
        full = torch.matmul(torch.matmul(self.rows, logits), self.columns)
        mask = torch.sigmoid(full) * model.sigmoid_scale_for_mem_enc + model.sigmoid_bias_for_mem_enc
        memory: Tensor = model.memory_encoder(top, mask, skip_mask_sigmoid=True)["vision_features"]
        if model.no_obj_embed_spatial is not None:
            absent = (object_score <= 0).to(memory.dtype)[..., None, None]
            memory = memory + absent * model.no_obj_embed_spatial[..., None, None]
        return memory
