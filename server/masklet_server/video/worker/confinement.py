"""Takes rights from the decoding process before it reads any input. Linux only; runs in that process."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CPU_GRACE_SECONDS = 5


def confine(*, memory_bytes: int, cpu_seconds: int) -> None:
    """Give up files, network and privileges, and limit memory and processor time.

    All modules must have been imported before: from here on no file and no socket can be opened, because the process
    gets no further file descriptor. FFmpeg reads its input through a descriptor that is open already.

    Args:
        memory_bytes: Limit on the address space.
        cpu_seconds: Limit on the processor time; 0: no limit.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Takes away the network, and root's capabilities, without which limits cannot be raised again. Many containers do
    # not permit this call; the limits below work without it.
    libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(5)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, memory_bytes)
    if cpu_seconds:
        _limit(resource.RLIMIT_CPU, cpu_seconds, grace=_CPU_GRACE_SECONDS)
    _limit(resource.RLIMIT_NOFILE, 0)


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _limit(kind: int, soft: int, grace: int = 0) -> None:
    """Lower a limit, or keep it if it is lower already."""
    _, ceiling = resource.getrlimit(kind)
    hard = soft + grace
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))
