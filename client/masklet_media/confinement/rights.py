"""Takes rights from the decoding process before it reads any input. Linux only; runs in that process."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import struct

from masklet_media.confinement import system_calls
from masklet_media.confinement.layers import CAPABILITIES, LANDLOCK, NAMESPACES, SECCOMP
from masklet_media.confinement.outside import DESCRIPTORS, Outside

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWIPC = 0x08000000
_CPU_GRACE_SECONDS = 5
_THREADS = 32
# The same numbers on every processor.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _IOCTL_DEVICE = 1 << 1, 1 << 2, 1 << 15
_LANDLOCK_CREATE_RULESET_VERSION = 1
# All rights over files, by the version of the interface: the first has 13 of them, and others came with later ones.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_MOST_FILE_RIGHTS = 16
_CAPABILITY_VERSION_3 = 0x20080522


_NOTHING = Outside()


def confine(*, memory_bytes: int, cpu_seconds: int, nice: int = 5, outside: Outside = _NOTHING) -> list[str]:
    """Give up files, network and privileges, limit memory and processor time, and leave few system calls.

    The process must have one thread. All modules must have been imported before: from here on no file and no socket can
    be opened, but for what `outside` names. FFmpeg reads its input through a descriptor that is open already.

    Args:
        memory_bytes: Limit on the address space; where a GPU is left, on private memory that can be written to.
        cpu_seconds: Limit on the processor time; 0: no limit.
        nice: By how much others on the processor go first.
        outside: What the process may still reach, where it reads a camera or a stream; usually nothing.

    Returns:
        The layers, of `LAYERS`, that are not possible here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Many containers do not permit this call.
    own = _CLONE_NEWUSER | _CLONE_NEWIPC | (0 if outside.network else _CLONE_NEWNET)
    layers = {NAMESPACES: libc.unshare(own) == 0}
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(libc, _PR_SET_DUMPABLE, 0)  # other processes of this user cannot read a client's video in its memory
    os.nice(nice)
    layers[LANDLOCK] = _close_file_system(libc, outside)
    layers[CAPABILITIES] = _drop_capabilities(libc)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    # NVIDIA's driver reserves more addresses than any machine has memory. There only what is written to counts.
    _limit(resource.RLIMIT_DATA if outside.gpu else resource.RLIMIT_AS, memory_bytes)
    if cpu_seconds:
        _limit(resource.RLIMIT_CPU, cpu_seconds, grace=_CPU_GRACE_SECONDS)
    _limit(resource.RLIMIT_NOFILE, 0 if outside.is_nothing else DESCRIPTORS)
    if layers[NAMESPACES] and _counts_by_namespace():
        _limit(resource.RLIMIT_NPROC, _THREADS + 4 * (os.cpu_count() or 1))
    layers[SECCOMP] = system_calls.leave_few(outside)
    return [name for name, is_there in layers.items() if not is_there]


def _counts_by_namespace() -> bool:
    """Whether the kernel counts processes and threads for each user namespace; before 5.14, for the whole user."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (5, 14)


def _close_file_system(libc: ctypes.CDLL, outside: Outside) -> bool:
    """Handle every right over files by Landlock, and give back only those that what is outside needs."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return False
    rights = (1 << _FILE_RIGHTS.get(version, _MOST_FILE_RIGHTS)) - 1
    attributes = ctypes.create_string_buffer(struct.pack("=Q", rights), 8)
    rules = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, 8, 0)
    if rules < 0:
        return False
    for path in outside.readable:
        _permit(libc, rules, path, _READ_FILE)
    for device in outside.devices:
        _permit(libc, rules, device, (_READ_FILE | _WRITE_FILE | _IOCTL_DEVICE) & rights)
    done = bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0) == 0)
    os.close(rules)
    return done


def _permit(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    """Give back rights over a file, or over all that is in a folder."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # struct landlock_path_beneath_attr, which is packed.
        attributes = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor), 12)
        if libc.syscall(_LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, attributes, 0) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule failed for {path}")
    finally:
        os.close(descriptor)


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Give up all capabilities; without them, a process of root cannot raise its limits either."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    none = ctypes.create_string_buffer(bytes(24), 24)
    return bool(libc.capset(header, none) == 0)


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
