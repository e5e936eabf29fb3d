"""What was chosen for one model on one device, and the file that keeps it for the next start."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import nn

from masklet_server.engine.network.tuning.kernels import KERNELS

logger = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16)
"""Sizes to which batches are padded, so that a few recordings serve every number of objects."""


@dataclass(frozen=True)
class Choice:
    """How a network computes on a GPU.

    Attributes:
        dtype: "bfloat16", "float16" or "float32", of weights and activations.
        kernels: Names of attention kernels, by the shapes that `shape_name` gives; others are "fused".
        graphs: The image encoder and the step are recorded as CUDA graphs.
        pictures: Number of a stream's frames that are encoded in one pass.
        buckets: Batches are padded to these sizes; empty: they are not padded.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    kernels: Mapping[str, str] = field(default_factory=dict)
    graphs: bool = False
    pictures: int = 1
    buckets: tuple[int, ...] = ()

    def __str__(self) -> str:
        """One line for people."""
        attention = ", ".join(dict.fromkeys(self.kernels.values())) or "fused"
        batches = f"batches of {', '.join(map(str, self.buckets))}" if self.buckets else "batches of any size"
        return (
            f"{self.dtype}, attention: {attention}, {'with' if self.graphs else 'without'} CUDA graphs, "
            f"pictures a pass: {self.pictures}, {batches}"
        )


class Circumstances(BaseModel):
    """What a choice depends on; with other circumstances it is measured again.

    Attributes:
        device: The hardware's name.
        driver: Version of its driver.
        torch: Version of torch.
        masklet: Version of masklet.
        model: A fingerprint of configuration and weights.
        dtype: As the settings ask for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    driver: str
    torch: str
    masklet: str
    model: str
    dtype: str


class _Record(BaseModel):
    """A file's content."""

    model_config = ConfigDict(extra="forbid")

    circumstances: Circumstances
    choice: Choice


_RECORD = TypeAdapter(_Record)


class StoredChoices:
    """Choices on disk, a file for each.

    A file that is damaged or cannot be read is measured anew. If none can be written, every start measures.

    Args:
        folder: Made when it is needed; None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, circumstances: Circumstances) -> Choice | None:
        """What was chosen in the same circumstances; None if nothing was."""
        if self._folder is None:
            return None
        record = _read(self._file(self._folder, circumstances))
        return record.choice if record is not None and record.circumstances == circumstances else None

    def put(self, circumstances: Circumstances, choice: Choice) -> None:
        """Keep a choice for the next start."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as partial:  # two servers may start at once
                whole = Path(partial) / "whole"
                whole.write_bytes(_RECORD.dump_json(_Record(circumstances=circumstances, choice=choice), indent=2))
                whole.replace(self._file(self._folder, circumstances))
        except OSError as error:
            logger.warning(
                "what was measured cannot be kept in %s, so the next start measures again; set MASKLET_CACHE to a "
                "folder that can be written to: %s",
                self._folder,
                error,
            )

    def __iter__(self) -> Iterator[tuple[Circumstances, Choice]]:
        """All choices that can be read."""
        files = sorted(self._folder.glob("*.json")) if self._folder is not None else []
        for record in filter(None, map(_read, files)):
            yield record.circumstances, record.choice

    @staticmethod
    def _file(folder: Path, circumstances: Circumstances) -> Path:
        name = hashlib.blake2b(circumstances.model_dump_json().encode(), digest_size=16).hexdigest()
        return folder / f"{name}.json"


def _read(path: Path) -> _Record | None:
    try:
        record = _RECORD.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        logger.warning("%s cannot be used, so it is measured again: %s", path, str(error).partition("\n")[0])
        return None
    unknown = set(record.choice.kernels.values()) - set(KERNELS)
    if unknown or record.choice.pictures < 1:
        logger.warning("%s names kernels that do not exist (%s); it is measured again", path, ", ".join(unknown))
        return None
    return record


def fingerprint(model: nn.Module) -> str:
    """A short text that differs for other configurations and, but for rare chance, for other weights."""
    digest = hashlib.blake2b(digest_size=16)
    plain = {name: value for name, value in vars(model).items() if isinstance(value, (bool, int, float, str))}
    digest.update(repr(sorted(plain.items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        # Sums and not all bytes: large models have a gigabyte of weights, and a start should not wait for that.
        digest.update(f"{name}{tuple(tensor.shape)}{float(tensor.sum(dtype=torch.float64))!r}".encode())
    return digest.hexdigest()


def driver_version() -> str:
    """Version of NVIDIA's driver, as the driver itself says; empty if there is none."""
    try:
        return Path("/proc/driver/nvidia/version").read_text().partition("\n")[0].strip()
    except OSError:
        return ""
