"""What the engine tells about a model that it has loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from masklet.errors import NotFound
from masklet_server.engine.memory.sizes import MemorySizes
from masklet_server.masks.edges import Edges
from masklet_server.models.sizes import Scaling, split_size


@dataclass(frozen=True)
class LoadedModel:
    """Facts about a model that the engine has loaded.

    Attributes:
        name: Its name in the registry.
        image_size: Side of the square the model sees, in pixels.
        logits_size: Side of its low-resolution logits.
        dtype: "float32", "bfloat16" or "float16".
        edges: How the edges of its masks are drawn, if a client does not say.
        scaling: How frames of video are made as small as it wants them.
        runtime: "torch", or "openvino" if it computes parts of the network.
        tuning: What was chosen by measuring on this GPU, as one line for people; empty if nothing was.
        device: "cpu" or "cuda:0".
        device_name: The hardware's name.
        parameter_count: Number of weights.
        weights_checksum: Of all weights; empty: unknown.
        encode_ahead: Number of frames of one stream that are best encoded in one pass, or at the same time.
        memory: What tracking takes of memory.
        device_bytes: Memory of the device; 0: it is the machine's.
        encodes_meanwhile: Next frames are encoded while others are tracked, and not only together with others.
    """

    name: str
    image_size: int
    logits_size: int
    dtype: str
    device: str
    device_name: str
    parameter_count: int
    encode_ahead: int = 1
    encodes_meanwhile: bool = False
    runtime: str = "torch"
    tuning: str = ""
    edges: Edges = Edges.NONE
    scaling: Scaling = "bicubic"
    memory: MemorySizes = field(default_factory=MemorySizes)
    device_bytes: int = 0
    weights_checksum: str = ""


def find_loaded(models: Mapping[str, LoadedModel], name: str) -> LoadedModel:
    """The loaded model that a request asks for.

    Args:
        models: The loaded models by name, the default model first.
        name: As the client gave it; empty: the default model. ``NAME@SIZE`` with a model's own size is that model.

    Raises:
        NotFound: It is not loaded; the message lists those that are.
        InvalidArgument: The name has a size that no model can have.
    """
    if not name:
        return next(iter(models.values()))
    if name in models:
        return models[name]
    plain, size = split_size(name)
    if plain in models and models[plain].image_size == size:
        return models[plain]
    raise not_loaded(models, name, size)


def not_loaded(models: Mapping[str, LoadedModel], name: str, size: int | None = None) -> NotFound:
    """What is wrong with a request for a model that is not loaded; `size` is the one in its name."""
    advice = f"; a server loads a size when it starts: masklet serve --model {name}" if size else ""
    return NotFound(f"the model {name!r} is not loaded; this server has {', '.join(models)}{advice}")
