"""A step for objects with a memory policy, which chooses among the mask decoder's candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from masklet_server.engine.memory.policies import Candidates, Policy
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Decoded, FeatureBatch, Past


def step_by_policy(
    network: Network, batch: FeatureBatch, past: Past, choosing: Sequence[tuple[Policy[Any], int]]
) -> tuple[Decoded, Tensor]:
    """Track B objects on their frames without a prompt, as `Network.step` does; their policies choose the masks.

    Args:
        network: The model.
        batch: The frames' features.
        past: What the objects remember.
        choosing: Policy and frame index of each object.

    Returns:
        The chosen masks, and the memories ``bfloat16[B, M, h, w]`` that are encoded from them.
    """
    features = network.with_memory(batch.top, past)
    found = network.decoder.candidates(features, batch.fine, points=None, mask_logits=None, multimask=True)
    masks, ious = (found.logits > 0).cpu().numpy(), found.predicted_iou.cpu().numpy()
    scores = found.object_score[:, 0].tolist()
    best = [
        policy.choose(frame_index, Candidates(masks[i], ious[i], scores[i]))
        for i, (policy, frame_index) in enumerate(choosing)
    ]
    decoded = network.decoder.pick(found, torch.tensor(best, device=found.logits.device))
    memories = network.encode_memory(batch.top, decoded.logits, decoded.object_score, prompted=False)
    return decoded, memories
