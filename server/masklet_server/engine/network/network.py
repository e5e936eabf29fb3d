"""One SAM 2 model as functions of tensors: encode a picture, attend to memory, decode a mask, encode a memory.

The modules are sam2's own (`sam2.modeling`). Only the few lines between them are written again here, because
`SAM2Base` ties them to dictionaries of one video. Each function names the method that it replaces, and `tests/parity`
compares the results.

Shapes: B objects, C the model's width (256), M the width of a memory (64), S the side of the square picture,
h = w = S / 16 the side of the feature map, 4h the side of low-resolution logits.
"""

from __future__ import annotations

import functools
import importlib.util
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from sam2.utils.misc import fill_holes_in_mask_scores
from torch import Tensor, nn

from masklet.errors import InvalidArgument
from masklet_server.engine.network.attention import KernelChoice, quickest_kernel
from masklet_server.engine.network.channels_last import lay_out_channels_last
from masklet_server.engine.network.graphs import Function, GraphCache, InBuckets
from masklet_server.engine.network.image_encoder import FastImageEncoder
from masklet_server.engine.network.mask_decoder import MaskDecoder
from masklet_server.engine.network.memory_attention import (
    AnyMemoryAttention,
    AttentionKernels,
    ExactMemoryAttention,
    FastMemoryAttention,
)
from masklet_server.engine.network.onednn import fuse_linears
from masklet_server.engine.network.placement import Placement, Uploads
from masklet_server.engine.network.tensors import Decoded, FeatureBatch, Features, Past
from masklet_server.engine.network.workers import Workers

# Mean and deviation of ImageNet, as in `sam2.utils.misc.load_video_frames`.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

# `fill_hole_area` of sam2's video predictor. Upstream does not fill holes if its CUDA extension was not built.
FILL_HOLE_AREA = 8 if importlib.util.find_spec("sam2._C") else 0

# Several small pictures in one pass of the encoder keep all cores of a CPU busy. With more pixels than this, one
# picture does. GPUs were not measured.
_PIXELS_PER_PASS = 4 * 384 * 384
_MAX_ENCODE_AHEAD = 4

# What the functions below assume; true of every SAM 2 and SAM 2.1 configuration that Meta published.
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


class StepFunction(Protocol):
    """A step by another library than torch."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that it keeps of living memories, to be used on later frames. Any thread may ask."""

    def __call__(self, batch: FeatureBatch, past: Past) -> tuple[Tensor, ...]:
        """As `Network.step`, its tensors one after the other."""


