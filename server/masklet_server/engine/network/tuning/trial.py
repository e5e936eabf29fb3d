"""What a network is tried with: one object that is clicked, and later frames on which it is tracked."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import FeatureBatch, Features, Past
from masklet_server.engine.network.tuning.kernels import wait_for

PICTURES = 4


class Trial:
    """A few frames, and what an object that was clicked on the first one remembers on the others.

    The memories are computed once, by the plain way, and given to all. So what is compared is one step, and differences
    do not add up over frames.

    Args:
        plain: Computes the memories.
    """

    @torch.inference_mode()
    def __init__(self, plain: Network) -> None:
        self._pixels = _frames(plain.image_size)
        first = Features.stack(plain.encode_pixels(self._pixels[:1])[:1])
        middle = torch.full((1, 1, 2), plain.image_size / 2, device=plain.device)
        decoded = plain.decoder.decode(
            plain.without_memory(first.top),
            first.fine,
            points=(middle, torch.ones(1, 1, dtype=torch.int32, device=plain.device)),
            multimask=True,
        )
        memory = plain.encode_memory(first.top, decoded.logits, decoded.object_score, prompted=True)
        memories, pointers = plain.recent_memories + 1, plain.max_pointers
        self._past = Past(
            memories=memory[:, None].expand(1, memories, *memory.shape[1:]).contiguous(),
            ages=torch.arange(memories, device=plain.device)[None],
            pointers=decoded.pointer[:, None].expand(1, pointers, -1).contiguous(),
            distances=torch.linspace(0, 1, pointers, device=plain.device)[None],
        )

    @torch.inference_mode()
    def encode(self, network: Network, pictures: int) -> list[Tensor]:
        """Encode the frames, so many in one pass; gives the coarsest features of all of them."""
        found = [
            features
            for start in range(0, PICTURES, pictures)
            for features in network.encode_pixels(self._pixels[start : start + pictures])
        ]
        tops = torch.stack([features.top for features in found])
        wait_for(network.device)
        return [tops]

    @torch.inference_mode()
    def track(self, network: Network, sizes: Sequence[int] = (1, 3)) -> list[Tensor]:
        """Track so many objects on the last frame, once for each size.

        Returns:
            Mask logits, predicted IoUs and object scores of all objects.
        """
        features = network.encode_pixels(self._pixels[-1:])[0]
        logits, ious, scores = [], [], []
        for size in sizes:
            decoded, _ = network.step(self._batch(features, size), self._past_of(size, network.dtype))
            logits.append(decoded.logits)
            ious.append(decoded.predicted_iou)
            scores.append(decoded.object_score)
        results = [torch.cat(logits), torch.cat(ious), torch.cat(scores)]
        wait_for(network.device)
        return results

    @staticmethod
    def _batch(features: Features, size: int) -> FeatureBatch:
        return Features.stack([features] * size)

    def _past_of(self, size: int, dtype: torch.dtype) -> Past:
        repeat = functools.partial(torch.repeat_interleave, repeats=size, dim=0)
        past = self._past
        return Past(repeat(past.memories), repeat(past.ages), repeat(past.pointers.to(dtype)), repeat(past.distances))


def _frames(side: int) -> Tensor:
    """A bright disc before a background with a slope, which moves a little: ``uint8[4, S, S, 3]``."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    frames = []
    for number in range(PICTURES):
        distance = ((rows - side / 2) ** 2 + (columns - side / 2 - number * side / 64) ** 2).sqrt()
        slope = 40 + 60 * columns / side
        frames.append(torch.where(distance < side / 5, torch.full_like(slope, 220.0), slope))
    return torch.stack(frames).to(torch.uint8)[..., None].repeat(1, 1, 1, 3)
