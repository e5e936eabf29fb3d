"""A server with a state directory is killed: streams go on, there or at another server, with the same masks."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import masklet
from tests.faults.history import History, violations
from tests.faults.proxy import Proxy
from tests.faults.server import ServerProcess
from tests.faults.streams import run

pytestmark = pytest.mark.slow
# Like others as far as snapshots go, and not run by scripts/test, which has to be short.
LONG = ("live", "generator", "corrected", "latest")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--grace", "1", "--state-dir", str(state), "--snapshot-frames", "4") as one:
        yield one


@pytest.fixture(scope="module")
def another(state: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--grace", "1", "--state-dir", str(state), "--snapshot-frames", "4") as one:
        yield one


@functools.cache
def reference(name: str, address: str) -> History:
    """What a client sees of a stream without faults."""
    history, _ = run(name, address)
    assert violations(history) == []
    return history


class Watched(History):
    """Does something when so many results have come."""

    def __init__(self, at: int, act: threading.Thread) -> None:
        super().__init__()
        self._at, self.act = at, act

    def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
        super().add(result)
        if len(self.results) == self._at:
            self.act.start()


def disturbed(
    name: str, address: str, act: threading.Thread, at: int = 11
) -> tuple[History, list[masklet.ResumeEvent]]:
    history, events = run(name, address, history=Watched(at, act))
    assert act.ident is not None, "there were too few results"
    act.join(120)
    return history, events


def kill(server: ServerProcess) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] if name in LONG else [])
        for name in ("packets", "live", "file", "generator", "corrected", "latest")
    ],
)
def test_a_killed_server_goes_on_when_it_is_started_again(name: str, server: ServerProcess, state: Path) -> None:
    should = reference(name, server.address)
    before = set(state.rglob("*.snapshot"))

    def die() -> None:
        deadline = time.monotonic() + 10
        while set(state.rglob("*.snapshot")) <= before and time.monotonic() < deadline:
            time.sleep(0.01)  # only a few frames of the latest ones are tracked before the first one is stored
        kill(server)

    act = threading.Thread(target=die)
    history, events = disturbed(name, server.address, act, at=1 if name == "latest" else 11)
    assert violations(history, None if name == "latest" else should) == []
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert events[1].how == "restored"


def test_another_server_goes_on(server: ServerProcess, another: ServerProcess) -> None:
    """A camera's packets, which nobody can send again from the start."""
    should = reference("packets", server.address)
    with Proxy(server.address) as proxy:

        def die() -> None:
            proxy.target = another.address
            server.kill()

        history, events = disturbed("packets", proxy.address, threading.Thread(target=die))
    server.start()
    assert violations(history, should) == []
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert events[1].how == "restored"


def test_a_server_that_is_asked_to_end_leaves_its_streams_to_the_next(server: ServerProcess) -> None:
    def ask() -> None:
        server.terminate()
        server.start()

    should = reference("live", server.address)
    history, events = disturbed("live", server.address, threading.Thread(target=ask))
    assert violations(history, should) == []
    assert {event.how for event in events if event.kind == "resumed"} <= {"restored"}


def test_a_damaged_store_costs_no_stream(server: ServerProcess, state: Path) -> None:
    """Each snapshot is damaged as soon as the server has died: a file begins anew."""

    def die() -> None:
        server.kill()
        for path in state.rglob("*.snapshot"):
            path.write_bytes(path.read_bytes()[:100])
        server.start()

    should = reference("file", server.address)
    history, events = disturbed("file", server.address, threading.Thread(target=die))
    assert violations(history, should) == []
    assert events[-1].how == "rewound"
    assert "is passed over" in server.log()
