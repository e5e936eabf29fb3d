"""What OpenVINO computes of a network, encoder and step: that where it is quicker than torch on this machine."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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

# Each part is timed so often, by turns, and its best time counts, so that a busy moment does not decide. After so many
# seconds no further round begins: what takes that long is far less disturbed.
ROUNDS, ROUND_SECONDS = 5, 3.0
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
    step = candidates.step()
    encoder = candidates.encoder(starts=step is not None)
    if encoder is None and step is None:
        candidates.workers.close()
        return
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
        top, *fine = (level.to(network.dtype) for level in self._levels)
        self._frame = FeatureBatch(top, (fine[0], fine[1]))
        self._past = _past(network, frames=network.max_pointers)
        placement = Placement(exact.device, torch.float32)
        kernels = AttentionKernels(own=modules.sdpa, memory=modules.sdpa)
        self._attention = FastMemoryAttention(exact.model.memory_attention, exact.feature_position, placement, kernels)
        self._decoded = modules.Decode(exact)(*self._levels)

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

    def encoder(self, *, starts: bool) -> Encoder | None:
        """The image encoder, if it is right and quicker.

        Args:
            starts: It gives `Features.started` as well.
        """
        dtype = self._network.dtype
        start = Start(self._attention) if starts else None
        right = self._levels if start is None else (*self._levels, start(self._levels[0]))

        def convert() -> Model:
            encoder = copy.deepcopy(self._exact.image_encoder)
            encoder.join_convolutions()
            module = modules.Encode(encoder, torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD), start)
            return Model.convert(module, [self._pixels.float()], [torch.uint8, *[dtype] * len(right)])

        encoder = Encoder(self._compiled("encoder-and-start" if starts else "encoder", convert), self.workers)

        def by_torch(pixels: Tensor) -> tuple[Tensor, ...]:
            return (self._network.encode_pixels(pixels)[0].top,)

        return encoder if self._is_better(encoder, by_torch, [self._pixels], right, "image encoder") else None

    def step(self) -> Step | None:
        """The step of one object, if all its parts are right and it is quicker as a whole.

        The parts are not chosen one by one. On some machines torch is as quick at memory attention, and chance would
        decide; but only together do the parts work without what is between them.
        """
        network = self._network
        attend = MemoryAttention(self._attention_parts(), network.pointer_tokens)
        step = Step(attend, self._decoder(), self._memory_encoder(), self.workers)
        if not self._is_right_step(step):
            return None
        remembered = list(self._past.memories[0])

        def compiled() -> tuple[Tensor, ...]:
            # As in a stream, where of each object's memories one is new on each frame.
            return step(self._frame, replace(self._past, sources=[[*remembered[:-1], remembered[-1].clone()]]))

        def by_torch() -> tuple[Tensor, ...]:
            return (network.step(self._frame, self._past)[1],)

        if not self._is_quicker(compiled, by_torch, [], "step"):
            return None
        # Every frame up to the seventeenth has a longer past than the one before.
        for frames in range(1, network.max_pointers + 1):
            attend.prepare(self._frame, _past(network, frames=frames))
        return step

    def _is_right_step(self, step: Step) -> bool:
        """Whether each part gives what it should, from the same arguments."""
        exact, dtype = self._exact, self._network.dtype
        attended = exact.with_memory(self._levels[0], replace(self._past, pointers=self._past.pointers.float()))
        logits, iou, pointer, score = self._decoded
        memory = exact.encode_memory(self._levels[0], logits, score, prompted=False)
        rights = (
            _is_right(lambda: (step.attend(self._frame, self._past),), [], (attended,), "memory attention"),
            _is_right(
                step.decode, [level.to(dtype) for level in self._levels], (logits, iou, pointer, score), "mask decoder"
            ),
            _is_right(step.remember, [self._frame.top, logits, score], (memory,), "memory encoder"),
        )
        return all(rights)

    def _decoder(self) -> CompiledModel:
        dtype = self._network.dtype

        def convert() -> Model:
            dtypes = [dtype, dtype, dtype, torch.float32, torch.float32, dtype, torch.float32]
            return Model.convert(modules.Decode(self._exact), self._levels, dtypes)

        # In bfloat16 OpenVINO 2026.4 predicts another IoU than torch, 0.60 for 0.44, and by it takes other masks.
        return self._compiled("decoder", convert, compute="f32")

    def _memory_encoder(self) -> CompiledModel:
        dtype = self._network.dtype

        def convert() -> Model:
            example = [self._levels[0], *(part.clone() for part in (self._decoded[0], self._decoded[3]))]
            dtypes = [dtype, torch.float32, torch.float32, torch.bfloat16]
            return Model.convert(modules.Remember(self._exact), example, dtypes)

        return self._compiled("memory", convert)

    def _attention_parts(self) -> AttentionParts:
        exact, dtype = self._exact, self._network.dtype
        rearranged = self._attention
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
    begun = time.perf_counter()
    for number in range(ROUNDS):
        if number > 1 and time.perf_counter() - begun > ROUND_SECONDS:
            break
        for i, part in enumerate((candidate, by_torch)):
            start = clock()
            part(*arguments)
            best[i] = min(best[i], clock() - start)
    return best[0], best[1]


def _past(network: Network, *, frames: int) -> Past:
    """What an object remembers that was prompted so many frames ago."""
    model, side = network.model, network.grid_size
    generator = torch.Generator().manual_seed(1)
    memories, pointers = min(frames, model.num_maskmem), min(frames, network.max_pointers)
    return Past(
        memories=torch.randn(1, memories, model.mem_dim, side, side, generator=generator).to(torch.bfloat16),
        ages=torch.tensor([list(range(memories))]),
        pointers=torch.randn(1, pointers, model.hidden_dim, generator=generator).to(network.dtype),
        distances=torch.linspace(0, 1, pointers)[None],
    )


def _converter(module: nn.Module, example: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> Callable[[], Model]:
    return lambda: Model.convert(module, [part.clone() for part in example], dtypes)
