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
# Folders that cannot be used; one warning of each is enough for all of its files.
_WARNED: set[Path] = set()


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


def converted(path: Path | None, convert: Callable[[], Model]) -> Model:
    """The model of a file, or what `convert` makes, which is then written there.

    A file that is damaged or cannot be read is made anew. If it cannot be written, the next start takes longer.

    Args:
        path: With the suffix .xml; None: nowhere.
        convert: Makes the model.
    """
    if path is None:
        return convert()
    try:
        if path.with_suffix(".sum").read_text() == _checksum(path):
            return Model.read(path)
        logger.warning("%s is damaged and is made anew", path)
    except FileNotFoundError:
        logger.debug("%s is made for the first time", path)
    except OSError as error:
        _warn_of(path.parent, error)
    except RuntimeError as error:
        logger.warning("%s cannot be read and is made anew: %s", path, _first_line(error))
    model = convert()
    try:
        _write(model, path)
    except (OSError, RuntimeError) as error:
        _warn_of(path.parent, error)
    return model


def _warn_of(folder: Path, error: Exception) -> None:
    if folder not in _WARNED:
        _WARNED.add(folder)
        logger.warning(
            "converted models cannot be kept in %s, so the next start takes longer; set MASKLET_CACHE to a folder that "
            "can be written to: %s",
            folder,
            _first_line(error),
        )


def _write(model: Model, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two servers may start at once. Each file is whole, and the checksum comes last.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        model.write(whole)
        whole.with_suffix(".sum").write_text(_checksum(whole))
        for suffix in (".bin", ".xml", ".sum"):
            whole.with_suffix(suffix).replace(path.with_suffix(suffix))


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for suffix in (".xml", ".bin"):
        digest.update(path.with_suffix(suffix).read_bytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
