"""What the engine tells about a model that it has loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadedModel:
    """What the engine says of a model it holds.

    Attributes:
        name: As in the registry.
        image_size: Side of the square the model sees, in pixels.
        logits_size: Side of its low-resolution logits.
        dtype: "float32" or "bfloat16".
        device: "cpu" or "cuda:0".
        device_name: The device's own name.
        parameter_count: Of all weights.
        encode_ahead: Frames of one stream that are best encoded in one pass.
    """

    name: str
    image_size: int
    logits_size: int
    dtype: str
    device: str
    device_name: str
    parameter_count: int
    encode_ahead: int = 1
