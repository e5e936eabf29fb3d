"""A small network for tests: nano at 128 pixels, trained weights, some milliseconds a step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.object_memory import ObjectMemory
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.jobs import (
    ApplyPrompt,
    FrameInput,
    ObjectTask,
    StreamContext,
    Track,
    TrackBackward,
)
from masklet_server.engine.serving.recent_features import RecentFeatures
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support import synthetic

SIZE = 128
HEIGHT, WIDTH = 90, 120


def small_network(dtype: torch.dtype = torch.float32, size: int = SIZE) -> Network:
    """Nano at a small size; equal arguments give the same object."""
    return _network(dtype, size)


@lru_cache(maxsize=3)
def _network(dtype: torch.dtype, size: int) -> Network:
    return Network(build_model(Registry.load().get("nano"), image_size=size), torch.device("cpu"), dtype)


def new_bank(
    model: str = "nano", *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
) -> MemoryBank:
    """An empty bank for the small network."""
    return MemoryBank(
        model,
        correction_window=correction_window,
        memory_policy=memory_policy,
        recent_memories=small_network().recent_memories,
    )


def new_history(file: TensorFile) -> History:
    """An empty history for the small network."""
    return History("nano", file, small_network().recent_memories)


@lru_cache(maxsize=64)
def pixels(frame_index: int, seed: int = 0) -> synthetic.Image:
    """Pixels ``uint8[S, S, 3]`` of a frame of the clip."""
    return synthetic.frame(frame_index, SIZE, SIZE, seed=seed)


def features(frame_index: int) -> Features:
    """Features of one frame of the clip."""
    with torch.inference_mode():
        return small_network().encode_pixels(torch.from_numpy(pixels(frame_index)[None].copy()))[0]


def click(blob: int = 0, frame_index: int = 0) -> Prompt:
    """A click on the middle of a blob."""
    where = synthetic.BLOBS[blob].center(frame_index, HEIGHT, WIDTH)
    return Prompt(object_id=blob + 1, frame_index=frame_index, point_coords=[where])


def stream(name: str = "a", recent: RecentFeatures | None = None, *, return_logits: bool = False) -> StreamContext:
    """A stream that uses the model nano."""
    return StreamContext(name, "nano", return_logits=return_logits, recent=recent)


def frame(index: int, seed: int = 0) -> FrameInput:
    """A frame of the clip as input for a job."""
    return FrameInput(index, np.asarray(pixels(index, seed)), HEIGHT, WIDTH)


def job(
    memory: ObjectMemory, frame_index: int, prompts: Sequence[Prompt] = (), *, name: str = "a", seed: int = 0
) -> Track:
    """A job that tracks one object on one frame."""
    return Track(stream(name), frame(frame_index, seed), [ObjectTask(memory, prompts)])


def backward(history: History, frame_index: int, *, name: str = "a") -> TrackBackward:
    """A job that tracks one object on one frame, backward in time."""
    return TrackBackward(stream(name), frame(frame_index), [history])


def prompted(memory: ObjectMemory, frame_index: int, prompt: Prompt) -> ApplyPrompt:
    """A job that prompts one object on one frame, and does not track it."""
    return ApplyPrompt(stream(), frame(frame_index), memory, prompt)
