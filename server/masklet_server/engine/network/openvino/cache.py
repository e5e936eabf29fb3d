"""Converted models on disk: conversion takes seconds, reading milliseconds."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from torch import nn

from masklet_server.engine.network.openvino.compiled import Model

logger = logging.getLogger(__name__)

# Whoever changes how the network computes changes what is converted of it.
_CODE = tuple(sorted(Path(__file__).parents[1].rglob("*.py")))


def fingerprint(model: nn.Module) -> str:
    """What a converted model depends on: weights, configuration, code, and the versions of the libraries."""
    digest = hashlib.blake2b(digest_size=16)
    # Such as the side of the square that the model sees, and how it scales masks before it remembers them.
    plain = {name: value for name, value in vars(model).items() if isinstance(value, (bool, int, float, str))}
    digest.update(repr(sorted(plain.items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    for file in _CODE:
        digest.update(file.read_bytes())
    digest.update(repr([metadata.version(package) for package in ("openvino", "torch", "sam2")]).encode())
    return digest.hexdigest()


def converted(path: Path, convert: Callable[[], Model]) -> Model:
    """The model of a file, or what `convert` makes, which is then written there.

    A file that cannot be read is made anew. A folder that cannot be written to costs the next start its seconds.

    Args:
        path: With the suffix .xml.
        convert: Makes it.
    """
    if path.is_file():
        try:
            return Model.read(path)
        except RuntimeError as error:
            logger.warning("%s cannot be read (%s) and is made anew", path, error)
    model = convert()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two servers may start at once: the weights are there before the graph that names them, and each is whole.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            model.write(whole)
            for suffix in (".bin", ".xml"):
                whole.with_suffix(suffix).replace(path.with_suffix(suffix))
    except (OSError, RuntimeError) as error:
        logger.warning("the converted model cannot be kept in %s: %s", path.parent, error)
    return model
