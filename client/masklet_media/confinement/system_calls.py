"""The system calls that are left to the decoding process: a seccomp filter, in the kernel's classic BPF.

What FFmpeg, Pillow and Python need to read open descriptors, compute in threads, and write to open descriptors is
allowed. What libraries try and can do without is answered with EPERM. Anything else ends the process with SIGSYS.

The filter is written here, and not by libseccomp, because it is short and that library is not everywhere.
See https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html and ``struct seccomp_data``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from masklet_media.confinement.conditions import ALLOW, ERRNO, KILL_PROCESS, MAY_NOT, Condition
from masklet_media.confinement.outside import Outside, allowed_calls, conditions

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
# BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_LOAD, _AND, _IS_EQUAL, _HAS_BITS, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_PROT_EXEC = 4
_CLONE_THREAD = 0x10000
_PR_SET_NAME, _PR_SET_VMA = 15, 0x53564D41
_F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = 1, 2, 3, 4

# The name of each system call with its numbers on x86-64 and on aarch64, -1 where it does not exist. The clocks are
# system calls only on machines whose clock cannot be read without one, as in some virtual machines.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "arch_prctl": (158, -1),
    "gettid": (186, 178),
    "time": (201, -1),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "set_robust_list": (273, 99),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
# Libraries look at files of the system, at terminals and at limits, and go on without.
_REFUSED = {
    "open": (2, -1),
    "stat": (4, -1),
    "lstat": (6, -1),
    "ioctl": (16, 29),
    "access": (21, -1),
    "uname": (63, 160),
    "getcwd": (79, 17),
    "readlink": (89, -1),
    "sysinfo": (99, 179),
    "openat": (257, 56),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "statx": (332, 291),
    "faccessat2": (439, 439),
}


_CONDITIONS = (
    Condition((9, 222), 2, lacks_bits=_PROT_EXEC),  # mmap
    Condition((10, 226), 2, lacks_bits=_PROT_EXEC),  # mprotect
    Condition((56, 220), 0, has_bits=_CLONE_THREAD),  # clone: threads, and no processes
    Condition((72, 25), 1, equals=(_F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL), otherwise=MAY_NOT),  # fcntl
    Condition((157, 167), 0, equals=(_PR_SET_NAME, _PR_SET_VMA), otherwise=MAY_NOT),  # prctl: names of threads, memory
    Condition((302, 261), 2, equals=(0,), otherwise=MAY_NOT),  # prlimit64: limits are read, and not set
)
_CLONE3 = 435  # its flags are in memory, which a filter cannot read: libraries then take clone
_TGKILL = (234, 131)


def leave_few(outside: Outside) -> bool:
    """Leave this process, which must have one thread, no other system calls; False where the kernel has no filters.

    Also False on processors whose numbers are not known here. ``no_new_privs`` must be set.

    Args:
        outside: What it may still reach.
    """
    program = _program(outside)
    if program is None:
        return False
    code = ctypes.create_string_buffer(b"".join(program))
    # struct sock_fprog: the number of instructions, padding, and their address.
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def _program(outside: Outside) -> list[bytes] | None:
    machines = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # AUDIT_ARCH_*
    if platform.machine() not in machines:
        return None
    column, architecture = machines[platform.machine()]
    program = [_load(_ARCHITECTURE_AT), _jump(_IS_EQUAL, architecture, 1, 0), _return(KILL_PROCESS), _load(_NUMBER_AT)]
    more = conditions(outside)
    allowed = {**_ALLOWED, **allowed_calls(outside)}
    for numbers in allowed.values():
        program += _answer(numbers[column], ALLOW)
    for condition in more:  # these come first: the first answer counts
        program += _checked(condition.numbers[column], condition)
    for numbers in _REFUSED.values():
        program += _answer(numbers[column], MAY_NOT)
    program += _answer(_CLONE3, ERRNO | errno.ENOSYS)
    # abort() sends a signal to its own process.
    own = Condition(_TGKILL, 0, equals=(os.getpid(),))
    for condition in (*_CONDITIONS, own):
        program += _checked(condition.numbers[column], condition)
    # What NVIDIA's driver asks for beside that is not known. If it is refused, FFmpeg decodes without the GPU.
    return [*program, _return(MAY_NOT if outside.gpu else KILL_PROCESS)]


def _answer(number: int, answer: int) -> list[bytes]:
    return [] if number < 0 else [_jump(_IS_EQUAL, number, 0, 1), _return(answer)]


def _checked(number: int, condition: Condition) -> list[bytes]:
    checks = [_load(_ARGUMENTS_AT + 8 * condition.argument)]
    for value in condition.equals:
        checks += [_jump(_IS_EQUAL, value, 0, 1), _return(ALLOW)]
    if condition.has_bits:
        checks += [_jump(_HAS_BITS, condition.has_bits, 0, 1), _return(ALLOW)]
    if condition.lacks_bits:
        checks += [_jump(_HAS_BITS, condition.lacks_bits, 1, 0), _return(ALLOW)]
    if condition.masked:
        mask, value = condition.masked
        checks += [struct.pack("=HBBI", _AND, 0, 0, mask), _jump(_IS_EQUAL, value, 0, 1), _return(ALLOW)]
    checks.append(_return(condition.otherwise))
    return [_jump(_IS_EQUAL, number, 0, len(checks)), *checks]


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _jump(kind: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", kind, if_true, if_false, value)


def _return(answer: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, answer)
