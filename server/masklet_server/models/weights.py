"""Reading a checkpoint: safetensors, or PyTorch's format, from which only tensors are unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn

from masklet.errors import DataLoss, FailedPrecondition
from masklet_server.models.registry import ModelSpec

State = dict[str, torch.Tensor]

_MAX_KEYS_SHOWN = 3


def read_checkpoint(spec: ModelSpec) -> State:
    """Read the weights of a model, on the CPU, in the dtype of the file.

    Raises:
        FailedPrecondition: There is no file; the message says which command fetches it.
        DataLoss: The file is damaged, or is not a checkpoint.
    """
    path = spec.checkpoint_path()
    if not path.is_file():
        raise FailedPrecondition(f"model {spec.name}: there is no checkpoint at {path}; {_fix(spec, missing=True)}")
    size = path.stat().st_size
    if spec.bytes and size != spec.bytes:
        raise DataLoss(f"{path} has {size:,} bytes, {spec.name} needs {spec.bytes:,}; {_fix(spec)}")
    try:
        content = _read(path)
    # torch has no error class for this: what it raises depends on where the file is damaged.
    except Exception as error:
        raise DataLoss(f"{path} cannot be read as a checkpoint: {_first_line(error)}; {_fix(spec)}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataLoss(f"{path} has no weights: neither tensors by name, nor tensors under 'model'; {_fix(spec)}")
    return state


def load_state(model: nn.Module, state: State, spec: ModelSpec) -> None:
    """Copy weights into a model, converted to its dtype; all names and shapes must be equal.

    Raises:
        DataLoss: Names or shapes differ; the message shows some of them.
    """
    expected = model.state_dict()
    different = [
        *(f"{name} is missing" for name in expected.keys() - state.keys()),
        *(f"{name} is unknown" for name in state.keys() - expected.keys()),
        *(
            f"{name} has the shape {list(state[name].shape)}, not {list(expected[name].shape)}"
            for name in expected.keys() & state.keys()
            if state[name].shape != expected[name].shape
        ),
    ]
    if different:
        shown = "; ".join(sorted(different)[:_MAX_KEYS_SHOWN])
        raise DataLoss(
            f"{spec.checkpoint_path()} is not a checkpoint of {spec.config_path().name}: {len(different)} weights "
            f"differ, such as: {shown}; {_fix(spec)}"
        )
    model.load_state_dict(state)


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it contains more than tensors, or is not a PyTorch file"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _fix(spec: ModelSpec, *, missing: bool = False) -> str:
    if spec.is_downloadable:
        return f"fetch it {'' if missing else 'again '}with: masklet models download {spec.name}"
    if spec.ships:
        return "it is part of masklet: install masklet again"
    return "check the path and the configuration given for this model"
