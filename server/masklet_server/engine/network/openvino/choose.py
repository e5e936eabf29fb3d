"""Which parts of a network OpenVINO computes: those where it measures quicker than torch on this machine."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from masklet_server.engine.network.memory_attention import AttentionKernels, FastMemoryAttention
from masklet_server.engine.network.network import PIXEL_MEAN, PIXEL_STD, Network
from masklet_server.engine.network.openvino import modules
from masklet_server.engine.network.openvino.attention import (
    Attend,
    AttentionParts,
    KeysOfMemory,
    MemoryAttention,
    Start,
)
from masklet_server.engine.network.openvino.cache import converted, fingerprint
from masklet_server.engine.network.openvino.compiled import CompiledModel, Model
from masklet_server.engine.network.openvino.parts import Encoder, Part, Step
from masklet_server.engine.network.placement import Placement
from masklet_server.engine.network.tensors import FeatureBatch, Past
from masklet_server.engine.network.workers import Workers

logger = logging.getLogger(__name__)

# Each part is timed so often, by turns, and its best time counts, so that a busy moment does not decide.
ROUNDS = 5
# Difference to torch in float32, as a part of the greatest number, at which a part is taken for broken. In bfloat16
# torch itself differs by 0.05.
TOLERANCE = 0.2
# Side of the largest pictures for which each thread computes something else. For larger ones a frame would take too
# long on one core, and layers are long enough to be shared.
MOST_FOR_ONE_THREAD = 512


@torch.inference_mode()
def accelerate(network: Network, model: SAM2Base, folder: Path | None) -> None:
    """Have OpenVINO compute the parts of a network that it computes quicker than torch.

    Args:
        network: On the CPU; changed.
        model: The same weights in float32 on the CPU; taken over.
        folder: Where converted models are kept; None: nowhere.
    """
    candidates = _Candidates(network, Network(model, network.device), folder)
    encoder = candidates.encoder()
    step = candidates.step()
    if encoder is None and step is None:
        candidates.workers.close()
        return
    if encoder is not None and step is not None and isinstance(step.attend, MemoryAttention):
        encoder.start = step.attend.start
    network.compute_with("openvino", encode_pixels=encoder, step=step, workers=candidates.workers)


class _Candidates:
    """What OpenVINO could compute, held against torch.

    Attributes:
        workers: Threads that compute parts at the same time.

    Args:
        network: What is to be accelerated.
        exact: The same in float32: what is converted, and what is right.
        folder: Where converted models are kept; None: nowhere.
    """

    def __init__(self, network: Network, exact: Network, folder: Path | None) -> None:
        self._network, self._exact = network, exact
        self._files = None if folder is None else folder / fingerprint(exact.model)
        self._compute = "bf16" if network.dtype == torch.bfloat16 else "f32"
        size = network.image_size
        self.workers = Workers(torch.get_num_threads() if size <= MOST_FOR_ONE_THREAD else 1)
        generator = torch.Generator().manual_seed(0)
        self._pixels = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=generator)
        features = exact.encode_pixels(self._pixels)[0]
        self._levels = tuple(level[None].clone() for level in (features.top, *features.fine))
        self._past = _past(exact, frames=exact.max_pointers)

    def _file(self, part: str) -> Path | None:
        return None if self._files is None else self._files / f"{part}-{self._compute}.xml"

    def _compiled(
        self,
        part: str,
        convert: Callable[[], Model],
        *,
        compute: str | None = None,
        shapes: Mapping[int, Sequence[int]] | None = None,
    ) -> CompiledModel:
        model = converted(self._file(part), convert)
        return model.compile(compute or self._compute, shapes, callers=self.workers.threads)

    def encoder(self) -> Encoder | None:
        """The image encoder, if it is right and quicker."""
        dtype = self._network.dtype

        def convert() -> Model:
            encoder = copy.deepcopy(self._exact.image_encoder)
            encoder.join_convolutions()
            module = modules.Encode(encoder, torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD))
            return Model.convert(module, [self._pixels.float()], [torch.uint8, dtype, dtype, dtype])

        encoder = Encoder(self._compiled("encoder", convert), self.workers)

        def by_torch(pixels: Tensor) -> tuple[Tensor, ...]:
            features = self._network.encode_pixels(pixels)[0]
            return features.top[None], features.fine[0][None], features.fine[1][None]

        return encoder if self._is_better(encoder, by_torch, [self._pixels], self._levels, "image encoder") else None

    def step(self) -> Step | None:
        """The step of one object, each part of it by what is right and quicker; None if torch is for all of them."""
        network, exact, dtype = self._network, self._exact, self._network.dtype
        top, *fine = (level.to(dtype) for level in self._levels)
        past = _of_dtype(self._past, dtype)
        attention = self._attention(FeatureBatch(top, (fine[0], fine[1])), past)
        attended = network.with_memory(top, past)
        decode_by_torch, remember_by_torch = _decode_by(network), _remember_by(network)
        right = _decode_by(exact)(attended.float(), *self._levels[1:])

        def convert_decoder() -> Model:
            # In bfloat16 OpenVINO 2026.4 predicts another IoU than torch, 0.60 for 0.44, and by it takes other masks.
            dtypes = [dtype, dtype, dtype, torch.float32, torch.float32, dtype, torch.float32]
            return Model.convert(modules.Decode(exact), self._levels, dtypes)

        def convert_memory_encoder() -> Model:
            example = [self._levels[0], *(part.clone() for part in (right[0], right[3]))]
            dtypes = [dtype, torch.float32, torch.float32, torch.bfloat16]
            return Model.convert(modules.Remember(exact), example, dtypes)

        decode = self._compiled("decoder", convert_decoder, compute="f32")
        remember = self._compiled("memory", convert_memory_encoder)
        by_openvino = (
            attention is not None,
            self._is_better(decode, decode_by_torch, [attended, *fine], right, "mask decoder"),
            self._is_better(
                remember,
                remember_by_torch,
                [top, right[0], right[3]],
                _remember_by(exact)(self._levels[0], right[0], right[3]),
                "memory encoder",
            ),
        )
        if not any(by_openvino):
            return None
        return Step(
            attention or _AttentionByTorch(network),
            decode if by_openvino[1] else decode_by_torch,
            remember if by_openvino[2] else remember_by_torch,
            self.workers,
        )

    def _attention(self, frame: FeatureBatch, past: Past) -> MemoryAttention | None:
        network, exact, dtype = self._network, self._exact, self._network.dtype
        attention = MemoryAttention(self._attention_parts(), network.pointer_tokens)

        remembered = list(past.memories[0])

        def compiled(top: Tensor) -> tuple[Tensor, ...]:
            # As in a stream, where of each object's memories one is new on each frame.
            sources = [[*remembered[:-1], remembered[-1].clone()]]
            return (attention(FeatureBatch(top, frame.fine), replace(past, sources=sources)),)

        def by_torch(top: Tensor) -> tuple[Tensor, ...]:
            return (network.with_memory(top, past),)

        top = frame.top
        want = (exact.with_memory(top.float(), self._past),)
        if not self._is_better(compiled, by_torch, [top], want, "memory attention"):
            return None
        # Every frame up to the seventeenth has a longer past than the one before.
        for frames in range(1, network.max_pointers + 1):
            attention.prepare(frame, _of_dtype(_past(exact, frames=frames), dtype))
        return attention

    def _attention_parts(self) -> AttentionParts:
        exact, dtype = self._exact, self._network.dtype
        placement = Placement(exact.device, torch.float32)
        kernels = AttentionKernels(own=modules.sdpa, memory=modules.sdpa)
        rearranged = FastMemoryAttention(exact.model.memory_attention, exact.feature_position, placement, kernels)
        keys_of_memory = KeysOfMemory(rearranged, exact.memory_position)
        top, memory = self._levels[0], self._past.memories[:, 0].float()
        tokens, width = rearranged.layers[0].cos.shape
        # An object with one prompt, from its seventeenth frame on.
        memories, pointers = self._past.memories.shape[1], self._past.pointers.shape[1]
        lasting = memories * tokens + pointers * (exact.model.hidden_dim // exact.model.mem_dim)
        example = [torch.zeros(1, tokens, width), torch.zeros(1, lasting, exact.model.mem_dim)]
        example += [torch.zeros(1, width, lasting) for _ in rearranged.layers]
        attend = converted(self._file("attend"), _converter(Attend(rearranged), example, [dtype] * (len(example) + 1)))
        any_length = {1: [1, -1, exact.model.mem_dim]} | {i: [1, width, -1] for i in range(2, len(example))}
        linears = [layer.keys for layer in rearranged.layers]
        return AttentionParts(
            start=self._compiled("start", _converter(Start(rearranged), [top], [dtype, dtype])),
            keys=self._compiled("keys", _converter(keys_of_memory, [memory], [torch.bfloat16, dtype, dtype])),
            attend=attend.compile(self._compute, any_length, callers=self.workers.threads),
            attend_lasting=attend.compile(self._compute, callers=self.workers.threads),
            lasting=lasting,
            of_ages=keys_of_memory.of_ages(exact.model.maskmem_tpos_enc.flatten(1)).to(dtype),
            pointer_weight=torch.cat([linear.weight[:width] for linear in linears]).to(dtype),
            pointer_bias=torch.cat([linear.bias[:width] for linear in linears])[:, None].to(dtype),
        )

    def _is_better(
        self, candidate: Part, by_torch: Part, arguments: list[Tensor], want: tuple[Tensor, ...], what: str
    ) -> bool:
        """Whether a part gives what it should, and in less time."""
        return _is_right(candidate, arguments, want, what) and self._is_quicker(candidate, by_torch, arguments, what)

    def _is_quicker(self, candidate: Part, by_torch: Part, arguments: list[Tensor], what: str) -> bool:
        if self.workers.threads > 1:
            # Each thread will compute something else, so what counts is the work of all threads together. That also
            # stays the same while the machine is busy.
            with self.workers.single_threaded():
                seconds, seconds_by_torch = _best_seconds(candidate, by_torch, arguments, time.process_time)
        else:
            seconds, seconds_by_torch = _best_seconds(candidate, by_torch, arguments, time.perf_counter)
        logger.debug("%s: %.1f ms by OpenVINO, %.1f ms by torch", what, 1e3 * seconds, 1e3 * seconds_by_torch)
        return seconds < seconds_by_torch


def _is_right(candidate: Part, arguments: list[Tensor], want: tuple[Tensor, ...], what: str) -> bool:
    for got, right in zip(candidate(*arguments), want, strict=True):
        difference = (got.float() - right.float()).abs().max() / right.float().abs().max()
        if not difference <= TOLERANCE:
            logger.warning("OpenVINO computes the %s wrongly here (by %.2g); torch computes it", what, difference)
            return False
    return True


def _best_seconds(
    candidate: Part, by_torch: Part, arguments: list[Tensor], clock: Callable[[], float]
) -> tuple[float, float]:
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for i, part in enumerate((candidate, by_torch)):
            start = clock()
            part(*arguments)
            best[i] = min(best[i], clock() - start)
    return best[0], best[1]


def _past(network: Network, *, frames: int) -> Past:
    """What an object remembers that was prompted so many frames ago, in float32."""
    model, side = network.model, network.grid_size
    generator = torch.Generator().manual_seed(1)
    memories, pointers = min(frames, model.num_maskmem), min(frames, network.max_pointers)
    return Past(
        memories=torch.randn(1, memories, model.mem_dim, side, side, generator=generator).to(torch.bfloat16),
        ages=torch.tensor([list(range(memories))]),
        pointers=torch.randn(1, pointers, model.hidden_dim, generator=generator),
        distances=torch.linspace(0, 1, pointers)[None],
    )


def _of_dtype(past: Past, dtype: torch.dtype) -> Past:
    return Past(past.memories, past.ages, past.pointers.to(dtype), past.distances)


def _converter(module: nn.Module, example: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> Callable[[], Model]:
    return lambda: Model.convert(module, [part.clone() for part in example], dtypes)


@dataclass(frozen=True, eq=False)
class _AttentionByTorch:
    """Torch's, which keeps nothing."""

    network: Network
    kept_bytes: int = 0

    def __call__(self, frame: FeatureBatch, past: Past) -> Tensor:
        return self.network.with_memory(frame.top, past)


def _decode_by(network: Network) -> Part:
    multimask = network.decoder.use_multimask(initial=False, num_points=0)

    def decode(attended: Tensor, fine0: Tensor, fine1: Tensor) -> tuple[Tensor, ...]:
        found = network.decoder.decode(attended, (fine0, fine1), multimask=multimask)
        return found.logits, found.predicted_iou, found.pointer, found.object_score

    return decode


def _remember_by(network: Network) -> Part:
    def remember(top: Tensor, logits: Tensor, object_score: Tensor) -> tuple[Tensor, ...]:
        return (network.encode_memory(top, logits, object_score, prompted=False),)

    return remember
