"""An engine that runs out of memory, wherever it does: the stream ends by name, and the next one is as ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from masklet_server.embedded import EmbeddedServer
from masklet_server.engine.network.network import Network
from tests.faults.history import History, violations
from tests.faults.streams import run

pytestmark = pytest.mark.slow
STREAMS = ("file", "corrected", "annotation")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with EmbeddedServer(device="cpu", dtype="float32") as address:
        yield address


@pytest.fixture(scope="module")
def should(server: str) -> dict[str, History]:
    """What a client sees of each stream while there is memory."""
    found = {name: run(name, server)[0] for name in STREAMS}
    assert [violations(one) for one in found.values()] == [[]] * len(STREAMS)
    return found


@pytest.mark.parametrize(
    ("name", "function", "call"),
    [
        ("file", "encode_pixels", 1),
        ("file", "step", 5),
        pytest.param("file", "fill_holes", 12, marks=pytest.mark.soak),
        pytest.param("corrected", "encode_memory", 1, marks=pytest.mark.soak),
        ("corrected", "step", 9),
        ("annotation", "step", 4),
        pytest.param("annotation", "encode_memory", 2, marks=pytest.mark.soak),
        pytest.param("annotation", "encode_pixels", 3, marks=pytest.mark.soak),
    ],
)
def test_missing_memory_ends_a_stream_by_name(
    name: str, function: str, call: int, server: str, should: dict[str, History], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    usual = getattr(Network, function)

    def fails(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise torch.OutOfMemoryError("no memory left")
        return usual(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Network, function, staticmethod(fails) if function == "fill_holes" else fails)
        history, events = run(name, server)
    assert calls >= call, "it was not called so often"
    assert history.end.startswith("ResourceExhausted: ")
    assert "ran out of memory" in history.end
    assert violations(history, should[name], may_fail=True) == []
    assert events == [], "an error of the server is no break"
    again, _ = run(name, server)
    assert violations(again, should[name]) == []
