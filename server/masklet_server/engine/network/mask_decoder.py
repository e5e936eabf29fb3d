"""SAM's prompt encoder and mask decoder as functions of tensors: from prompts to masks.

Shapes: B objects, C the model's width (256), S the side of the square picture, h = w = S / 16 the side of the feature
map, 4h the side of low-resolution logits.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor, nn

from masklet_server.engine.network.tensors import CandidateBatch, Decoded, FeatureBatch

# Logits that represent a mask given by the client (`SAM2Base._use_mask_as_output`).
MASK_SCALE, MASK_BIAS = 20.0, -10.0


class Clicks(Protocol):
    """The part of a prompt that becomes points for the prompt encoder."""

    @property
    def point_coords(self) -> npt.NDArray[np.float32] | None:
        """Clicks as ``float32[N, 2]``, x and y in pixels, or None."""

    @property
    def point_labels(self) -> npt.NDArray[np.int32] | None:
        """Labels as ``int32[N]``, 1 foreground and 0 background, or None."""

    @property
    def box(self) -> npt.NDArray[np.float32] | None:
        """The box as ``float32[4]``, x0, y0, x1, y1, or None."""


class MaskDecoder:
    """The prompt encoder and the mask decoder of one model.

    Args:
        model: On its device, in its dtype; the prompt encoder is changed to float32.
        device: Where to compute.
        dtype: Of weights and activations. Prompts and logits stay in float32.
    """

    def __init__(self, model: SAM2Base, device: torch.device, dtype: torch.dtype) -> None:
        # Coordinates of clicks need more than bfloat16's 8 bits, and the prompt encoder takes very little time.
        model.sam_prompt_encoder.float()
        self._model = model
        self._device = device
        self._dtype = dtype
        with torch.inference_mode():
            self._dense_position = model.sam_prompt_encoder.get_dense_pe().to(dtype)
            sparse, dense = self._embedded(self._no_points(1), None)
            if dtype != torch.float32:
                # In the layout of the features that they are added to; upstream copies the position in every call.
                self._dense_position, dense = (
                    part.contiguous(memory_format=torch.channels_last) for part in (self._dense_position, dense)
                )
                transformer = model.sam_mask_decoder.transformer
                model.sam_mask_decoder.transformer = _WithPosition(transformer, self._dense_position)
            self._no_prompt = sparse, dense

    def decode(
        self,
        features: Tensor,
        fine: tuple[Tensor, Tensor],
        *,
        points: tuple[Tensor, Tensor] | None = None,
        mask_logits: Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """The best mask for each object (`SAM2Base._forward_sam_heads`).

        Args:
            features: ``[B, C, h, w]``, from `Network.without_memory` or `Network.with_memory`.
            fine: High-resolution features of the same frames, as in `FeatureBatch.fine`.
            points: ``float32[B, N, 2]`` in pixels of the model's square, and ``int32[B, N]``: 1 foreground,
                0 background, 2 and 3 the corners of a box, which come first.
            mask_logits: ``float32[B, 1, 4h, 4w]`` of an earlier mask to refine.
            multimask: Choose the best of three candidates by predicted IoU.
        """
        if points is None and mask_logits is not None:
            points = self._no_points(len(features))
        found = self.candidates(features, fine, points=points, mask_logits=mask_logits, multimask=multimask)
        return self.pick(found, found.predicted_iou.argmax(dim=-1))

    def candidates(
        self,
        features: Tensor,
        fine: tuple[Tensor, Tensor],
        *,
        points: tuple[Tensor, Tensor] | None,
        mask_logits: Tensor | None,
        multimask: bool,
    ) -> CandidateBatch:
        """All masks that the decoder proposes for each object, one or three; arguments as in `decode`."""
        if points is None and mask_logits is None:
            sparse, dense = (part.expand(len(features), *part.shape[1:]) for part in self._no_prompt)
        else:
            sparse, dense = self._embedded(points, mask_logits)
        logits, ious, tokens, score = self._model.sam_mask_decoder(
            image_embeddings=features,
            image_pe=self._dense_position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=list(fine),
        )
        return CandidateBatch(logits.float(), ious.float(), tokens, score.float())

    def pick(self, candidates: CandidateBatch, best: Tensor) -> Decoded:
        """The candidate with index `best` ``int64[B]`` of each object (the end of `SAM2Base._forward_sam_heads`)."""
        tokens, score = candidates.tokens, candidates.object_score
        present = score > 0
        logits = torch.where(present[:, None, None], candidates.logits, NO_OBJ_SCORE)
        rows = torch.arange(len(logits), device=logits.device)
        # If all candidates share an output token, there is one pointer; else take that of the chosen candidate.
        pointer = self._model.obj_ptr_proj(tokens[rows, best] if tokens.shape[1] > 1 else tokens[:, 0])
        return Decoded(
            logits=logits[rows, best][:, None],
            predicted_iou=candidates.predicted_iou[rows, best],
            pointer=self._absent_aware(pointer, present),
            object_score=score,
        )

    def decode_mask(self, batch: FeatureBatch, mask: Tensor) -> Decoded:
        """Take a mask given by the client as the output (`SAM2Base._use_mask_as_output`).

        Args:
            batch: Features of the frames.
            mask: ``float32[B, 1, S, S]``, 0 or 1.
        """
        logits = F.interpolate(
            mask * MASK_SCALE + MASK_BIAS,
            size=[4 * side for side in batch.top.shape[-2:]],
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        shrunk = self._model.mask_downsample(mask.to(self._dtype)).float()
        pointer = self.decode(batch.top, batch.fine, mask_logits=shrunk).pointer
        present = mask.flatten(1).gt(0).any(dim=1, keepdim=True)
        score = MASK_SCALE * present.float() + MASK_BIAS
        return Decoded(logits, logits.new_ones(len(mask)), self._absent_aware(pointer, present), score)

    def use_multimask(self, *, initial: bool, num_points: int) -> bool:
        """Whether the decoder chooses among candidates (`SAM2Base._use_multimask`); a box counts as two points."""
        model = self._model
        return bool(
            model.multimask_output_in_sam
            and (initial or model.multimask_output_for_tracking)
            and model.multimask_min_pt_num <= num_points <= model.multimask_max_pt_num
        )

    def model_points(self, prompt: Clicks, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """A prompt as points ``float32[N, 2]`` in pixels of the model's square, and labels ``int32[N]``; box first."""
        coords, labels = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int32)
        if prompt.box is not None:
            # Checked to reach outside by less than a pixel.
            corners = torch.from_numpy(prompt.box).reshape(2, 2)
            coords = corners.clamp_min(0).minimum(torch.tensor([width, height], dtype=corners.dtype))
            labels = torch.tensor([2, 3], dtype=torch.int32)
        if prompt.point_coords is not None and prompt.point_labels is not None:
            coords = torch.cat([coords, torch.from_numpy(prompt.point_coords)])
            labels = torch.cat([labels, torch.from_numpy(prompt.point_labels)])
        coords = coords / torch.tensor([width, height]) * self._model.image_size
        return coords.to(self._device), labels.to(self._device)

    def _embedded(self, points: tuple[Tensor, Tensor] | None, mask_logits: Tensor | None) -> tuple[Tensor, Tensor]:
        """A prompt's sparse ``[B, N, C]`` and dense ``[B, C, h, w]`` embeddings."""
        sparse, dense = self._model.sam_prompt_encoder(points=points, boxes=None, masks=mask_logits)
        return sparse.to(self._dtype), dense.to(self._dtype)

    def _no_points(self, batch: int) -> tuple[Tensor, Tensor]:
        """Upstream pads with one point of label -1 where there is no prompt."""
        coords = torch.zeros(batch, 1, 2, device=self._device)
        return coords, -torch.ones(batch, 1, dtype=torch.int32, device=self._device)

    def _absent_aware(self, pointer: Tensor, present: Tensor) -> Tensor:
        """Pointers, with the learnt no-object pointer for absent objects."""
        return torch.where(present, pointer, self._model.no_obj_ptr.to(pointer.dtype))


class _WithPosition(nn.Module):
    """`TwoWayTransformer` with a fixed position encoding."""

    def __init__(self, transformer: nn.Module, position: Tensor) -> None:
        super().__init__()
        self._transformer = transformer
        self._position = position

    def forward(self, image_embedding: Tensor, _image_pe: Tensor, point_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Call the transformer with the fixed encoding; see `TwoWayTransformer.forward`."""
        found: tuple[Tensor, Tensor] = self._transformer(image_embedding, self._position, point_embedding)
        return found
