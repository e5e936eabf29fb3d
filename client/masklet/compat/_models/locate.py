"""What the functions and classes that make models share: which model, which server, and what means nothing there."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masklet._sync.client import Client
from masklet.compat._models import names, server

# What `sam2.build_sam` takes beside a model's name, and its values there that change nothing here.
_NEUTRAL: Mapping[str, Any] = {"mode": "eval", "apply_postprocessing": True, "vos_optimized": False}


def locate_repository(model_id: str, arguments: Mapping[str, Any]) -> tuple[Client, str]:
    """As `locate`, for a model's repository on Hugging Face.

    Args:
        model_id: OWNER/REPOSITORY; or the name of a model here.
        arguments: What else the program gives, by name.
    """
    size, others = names.size_in_overrides(arguments.get("hydra_overrides_extra", ()))
    ignored = {**arguments, "hydra_overrides_extra": others}
    return locate(names.of_repository(model_id).at(size), arguments.get("device"), ignored)


def locate(choice: names.ModelChoice, device: Any, ignored: Mapping[str, Any]) -> tuple[Client, str]:
    """A client of the server that computes, and the model's name there.

    Args:
        choice: The model that the program asks for.
        device: The `device` that the program gives; None: it gives none.
        ignored: Arguments that mean nothing here, by name. One warning names those that would change something in sam2.

    Raises:
        MaskletError: As `connect`.
    """
    unused = {name: value for name, value in ignored.items() if name != "device" and not _is_neutral(name, value)}
    wanted = "auto" if device is None else str(device)
    if server.is_remote() or wanted.partition(":")[0] not in ("auto", "cpu", "cuda"):
        if device is not None:
            unused["device"] = device
        wanted = "auto"
    if unused:
        listed = ", ".join(f"{name}={value!r}" for name, value in unused.items())
        warn(f"{listed} changes nothing: the model is on a masklet server")
    return server.connect(choice, wanted)


def warn(message: str) -> None:
    """Warn on the line of the program that called masklet.compat.

    Args:
        message: What the program should know.
    """
    warnings.warn(f"masklet.compat: {message}", UserWarning, _caller())


def _is_neutral(name: str, value: Any) -> bool:
    if name == "hydra_overrides_extra":
        return isinstance(value, Sequence) and len(value) == 0
    return name in _NEUTRAL and bool(value == _NEUTRAL[name])


def _caller() -> int:
    """The `stacklevel` of the program's own line, so that the warning is shown once for each."""
    here = str(Path(__file__).parents[1])
    frame, level = sys._getframe(1), 1  # noqa: SLF001 - as `warnings` itself finds its caller
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    return level
