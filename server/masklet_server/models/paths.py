"""Paths of model files: those that ship with masklet, sam2's configurations, and the cache of downloads."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from masklet.errors import FailedPrecondition, InvalidArgument, NotFound


def checkpoints_folder() -> Path:
    """Folder of the checkpoints that ship with masklet: in the installed package, or in the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "checkpoints"
    return installed if installed.is_dir() else package.parents[1] / "checkpoints"


def cache_folder() -> Path:
    """Folder of downloads: ``MASKLET_CACHE``, else ``masklet`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("MASKLET_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "masklet"


def repository_folder(repository: str) -> Path:
    """Folder for the files of a Hugging Face repository, inside the cache."""
    return cache_folder() / "hub" / repository.replace("/", "--")


def config_file(config: str) -> Path:
    """Path of a configuration file: beside the registry, at a given path, or inside the sam2 package.

    Raises:
        NotFound: The file is in none of these places.
    """
    candidates = [checkpoints_folder() / config, Path(config).expanduser().absolute()]
    sam2 = importlib.util.find_spec("sam2")
    if sam2 is not None:
        candidates += [Path(folder) / config for folder in sam2.submodule_search_locations or ()]
    for path in candidates:
        if path.is_file():
            return path
    missing = "" if sam2 else "; the sam2 package is not installed either"
    raise NotFound(f"there is no configuration {config!r}, neither as a path nor in the sam2 package{missing}")


def file_of_repository(repository: str, name: str, suffixes: tuple[str, ...]) -> Path:
    """The one file with one of these suffixes in a downloaded Hugging Face repository.

    Raises:
        FailedPrecondition: The repository has not been downloaded.
        InvalidArgument: There is no such file, or more than one.
    """
    folder = repository_folder(repository)
    if not folder.is_dir():
        raise FailedPrecondition(f"model {name} is not downloaded; fetch it with: masklet models download {name}")
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes and ".cache" not in path.parts)
    if len(files) == 1:
        return files[0]
    found = ", ".join(path.name for path in files) or "none"
    raise InvalidArgument.of(
        "model",
        f"{repository} must hold exactly one file of {' or '.join(suffixes)}, found: {found}; "
        "name the files yourself with NAME=CHECKPOINT:CONFIG",
    )
