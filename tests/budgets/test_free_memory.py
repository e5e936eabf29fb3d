"""Memory that was used goes back to the system."""

from __future__ import annotations

import ctypes

import pytest

from masklet_server.budgets.free_memory import FreeMemory, free_bytes, give_back

MIB = 1024**2


def after(*looks: int, usual: int = 0) -> list[bool]:
    """What is said at each look at so much free memory."""
    values = iter([usual, *looks])
    free = FreeMemory(lambda: next(values))
    return [free.is_too_much() for _ in looks]


def test_a_peak_is_over_when_memory_has_been_free_for_some_time() -> None:
    assert after(1000 * MIB, 1000 * MIB, 1000 * MIB, 1000 * MIB) == [False, False, True, True]
    assert after(1000 * MIB, 1000 * MIB, 100 * MIB, 1000 * MIB) == [False] * 4


def test_what_always_looks_free_does_not_count() -> None:
    assert after(*[1000 * MIB] * 3, usual=900 * MIB) == [False] * 3


def test_the_measure_begins_anew_when_memory_was_given_back() -> None:
    values = iter([0, *[1000 * MIB] * 3, 950 * MIB, *[1000 * MIB] * 3])
    free = FreeMemory(lambda: next(values))
    assert [free.is_too_much() for _ in range(3)][-1]
    free.given_back()
    assert [free.is_too_much() for _ in range(3)] == [False] * 3


def test_freed_memory_is_seen_and_given_back() -> None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library does not tell how much memory is in use")
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    give_back(collect=True)
    before = free_bytes()
    # Blocks too small to be mapped each for itself; every second one stays, so that the heap cannot just shrink.
    blocks = [libc.malloc(64 * 1024) for _ in range(4000)]
    for block in blocks:
        ctypes.memset(block, 1, 64 * 1024)
    for block in blocks[::2]:
        libc.free(block)
    freed = free_bytes() - before
    assert freed > 100 * MIB
    give_back(collect=False)
    assert free_bytes() - before < freed - 100 * MIB
    for block in blocks[1::2]:
        libc.free(block)
    give_back(collect=False)
