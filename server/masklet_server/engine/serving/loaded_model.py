"""What the engine tells about a model that it has loaded."""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.masks.edges import Edges


@dataclass(frozen=True)
class LoadedModel:
    """Facts about a model that the engine has loaded.

    Attributes:
        name: Its name in the registry.
        image_size: Side of the square the model sees, in pixels.
        logits_size: Side of its low-resolution logits.
        dtype: "float32" or "bfloat16".
        edges: How the edges of its masks are drawn, if a client does not say.
        runtime: "torch", or "openvino" if it computes parts of the network.
        device: "cpu" or "cuda:0".
        device_name: The hardware's name.
        parameter_count: Number of weights.
        encode_ahead: Number of frames of one stream that are best encoded in one pass, or at the same time.
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
    edges: Edges = Edges.NONE
