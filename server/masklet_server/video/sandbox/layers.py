"""Which layers of the decoders' sandbox this machine has."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys

from masklet.errors import FailedPrecondition
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.control_group import GroupBounds, make_group

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 60
LAYERS = {
    "namespaces": "user, network and IPC namespaces of its own",
    "landlock": "no file can be opened, made, renamed or deleted",
    "capabilities": "no capabilities",
    "seccomp": "only the system calls that decoding needs",
}
"""What each layer of `worker.confinement` does."""

CONTROL_GROUP = "control group"
"""A layer that bounds all decoders together. A strict sandbox does without it: memory is bounded in other ways, too."""

_FIXES = {
    "namespaces": "allow unprivileged user namespaces (in a container: a seccomp profile that permits unshare)",
    "landlock": "use Linux 5.13 or newer with landlock among its security modules",
    "capabilities": "allow the system call capset",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or aarch64",
    CONTROL_GROUP: "give the server a control group of its own (version 2; with systemd: Delegate=memory pids)",
}


@functools.cache
def missing_layers() -> tuple[str, ...]:
    """The names of the layers that are missing, as in `LAYERS`. Found out once, in a process.

    Raises:
        FailedPrecondition: The process cannot be started, or dies.
    """
    command = [sys.executable, "-s", "-S", "-m", "masklet_server.video.worker.confinement.probe"]
    try:
        done = subprocess.run(
            command,
            env=fork_server.environment(),
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


def describe(name: str) -> str:
    """What a missing layer would do, and how to get it."""
    does = LAYERS.get(name, "the kernel bounds memory and processes of all decoders together")
    return f"{name} ({does}); to have it, {_FIXES[name]}"


def bound_together(bounds: GroupBounds) -> None:
    """Put all decoding processes into a control group, where one can be made; the log says if not.

    Only for a process that belongs to the server alone: it moves to another control group.

    Args:
        bounds: What all decoders may have together.
    """
    group = make_group(bounds)
    if group is None:
        logger.info("the decoders' sandbox lacks %s", describe(CONTROL_GROUP))
        return
    fork_server.put_into(group)
    logger.info("decoding processes are in the control group %s", group.folder)


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
