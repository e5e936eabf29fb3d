"""The benchmark of a server's memory, with little load: what a peak took is given back."""

from __future__ import annotations

import pytest

from benchmarks import idle_memory


@pytest.mark.slow
def test_an_idle_server_has_what_it_had_at_the_start() -> None:
    found = idle_memory.measure(streams=2, frames=4, wait=5.0)
    assert found.start < found.peak
    assert found.idle < found.start + 64 * idle_memory.MIB
    assert found.idle < found.peak
    assert found.beside_a_stream < found.peak + 128 * idle_memory.MIB