class Network:
    """One model on one device, in one dtype. Its methods keep no state, and run on the engine's thread or `workers`.

    Attributes:
        decoder: Prompt encoder and mask decoder.
        device: Where the model computes.
        dtype: Of weights and activations.
        image_size: S, in pixels.
        grid_size: h = w.
        logits_size: 4h = 4w.
        encode_ahead: Number of frames of one stream that are best encoded in one pass, or at the same time.
        workers: Threads that can compute parts of the network at the same time.
        uploads: Sends pictures and numbers to the device.
        max_pointers: Object pointers reach back over so many frames, including the current one.
        recent_memories: A step attends to the memories of so many tracked frames.
        parameter_count: Number of weights.
        tuning: What was chosen by measuring on this GPU, as one line for people; empty if nothing was.
        weights_checksum: Of all weights, as they were given.
        runtime: The library that computes most of a frame: "torch", or the one that `compute_with` was given.
        image_encoder: Takes and gives what `encode_normalized` does, as tensors.
        feature_position: Position encoding of a feature map, ``[1, h * w, C]``.
        memory_position: Position encoding of a memory, ``[1, h * w, M]``.

    Args:
        model: With weights, in float32 on the CPU. The network takes it over and changes it in place.
        device: Where to compute.
        dtype: Of weights and activations. Prompts and logits stay in float32.
        kernels: Chooses the kernels of attention; None: the fastest on a CPU, torch's own on a GPU.
        graphs: Record the image encoder and the step as CUDA graphs; only on a CUDA device.

    Raises:
        InvalidArgument: The configuration needs something that this engine does not support.
    """

    def __init__(
        self,
        model: SAM2Base,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        kernels: KernelChoice | None = None,
        graphs: bool = False,
    ) -> None:
        _check_supported(model)
        self.parameter_count = sum(p.numel() for p in model.parameters())
        self.weights_checksum = weights_checksum(model)
        self.device = device
        self.dtype = dtype
        self.runtime = "torch"
        self.tuning = ""
        self.workers = Workers()
        self.uploads = Uploads(device)
        self.image_size: int = model.image_size
        self.grid_size: int = model.image_size // model.backbone_stride
        self.logits_size: int = 4 * self.grid_size
        fitting = _PIXELS_PER_PASS // self.image_size**2 if device.type == "cpu" else 1
        self.encode_ahead = max(1, min(_MAX_ENCODE_AHEAD, fitting))
        self.max_pointers: int = model.max_obj_ptrs_in_encoder
        self.recent_memories: int = model.num_maskmem - 1
        exact = dtype == torch.float32
        choose = kernels or functools.cache(functools.partial(quickest_kernel, device, dtype))
        # These two are made from the weights in float32, before the model's weights are rounded to the dtype.
        self.image_encoder = FastImageEncoder(model, choose, exact=exact).to(device=device, dtype=dtype)
        self.feature_position = position = self._position(model.image_encoder.neck.position_encoding)
        self._attend: AnyMemoryAttention = (
            ExactMemoryAttention(model.memory_attention, position)
            if exact
            else self._fast_attention(model, position, choose)
        )
        if not exact:
            for part in (model.memory_encoder, model.sam_mask_decoder):
                lay_out_channels_last(part)
                fuse_linears(part)
        self.model = model.to(device=device, dtype=dtype).eval()
        self.decoder = MaskDecoder(self.model, device, dtype)
        self._recordings: tuple[GraphCache, ...] = ()
        self._encode: Function = self.image_encoder
        self._step: Function = self._step_once
        self._encode_pixels: Function | None = None
        self._step_elsewhere: StepFunction | None = None
        self.compute_as(graphs=graphs, pictures=self.encode_ahead)
        self._mean = torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)
        self.memory_position = self._position(model.memory_encoder.position_encoding)

    def _fast_attention(self, model: SAM2Base, position: Tensor, choose: KernelChoice) -> FastMemoryAttention:
        tokens, dim = self.grid_size * self.grid_size, model.hidden_dim
        kernels = AttentionKernels(
            own=choose(queries=tokens, keys=tokens, dim=dim, width=dim),
            memory=choose(queries=tokens, keys=model.num_maskmem * tokens, dim=dim, width=model.mem_dim),
        )
        return FastMemoryAttention(model.memory_attention, position, Placement(self.device, self.dtype), kernels)

    @torch.inference_mode()
    def _position(self, encoding: nn.Module) -> Tensor:
        """The position encoding ``[1, h * w, C or M]`` of a feature map or of a memory; it never changes."""
        grid = torch.empty(1, 1, self.grid_size, self.grid_size, device=self.device)
        return _tokens(encoding(grid).to(self.dtype))

    def compute_with(
        self,
        runtime: str,
        *,
        encode_pixels: Function | None = None,
        step: StepFunction | None = None,
        workers: Workers | None = None,
    ) -> None:
        """Compute the parts that take nearly all of a frame's time with another library than torch.

        Args:
            runtime: Name of the library.
            encode_pixels: From ``uint8[B, S, S, 3]`` to the three levels of features, and `Features.started` if it
                computes that too. None: as before.
            step: Takes what `step` takes, and gives its tensors. None: as before.
            workers: Threads that may call both at the same time. None: one thread only.
        """
        self.runtime = runtime
        if encode_pixels is not None:
            self._encode_pixels, self.encode_ahead = encode_pixels, 1
        if step is not None:
            self._step_elsewhere = step
        if workers is not None:
            self.workers, self.encode_ahead = workers, 2 if workers.threads > 1 else 1

    def compute_as(self, *, graphs: bool, pictures: int, buckets: Sequence[int] = ()) -> None:
        """Run torch's functions in another way, which changes no result but by rounding.

        Args:
            graphs: Record the image encoder and the step as CUDA graphs; without effect on a CPU.
            pictures: Number of a stream's frames that are encoded in one pass.
            buckets: Pad batches of steps to these sizes.
        """
        self._encode, self._step, self._recordings = self.image_encoder, self._step_once, ()
        if graphs and self.device.type == "cuda":
            self._recordings = GraphCache(self.image_encoder), GraphCache(self._step_once)
            self._encode, self._step = self._recordings
        if buckets:
            self._step = InBuckets(self._step, buckets)
        self.encode_ahead = pictures

    def forget_recordings(self) -> None:
        """Give back the memory of CUDA graphs; they are recorded again when they are needed."""
        for recording in self._recordings:
            recording.forget()

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept of living memories beside the memories themselves. Any thread may ask."""
        return 0 if self._step_elsewhere is None else self._step_elsewhere.kept_bytes

    def encode_pixels(self, pixels: Tensor) -> list[Features]:
        """Encode B frames ``uint8[B, S, S, 3]`` RGB on any device; normalised as in `sam2.utils.misc`."""
        if self._encode_pixels is not None:
            return _by_frame(self._encode_pixels(pixels))
        scaled = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        if self.dtype == torch.float32:
            scaled = scaled.contiguous()  # rounding depends on the memory layout, and this one is upstream's
        # In place, because at 1024 a copy is 12 MB, and three of them would take as long as a layer of the network.
        return self.encode_normalized(scaled.sub_(self._mean).div_(self._std))

    def encode_scaled(self, frames: Tensor) -> list[Features]:
        """Encode B frames ``float32[B, 3, S, S]`` with values between 0 and 1."""
        return self.encode_normalized((frames.to(self.device) - self._mean) / self._std)

    def encode_normalized(self, frames: Tensor) -> list[Features]:
        """Encode B frames ``float32[B, 3, S, S]`` that are normalised for the model (`SAM2Base.forward_image`)."""
        return _by_frame(self._encode(frames.to(self.device, self.dtype)))

    def step(self, batch: FeatureBatch, past: Past) -> tuple[Decoded, Tensor]:
        """Track B objects on their frames without a prompt, and encode the memories of the masks.

        Returns:
            The mask decoder's outputs, and the memories ``bfloat16[B, M, h, w]``.
        """
        if self._step_elsewhere is not None:
            *decoded, memory = self._step_elsewhere(batch, past)
            return Decoded(*decoded), memory
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
        multimask = self.decoder.use_multimask(initial=False, num_points=0)
        decoded = self.decoder.decode(features, (fine0, fine1), multimask=multimask)
        memory = self.encode_memory(top, decoded.logits, decoded.object_score, prompted=False)
        return decoded.logits, decoded.predicted_iou, decoded.pointer, decoded.object_score, memory

    def without_memory(self, top: Tensor) -> Tensor:
        """Features ``[B, C, h, w]`` of frames without a past (`SAM2Base._prepare_memory_conditioned_features`)."""
        no_memory: Tensor = self.model.no_mem_embed
        return top + no_memory.view(1, -1, 1, 1)

    def with_memory(self, top: Tensor, past: Past) -> Tensor:
        """Features after attention to the past (`SAM2Base._prepare_memory_conditioned_features`).

        Args:
            top: ``[B, C, h, w]`` of the frames to be tracked.
            past: What the objects remember.

        Returns:
            ``[B, C, h, w]``.
        """
        if self.device.type == "cpu" and len(top) > 1:
            attended = torch.cat(list(self._attended_one_by_one(top, past)))
        else:
            attended = self._attended(self._attend.start(_tokens(top)), past)
        # A view, because later layers round as upstream's do only if the memory layout is the same.
        return attended.transpose(1, 2).reshape(top.shape)

    def _attended_one_by_one(self, top: Tensor, past: Past) -> Iterator[Tensor]:
        """Attend object by object: on a CPU, the keys of one object stay in the cache, those of many do not."""
        started, before = None, None
        for one, its_past in zip(torch.split(top, 1), past.one_by_one(), strict=True):
            if started is None or before is None or not torch.equal(one, before):  # objects of one frame are neighbours
                started, before = self._attend.start(_tokens(one)), one
            yield self._attended(started, its_past)

    def _attended(self, started: Tensor, past: Past) -> Tensor:
        # A memory of age t has the temporal encoding t - 1; conditioning frames have the last one (t_pos 0 upstream).
        temporal = self.model.maskmem_tpos_enc[past.ages - 1].view(*past.ages.shape, 1, -1)
        pointer_tokens, pointer_position = self.pointer_tokens(past)
        tokens = past.memories.to(self.dtype).flatten(3).transpose(2, 3).flatten(1, 2)
        position = (self.memory_position + temporal).flatten(1, 2)
        return self._attend(
            started,
            memory=torch.cat([tokens, pointer_tokens], dim=1),
            memory_position=torch.cat([position, pointer_position], dim=1),
            spatial=tokens.shape[1],
        )

    def pointer_tokens(self, past: Past) -> tuple[Tensor, Tensor]:
        """The pointers of a past cut into tokens ``[B, P*C/M, M]``, and the position encodings of the tokens."""
        pointers, distances, width = past.pointers.to(self.dtype), past.distances, self.model.mem_dim
        batch, _, channels = pointers.shape
        pieces = channels // width
        if self.model.add_tpos_enc_to_obj_ptrs:
            dim = channels if self.model.proj_tpos_enc_in_obj_ptrs else width
            encoding = get_1d_sine_pe(distances, dim=dim).to(self.dtype)
            position = self.model.obj_ptr_tpos_proj(encoding)
        else:
            position = pointers.new_zeros(*distances.shape, width)
        return pointers.reshape(batch, -1, width), position.repeat_interleave(pieces, dim=1)

    def encode_memory(self, top: Tensor, logits: Tensor, object_score: Tensor, *, prompted: bool) -> Tensor:
        """Encode the memory of a frame (`SAM2Base._encode_new_memory`).

        Args:
            top: ``[B, C, h, w]``, before any attention.
            logits: ``float32[B, 1, 4h, 4w]``.
            object_score: ``float32[B, 1]``.
            prompted: The masks come from prompts, so they are made binary first.

        Returns:
            ``bfloat16[B, M, h, w]``: upstream stores memories in bfloat16 for every dtype of the model.
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

    @staticmethod
    def resize(logits: Tensor, height: int, width: int) -> Tensor:
        """Logits ``float32[B, 1, ...]`` at another size, resized as everywhere in upstream."""
        if logits.shape[-2:] == (height, width):
            return logits
        return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)

    @staticmethod
    def fill_holes(logits: Tensor) -> Tensor:
        """Logits with small holes filled, if sam2's CUDA extension is installed (`fill_holes_in_mask_scores`)."""
        if FILL_HOLE_AREA == 0:
            return logits
        filled: Tensor = fill_holes_in_mask_scores(logits, FILL_HOLE_AREA)
        return filled


def weights_checksum(model: nn.Module) -> str:
    """The CRC-32 of a model's weights and their names, 8 hexadecimal digits: two models of one name are told apart."""
    checksum = 0
    for name, tensor in model.state_dict().items():
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy(), checksum)
    return f"{checksum:08x}"


def _check_supported(model: SAM2Base) -> None:
    for name, wanted in _ASSUMED.items():
        if (actual := getattr(model, name)) != wanted:
            raise InvalidArgument.of("model", f"has {name}={actual} in its configuration; only {wanted} is supported")


def _by_frame(levels: tuple[Tensor, ...]) -> list[Features]:
    top, fine0, fine1, *rest = levels
    started: Sequence[Tensor | None] = list(rest[0]) if rest else [None] * len(top)
    return [Features(top[i], (fine0[i], fine1[i]), started[i]) for i in range(len(top))]


def _tokens(maps: Tensor) -> Tensor:
    """``[B, C, h, w]`` as ``[B, h*w, C]``."""
    return maps.flatten(2).transpose(1, 2)
