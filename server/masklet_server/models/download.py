"""Downloading checkpoints: resumed after a break, verified, and put in place only when complete."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from masklet.errors import DataLoss, FailedPrecondition, NotFound, Unavailable
from masklet_server.models import paths
from masklet_server.models.registry import ModelSpec
from masklet_server.models.transfer import ProgressCallback, Transfer

_BLOCK = 1024 * 1024
_HUB_PATTERNS = ["*.yaml", "*.yml", "*.pt", "*.pth", "*.safetensors"]


def download(spec: ModelSpec, *, progress: ProgressCallback | None = None) -> Path:
    """Make sure that a model's checkpoint is on this machine, and return its path.

    Nothing is downloaded if it is there already. Several processes may ask for the same model at once: one downloads,
    the others wait. A broken download goes on where it stopped, in this call and in the next one.

    Args:
        spec: Which model.
        progress: Called with the bytes so far and the bytes of the whole file, 0 if unknown. Not called for a
            repository of the hub, whose own client shows the progress.

    Raises:
        Unavailable: The server cannot be reached, or refuses.
        DataLoss: The downloaded file is not the one that the registry names; it has been deleted.
        NotFound: There is no such repository on the hub.
        ResourceExhausted: The disk is full.
        FailedPrecondition: The cache folder cannot be written to.
    """
    if not spec.is_downloadable:
        return spec.checkpoint_path()
    if spec.is_hub_repository:
        return _download_repository(spec)
    target = spec.checkpoint_path()
    with _exclusive(target):
        if not _is_here(spec, target):
            part = target.with_name(target.name + ".part")
            if not spec.sha256:
                part.unlink(missing_ok=True)  # without a checksum, its beginning could belong to an older file
            _download_from_any(spec, part, progress)
            if spec.sha256:
                _check(spec, part, remove=True)
            part.replace(target)
    return target


def verify(spec: ModelSpec) -> bool:
    """Read a model's checkpoint and compare its checksum.

    Returns:
        True if the checksum is right, False if none is known for this model.

    Raises:
        FailedPrecondition: The checkpoint is not on this machine.
        DataLoss: Its checksum is not the one that the registry names.
    """
    path = spec.checkpoint_path()
    if not path.is_file():
        raise FailedPrecondition(
            f"model {spec.name} is not at {path}; fetch it with: masklet models download {spec.name}"
        )
    if not spec.sha256:
        return False
    _check(spec, path, remove=False)
    return True


def sources(spec: ModelSpec) -> tuple[str, ...]:
    """The addresses of a checkpoint, in the order in which they are tried."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    hub = f"{endpoint}/{spec.hub}/resolve/main/{spec.checkpoint}" if spec.hub else ""
    return tuple(url for url in (spec.url, hub) if url)


@contextlib.contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    """Lock `target`, so that one process at a time writes it; its folder is made if necessary."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock").open("a")
    except OSError as error:
        raise FailedPrecondition(
            f"cannot write to the cache folder {target.parent}: {error.strerror}; set MASKLET_CACHE to another one"
        ) from error
    with lock:  # never deleted: another process may be waiting on this very file
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_here(spec: ModelSpec, target: Path) -> bool:
    return target.is_file() and spec.bytes in (0, target.stat().st_size)


def _check(spec: ModelSpec, path: Path, *, remove: bool) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() == spec.sha256:
        return
    if remove:
        path.unlink()
        advice = "it has been deleted; try again"
    elif spec.is_downloadable:
        advice = f"delete it and run: masklet models download {spec.name}"
    else:
        advice = "it is part of masklet: install masklet again"
    raise DataLoss(f"{path} has the sha256 {digest.hexdigest()}, {spec.name} needs {spec.sha256}; {advice}")


def _download_from_any(spec: ModelSpec, part: Path, progress: ProgressCallback | None) -> None:
    failures = []
    for url in sources(spec):
        failure = _failure_of(Transfer(url, part, spec.bytes, progress))
        if failure is None:
            return
        failures.append(str(failure))
    raise Unavailable(f"model {spec.name} cannot be downloaded: {'; '.join(failures)}")


def _failure_of(transfer: Transfer) -> Unavailable | None:
    try:
        transfer.run()
    except Unavailable as error:
        return error
    return None


def _download_repository(spec: ModelSpec) -> Path:
    """Download configuration and checkpoint of a repository of the hub, with the hub's own client."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    folder = paths.repository_folder(spec.hub)
    with _exclusive(folder):
        if not folder.is_dir():
            part = folder.with_name(folder.name + ".part")
            try:
                snapshot_download(
                    spec.hub, local_dir=part, allow_patterns=_HUB_PATTERNS, endpoint=os.environ.get("HF_ENDPOINT")
                )
            except RepositoryNotFoundError as error:
                raise NotFound(
                    f"Hugging Face has no repository {spec.hub}, or it needs a token: set HF_TOKEN"
                ) from error
            except Exception as error:  # the client also raises errors of its HTTP library
                raise Unavailable(f"{spec.hub} cannot be fetched from Hugging Face: {error}") from error
            part.replace(folder)
    return spec.checkpoint_path()
