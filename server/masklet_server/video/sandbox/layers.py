"""Which layers of the decoders' sandbox this machine has."""

from __future__ import annotations

import functools
import logging
import subprocess
from pathlib import Path

from masklet.errors import FailedPrecondition
from masklet_media.confinement import describe, environment, python
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.control_group import HOW_TO_HAVE, GroupBounds, make_group

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 60


@functools.cache
def missing_layers() -> tuple[str, ...]:
    """The names of the layers that are missing, as in `masklet_media.confinement.LAYERS`. Found out once, in a process.

    Raises:
        FailedPrecondition: The process cannot be started, or dies.
    """
    try:
        done = subprocess.run(
            python("masklet_media.confinement.probe"),
            env=environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FailedPrecondition(f"the decoders' sandbox cannot be tried: {error}") from error
    return tuple(done.stdout.split())


def bound_together(bounds: GroupBounds) -> str:
    """Put all decoding processes into a control group, where one can be made.

    Only for a process that belongs to the server alone: it moves to another control group.

    Args:
        bounds: What all decoders may have together.

    Returns:
        What was done, for the log.
    """
    group = make_group(bounds)
    if group is None:
        return f"the decoders' sandbox lacks a control group (the kernel bounds all together); {HOW_TO_HAVE}"
    fork_server.put_into(group)
    return f"decoding processes are in the control group {group.folder}"


def check_hwaccel(hwaccel: str) -> None:
    """Log where a GPU is asked to decode and there is none; FFmpeg decodes then."""
    if hwaccel == "cuda" and not Path("/dev/nvidiactl").exists():
        logger.warning("hwaccel is cuda, but this machine has no NVIDIA GPU: FFmpeg decodes all video by itself")


def check_sandbox(*, strict: bool) -> None:
    """Log which layers are missing.

    Args:
        strict: Refuse instead.

    Raises:
        FailedPrecondition: A layer is missing, and `strict` is true.
    """
    missing = missing_layers()
    if missing and strict:
        raise FailedPrecondition(
            f"sandbox is strict, and this machine lacks {'; '.join(map(describe, missing))}; "
            "or set sandbox to best-effort"
        )
    for name in missing:
        logger.warning("the decoders' sandbox lacks %s", describe(name))
