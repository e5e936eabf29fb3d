"""A small network for tests: nano at 128 pixels, trained weights, some milliseconds a step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from masklet.prompts import Prompt
from masklet_server.engine.memory.object_memory import ObjectMemory
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.jobs import FrameJob, ObjectTask
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support import synthetic

SIZE = 128
HEIGHT, WIDTH = 90, 120


def small_network(dtype: torch.dtype = torch.float32, size: int = SIZE) -> Network:
    """Nano, shrunk; the same one for the same arguments."""
    return _network(dtype, size)


@lru_cache(maxsize=3)
def _network(dtype: torch.dtype, size: int) -> Network:
    return Network(build_model(Registry.load().get("nano"), image_size=size), torch.device("cpu"), dtype)


@lru_cache(maxsize=64)
def pixels(frame_index: int, seed: int = 0) -> synthetic.Image:
    """``uint8[S, S, 3]``."""
    return synthetic.frame(frame_index, SIZE, SIZE, seed=seed)


def features(frame_index: int) -> Features:
    """Of one frame."""
    with torch.inference_mode():
        return small_network().encode_pixels(torch.from_numpy(pixels(frame_index)[None].copy()))[0]


def click(blob: int = 0, frame_index: int = 0) -> Prompt:
    """One click on the middle of a blob."""
    where = synthetic.BLOBS[blob].center(frame_index, HEIGHT, WIDTH)
    return Prompt(object_id=blob + 1, frame_index=frame_index, point_coords=[where])


def job(
    bank: ObjectMemory, frame_index: int, prompts: Sequence[Prompt] = (), *, stream: str = "a", seed: int = 0
) -> FrameJob:
    """One object on one frame."""
    return FrameJob(
        model="nano",
        stream=stream,
        frame_index=frame_index,
        pixels=np.asarray(pixels(frame_index, seed)),
        height=HEIGHT,
        width=WIDTH,
        tasks=[ObjectTask(bank, prompts)],
    )
