"""SAM 2's modules as functions of tensors: encode a picture, attend to memory, decode a mask, encode a memory.

The modules are sam2's own (`sam2.modeling`). What is written anew here are the few lines between them that
`SAM2Base` wraps in per-video dictionaries; each function names the method it stands for, and `tests/parity` holds
them against it.

Shapes: B objects, C the model's width (256), M the width of a memory (64), S the side of the square picture,
h = w = S / 16 the side of the feature map, 4h the side of low-resolution logits.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from sam2.utils.misc import fill_holes_in_mask_scores
from torch import Tensor

from masklet.errors import InvalidArgument
from masklet_server.engine.attention import quickest_kernel
from masklet_server.engine.channels_last import lay_out_channels_last
from masklet_server.engine.graphs import Function, GraphCache
from masklet_server.engine.image_encoder import FastImageEncoder
from masklet_server.engine.memory_attention import ExactMemoryAttention, FastMemoryAttention, MemoryAttending

# ImageNet's, as in sam2.utils.misc.load_video_frames.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

# Logits that stand for a mask given by the client (SAM2Base._use_mask_as_output).
MASK_SCALE, MASK_BIAS = 20.0, -10.0

# sam2's `fill_hole_area` of the video predictor; upstream skips it where its CUDA extension was not built.
FILL_HOLE_AREA = 8 if importlib.util.find_spec("sam2._C") else 0

# What the functions below take for granted; true of every SAM 2 and SAM 2.1 configuration that Meta published.
_ASSUMED: dict[str, object] = {
    "use_high_res_features_in_sam": True,
    "directly_add_no_mem_embed": True,
    "use_mask_input_as_output_without_sam": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "fixed_no_obj_ptr": True,
    "soft_no_obj_ptr": False,
    "max_cond_frames_in_attn": -1,
    "memory_temporal_stride_for_eval": 1,
    "non_overlap_masks_for_mem_enc": False,
}


class Clicks(Protocol):
    """The part of a prompt that the prompt encoder sees as points."""

    @property
    def point_coords(self) -> npt.NDArray[np.float32] | None:
        """``float32[N, 2]``."""

    @property
    def point_labels(self) -> npt.NDArray[np.int32] | None:
        """``int32[N]``."""

    @property
    def box(self) -> npt.NDArray[np.float32] | None:
        """``float32[4]``."""


@dataclass(frozen=True, eq=False)
class Features:
    """What the image encoder makes of one frame.

    Attributes:
        top: ``[C, h, w]``, what memory attention and the mask decoder look at.
        fine: ``[C/8, 4h, 4w]`` and ``[C/4, 2h, 2w]``, the mask decoder's high-resolution inputs.
    """

    top: Tensor
    fine: tuple[Tensor, Tensor]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.top.nbytes + sum(level.nbytes for level in self.fine)

    def clone(self) -> Features:
        """The same in memory of its own."""
        return Features(self.top.clone(), (self.fine[0].clone(), self.fine[1].clone()))

    @staticmethod
    def stack(features: Sequence[Features]) -> FeatureBatch:
        """Several frames' features as one batch."""
        if len(features) == 1:
            only = features[0]
            return FeatureBatch(only.top[None], (only.fine[0][None], only.fine[1][None]))
        fine = (torch.stack([f.fine[0] for f in features]), torch.stack([f.fine[1] for f in features]))
        return FeatureBatch(torch.stack([f.top for f in features]), fine)

    def __repr__(self) -> str:
        return (
            f"Features(top={list(self.top.shape)}, fine={[list(f.shape) for f in self.fine]}, dtype={self.top.dtype})"
        )


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """Features with a leading dimension: `top` is ``[B, C, h, w]``."""

    top: Tensor
    fine: tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Past:
    """What B objects remember: equally much each.

    Attributes:
        memories: ``bfloat16[B, N, M, h, w]``.
        ages: ``int64[B, N]``: 0 for a conditioning frame, else how many frames ago.
        pointers: ``[B, P, C]``.
        distances: ``float32[B, P]``: how many frames ago, over the greatest distance that the model looks back.
    """

    memories: Tensor
    ages: Tensor
    pointers: Tensor
    distances: Tensor

    def one_by_one(self) -> Iterator[Past]:
        """Each object's alone."""
        parts = (torch.split(part, 1) for part in (self.memories, self.ages, self.pointers, self.distances))
        return (Past(*one) for one in zip(*parts, strict=True))


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the mask decoder says of B objects.

    Attributes:
        logits: ``float32[B, 1, 4h, 4w]``.
        predicted_iou: ``float32[B]``.
        pointer: ``[B, C]``.
        object_score: ``float32[B, 1]``, a logit.
    """

    logits: Tensor
    predicted_iou: Tensor
    pointer: Tensor
    object_score: Tensor


class Network:
    """One model on one device, in one dtype. Its functions change nothing and must run on the engine's thread.

    Attributes:
        parameter_count: Number of weights.

    Args:
        model: With weights, in float32 on the CPU; taken over and changed in place.
        device: Where to compute.
        dtype: Of weights and activations. Prompts and logits stay in float32.
        graphs: Record the image encoder and the step as CUDA graphs; on a CUDA device only.

    Raises:
        InvalidArgument: The configuration asks for something that this engine does not do.
    """

    def __init__(
        self, model: SAM2Base, device: torch.device, dtype: torch.dtype = torch.float32, *, graphs: bool = False
    ) -> None:
        for name, wanted in _ASSUMED.items():
            if (actual := getattr(model, name)) != wanted:
                raise InvalidArgument.of(
                    "model", f"configurations with {name}={actual} are not supported, only {wanted}"
                )
        grid_size = model.image_size // model.backbone_stride
        tokens = grid_size * grid_size
        kernel = quickest_kernel(
            device,
            dtype,
            queries=tokens,
            keys=model.num_maskmem * tokens,
            dim=model.hidden_dim,
            width=model.mem_dim,
        )
        self.parameter_count = sum(p.numel() for p in model.parameters())
        # Made of the weights in float32, before these are rounded to the dtype.
        exact = dtype == torch.float32
        encoder = FastImageEncoder(model, kernel, exact=exact).to(device=device, dtype=dtype)
        record = graphs and device.type == "cuda"
        self._encode: Function = GraphCache(encoder) if record else encoder
        self._step: Function = GraphCache(self._step_once) if record else self._step_once
        self._attend: MemoryAttending = (
            ExactMemoryAttention(model.memory_attention)
            if exact
            else FastMemoryAttention(model.memory_attention, grid_size, device=device, dtype=dtype, kernel=kernel)
        )
        if not exact:
            lay_out_channels_last(model.memory_encoder)
            lay_out_channels_last(model.sam_mask_decoder)
        self.model = model.to(device=device, dtype=dtype).eval()
        # Clicks at full resolution need more than bfloat16's 8 bits, and the prompt encoder costs next to nothing.
        self.model.sam_prompt_encoder.float()
        self.device = device
        self.dtype = dtype
        self.image_size: int = model.image_size
        self.grid_size: int = grid_size
        self.logits_size: int = 4 * self.grid_size
        self.num_memories: int = model.num_maskmem
        self.max_pointers: int = model.max_obj_ptrs_in_encoder
        self._mean = torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)
        with torch.inference_mode():
            grid = (self.grid_size, self.grid_size)
            self._feature_position = _tokens(
                model.image_encoder.neck.position_encoding(torch.empty(1, 1, *grid, device=device)).to(dtype)
            )
            self._memory_position = _tokens(
                model.memory_encoder.position_encoding(torch.empty(1, 1, *grid, device=device)).to(dtype)
            )
            self._dense_position = model.sam_prompt_encoder.get_dense_pe().to(dtype)
            self._no_prompt = self._embedded(self._no_points(1), None)

    def encode_pixels(self, pixels: Tensor) -> list[Features]:
        """Features of B frames, ``uint8[B, S, S, 3]`` RGB on any device (`sam2.utils.misc` for the normalisation)."""
        scaled = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        # In place: at 1024 a copy is 12 MB, and these three would take as long as a layer of the network.
        return self.encode_normalized(scaled.sub_(self._mean).div_(self._std))

    def encode_scaled(self, frames: Tensor) -> list[Features]:
        """Features of B frames, ``float32[B, 3, S, S]`` between 0 and 1."""
        return self.encode_normalized((frames.to(self.device) - self._mean) / self._std)

    def encode_normalized(self, frames: Tensor) -> list[Features]:
        """Features of B frames, ``float32[B, 3, S, S]`` as normalised for the model (`SAM2Base.forward_image`)."""
        top, fine0, fine1 = self._encode(frames.to(self.device, self.dtype))
        return [Features(top[i], (fine0[i], fine1[i])) for i in range(len(top))]

    def step(self, batch: FeatureBatch, past: Past) -> tuple[Decoded, Tensor]:
        """Track B objects on their frames without a prompt, and make the memories of what was found.

        Returns:
            What the mask decoder says, and ``bfloat16[B, M, h, w]``.
        """
        *decoded, memory = self._step(batch.top, *batch.fine, past.memories, past.ages, past.pointers, past.distances)
        return Decoded(*decoded), memory

    def _step_once(
        self,
        top: Tensor,
        fine0: Tensor,
        fine1: Tensor,
        memories: Tensor,
        ages: Tensor,
        pointers: Tensor,
        distances: Tensor,
    ) -> tuple[Tensor, ...]:
        features = self.with_memory(top, Past(memories, ages, pointers, distances))
        multimask = self.use_multimask(initial=False, num_points=0)
        decoded = self.decode(features, (fine0, fine1), multimask=multimask)
        memory = self.encode_memory(top, decoded.logits, decoded.object_score, prompted=False)
        return decoded.logits, decoded.predicted_iou, decoded.pointer, decoded.object_score, memory

    def without_memory(self, top: Tensor) -> Tensor:
        """Features ``[B, C, h, w]`` of a frame without a past (`SAM2Base._prepare_memory_conditioned_features`)."""
        no_memory: Tensor = self.model.no_mem_embed
        return top + no_memory.view(1, -1, 1, 1)

    def with_memory(self, top: Tensor, past: Past) -> Tensor:
        """Features that have attended to the past (`SAM2Base._prepare_memory_conditioned_features`).

        Args:
            top: ``[B, C, h, w]`` of the frame to be tracked.
            past: What is attended to.

        Returns:
            ``[B, C, h, w]``.
        """
        if self.device.type == "cpu" and len(top) > 1:
            # One object's keys stay in the cache while they are attended to; those of many do not.
            alone = zip(torch.split(top, 1), past.one_by_one(), strict=True)
            attended = torch.cat([self._attended(*one) for one in alone])
        else:
            attended = self._attended(top, past)
        # A view: what follows rounds as upstream does only if the numbers lie in memory as upstream's do.
        return attended.transpose(1, 2).reshape(top.shape)

    def _attended(self, top: Tensor, past: Past) -> Tensor:
        width = past.memories.shape[2]
        # A memory t frames old has the temporal encoding t - 1; conditioning frames have the last (t_pos 0 upstream).
        temporal = self.model.maskmem_tpos_enc[past.ages - 1].view(*past.ages.shape, 1, width)
        tokens = past.memories.to(self.dtype).flatten(3).transpose(2, 3).flatten(1, 2)
        position = (self._memory_position + temporal).flatten(1, 2)
        pointer_tokens, pointer_position = self._pointer_tokens(past.pointers.to(self.dtype), past.distances, width)
        return self._attend(
            _tokens(top),
            self._feature_position,
            memory=torch.cat([tokens, pointer_tokens], dim=1),
            memory_position=torch.cat([position, pointer_position], dim=1),
            spatial=tokens.shape[1],
        )

    def _pointer_tokens(self, pointers: Tensor, distances: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Pointers ``[B, P, C]`` cut into ``[B, P*C/M, M]`` tokens, and the position encoding of each."""
        batch, _, channels = pointers.shape
        pieces = channels // width
        if self.model.add_tpos_enc_to_obj_ptrs:
            dim = channels if self.model.proj_tpos_enc_in_obj_ptrs else width
            encoding = get_1d_sine_pe(distances, dim=dim).to(self.dtype)
            position = self.model.obj_ptr_tpos_proj(encoding)
        else:
            position = pointers.new_zeros(*distances.shape, width)
        return pointers.reshape(batch, -1, width), position.repeat_interleave(pieces, dim=1)

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
            features: ``[B, C, h, w]``, from `without_memory` or `with_memory`.
            fine: Of the same frames, ``[B, ...]``.
            points: ``float32[B, N, 2]`` in pixels of the model's square, and ``int32[B, N]``: 1 foreground,
                0 background, 2 and 3 the corners of a box, which come first.
            mask_logits: ``float32[B, 1, 4h, 4w]`` to start from.
            multimask: Choose among three candidates by predicted IoU.
        """
        if points is None and mask_logits is not None:
            points = self._no_points(len(features))
        logits, ious, tokens, score = self.decode_candidates(
            features, fine, points=points, mask_logits=mask_logits, multimask=multimask
        )
        return self.pick(logits, ious, tokens, score, ious.argmax(dim=-1))

    def pick(self, logits: Tensor, ious: Tensor, tokens: Tensor, score: Tensor, best: Tensor) -> Decoded:
        """One of each object's candidates (the end of `SAM2Base._forward_sam_heads`).

        Args:
            logits: What `decode_candidates` returns, like the next three.
            ious: Likewise.
            tokens: Likewise.
            score: Likewise.
            best: ``int64[B]``, which one.
        """
        present = score > 0
        logits = torch.where(present[:, None, None], logits, NO_OBJ_SCORE)
        rows = torch.arange(len(logits), device=logits.device)
        # With a single output token for all candidates there is one pointer; with one for each, the chosen one's.
        pointer = self.model.obj_ptr_proj(tokens[rows, best] if tokens.shape[1] > 1 else tokens[:, 0])
        return Decoded(logits[rows, best][:, None], ious[rows, best], self._absent_aware(pointer, present), score)

    def decode_candidates(
        self,
        features: Tensor,
        fine: tuple[Tensor, Tensor],
        *,
        points: tuple[Tensor, Tensor] | None,
        mask_logits: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits ``float32[B, K, 4h, 4w]``, predicted IoU ``[B, K]``, output tokens, object score ``[B, 1]``."""
        if points is None and mask_logits is None:
            sparse, dense = (part.expand(len(features), *part.shape[1:]) for part in self._no_prompt)
        else:
            sparse, dense = self._embedded(points, mask_logits)
        logits, ious, tokens, score = self.model.sam_mask_decoder(
            image_embeddings=features,
            image_pe=self._dense_position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=list(fine),
        )
        return logits.float(), ious.float(), tokens, score.float()

    def decode_mask(self, batch: FeatureBatch, mask: Tensor) -> Decoded:
        """A mask given by the client taken for the output (`SAM2Base._use_mask_as_output`).

        Args:
            batch: Features of the frame.
            mask: ``float32[B, 1, S, S]``, 0 or 1.
        """
        logits = F.interpolate(
            mask * MASK_SCALE + MASK_BIAS,
            size=(self.logits_size, self.logits_size),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        shrunk = self.model.mask_downsample(mask.to(self.dtype)).float()
        pointer = self.decode(batch.top, batch.fine, mask_logits=shrunk).pointer
        present = mask.flatten(1).gt(0).any(dim=1, keepdim=True)
        score = MASK_SCALE * present.float() + MASK_BIAS
        return Decoded(logits, logits.new_ones(len(mask)), self._absent_aware(pointer, present), score)

    def encode_memory(self, top: Tensor, logits: Tensor, object_score: Tensor, *, prompted: bool) -> Tensor:
        """What to remember of a frame (`SAM2Base._encode_new_memory`).

        Args:
            top: ``[B, C, h, w]``, before any attention.
            logits: ``float32[B, 1, 4h, 4w]``.
            object_score: ``float32[B, 1]``.
            prompted: The masks come from a prompt: they are remembered as hard masks.

        Returns:
            ``bfloat16[B, M, h, w]``: upstream stores memories in bfloat16 whatever the model's dtype.
        """
        full = self.resize(logits, self.image_size, self.image_size)
        hard = prompted and self.model.binarize_mask_from_pts_for_mem_enc
        mask = (full > 0).float() if hard else torch.sigmoid(full)
        mask = mask * self.model.sigmoid_scale_for_mem_enc + self.model.sigmoid_bias_for_mem_enc
        memory: Tensor = self.model.memory_encoder(top, mask.to(self.dtype), skip_mask_sigmoid=True)["vision_features"]
        if self.model.no_obj_embed_spatial is not None:
            absent = (object_score <= 0).to(self.dtype)[..., None, None]
            memory = memory + absent * self.model.no_obj_embed_spatial[..., None, None]
        return memory.to(torch.bfloat16)

    def use_multimask(self, *, initial: bool, num_points: int) -> bool:
        """Whether the decoder chooses among candidates (`SAM2Base._use_multimask`); a box counts as two points."""
        model = self.model
        return bool(
            model.multimask_output_in_sam
            and (initial or model.multimask_output_for_tracking)
            and model.multimask_min_pt_num <= num_points <= model.multimask_max_pt_num
        )

    @staticmethod
    def resize(logits: Tensor, height: int, width: int) -> Tensor:
        """Logits ``float32[B, 1, ...]`` at another size, as upstream resizes them everywhere."""
        if logits.shape[-2:] == (height, width):
            return logits
        return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)

    @staticmethod
    def fill_holes(logits: Tensor) -> Tensor:
        """Logits with small holes filled where sam2's CUDA extension is there (`fill_holes_in_mask_scores`)."""
        if FILL_HOLE_AREA == 0:
            return logits
        filled: Tensor = fill_holes_in_mask_scores(logits, FILL_HOLE_AREA)
        return filled

    def model_points(self, prompt: Clicks, *, height: int, width: int) -> tuple[Tensor, Tensor]:
        """A prompt as ``float32[N, 2]`` in pixels of the model's square and labels ``int32[N]``, the box first."""
        coords, labels = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int32)
        if prompt.box is not None:
            coords = torch.from_numpy(prompt.box).reshape(2, 2)
            labels = torch.tensor([2, 3], dtype=torch.int32)
        if prompt.point_coords is not None and prompt.point_labels is not None:
            coords = torch.cat([coords, torch.from_numpy(prompt.point_coords)])
            labels = torch.cat([labels, torch.from_numpy(prompt.point_labels)])
        coords = coords / torch.tensor([width, height]) * self.image_size
        return coords.to(self.device), labels.to(self.device)

    def _embedded(self, points: tuple[Tensor, Tensor] | None, mask_logits: Tensor | None) -> tuple[Tensor, Tensor]:
        """A prompt's sparse ``[B, N, C]`` and dense ``[B, C, h, w]`` embeddings."""
        sparse, dense = self.model.sam_prompt_encoder(points=points, boxes=None, masks=mask_logits)
        return sparse.to(self.dtype), dense.to(self.dtype)

    def _no_points(self, batch: int) -> tuple[Tensor, Tensor]:
        """Upstream pads with one point of label -1 where there is no prompt."""
        coords = torch.zeros(batch, 1, 2, device=self.device)
        return coords, -torch.ones(batch, 1, dtype=torch.int32, device=self.device)

    def _absent_aware(self, pointer: Tensor, present: Tensor) -> Tensor:
        """The learnt no-object pointer in place of those of absent objects."""
        return torch.where(present, pointer, self.model.no_obj_ptr.to(pointer.dtype))


def _tokens(maps: Tensor) -> Tensor:
    """``[B, C, h, w]`` as ``[B, h*w, C]``."""
    return maps.flatten(2).transpose(1, 2)
