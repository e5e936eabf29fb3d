"""Streams over a network that breaks, to a server that dies: what the caller sees is what an undisturbed run gives."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.faults.history import History, violations
from tests.faults.proxy import Fault, Proxy
from tests.faults.streams import NOT_REPEATABLE, STREAMS, run

pytestmark = pytest.mark.slow


@functools.cache
def reference(name: str, address: str) -> History:
    """What an undisturbed run gives."""
    history, events = run(name, address)
    assert violations(history) == []
    assert events == []
    return history


@pytest.fixture
def proxy(nano_server: str) -> Iterator[Proxy]:
    with Proxy(nano_server) as one:
        yield one


@pytest.mark.parametrize("name", STREAMS)
def test_two_breaks_change_nothing(name: str, nano_server: str, proxy: Proxy) -> None:
    should = None if name in NOT_REPEATABLE else reference(name, nano_server)
    proxy.arm(Fault("reset", "down", 4_000))
    proxy.arm(Fault("reset", "up", 3_000))
    history, events = run(name, proxy.address)
    assert violations(history, should) == []
    assert proxy.made["reset"] == 2 or name in NOT_REPEATABLE
    assert [event.kind for event in events] == ["lost", "resumed"] * proxy.made["reset"]
    assert {event.how for event in events if event.frame_index is not None} == {None, "attached"}
