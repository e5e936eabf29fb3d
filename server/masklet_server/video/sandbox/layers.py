"""Which layers of the decoders' sandbox this machine has."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys

from masklet.errors import FailedPrecondition
from masklet_server.video.sandbox import fork_server

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 60
LAYERS = {
    "namespaces": "user, network and IPC namespaces of its own",
    "landlock": "no file can be opened, made, renamed or deleted",
    "capabilities": "no capabilities",
    "seccomp": "only the system calls that decoding needs",
}
"""What each layer of `worker.confinement` does."""

_FIXES = {
    "namespaces": "allow unprivileged user namespaces (in a container: a seccomp profile that permits unshare)",
    "landlock": "use Linux 5.13 or newer with landlock among its security modules",
    "capabilities": "allow the system call capset",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or aarch64",
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
    return f"{name} ({LAYERS[name]}); to have it, {_FIXES[name]}"


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
