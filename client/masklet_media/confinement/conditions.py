"""System calls that are allowed only with certain arguments."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
"""What a filter can answer: SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO (plus the error), SECCOMP_RET_ALLOW."""
MAY_NOT = ERRNO | errno.EPERM
"""The call fails with EPERM, and the process goes on."""


@dataclass(frozen=True)
class Condition:
    """When a system call is allowed, and what happens otherwise.

    Attributes:
        numbers: On x86-64 and on aarch64; -1 where it does not exist.
        argument: Index of the argument that is looked at; its lower 32 bits are.
        equals: It must be one of these; empty: see the next three.
        has_bits: Or it must have one of these bits.
        lacks_bits: Or it must have none of these bits.
        masked: Or, with this mask, it must be this value.
        otherwise: The filter's answer if not.
    """

    numbers: tuple[int, int]
    argument: int
    equals: Sequence[int] = ()
    has_bits: int = 0
    lacks_bits: int = 0
    masked: tuple[int, int] | None = None
    otherwise: int = KILL_PROCESS
