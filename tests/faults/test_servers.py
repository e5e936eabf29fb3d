"""A server that is killed, frozen, or asked to end, and started again: streams go on, or end by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

import masklet
from tests.faults.history import History, violations
from tests.faults.server import ServerProcess
from tests.faults.streams import run

pytestmark = pytest.mark.slow
Act = Callable[[ServerProcess], None]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--grace", "1") as one:
        yield one


def disturbed(name: str, server: ServerProcess, act: Act) -> tuple[History, list[masklet.ResumeEvent]]:
    """Run a stream, and do something to the server when the first results have come."""
    threads: list[threading.Thread] = []

    class Watched(History):
        def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
            super().add(result)
            if len(self.results) == 5:
                threads.append(threading.Thread(target=act, args=(server,)))
                threads[0].start()

    history, events = run(name, server.address, history=Watched())
    for thread in threads:
        thread.join(120)
    assert threads, "there were too few results"
    return history, events


def kill(server: ServerProcess) -> None:
    server.kill()
    server.start()


def terminate(server: ServerProcess) -> None:
    server.terminate()
    server.start()


def freeze(server: ServerProcess) -> None:
    server.freeze(1.0)


@pytest.mark.parametrize(
    ("name", "act"), [("file", terminate), pytest.param("corrected", kill, marks=pytest.mark.soak)]
)
def test_a_video_that_can_be_sent_again_survives_the_server(server: ServerProcess, name: str, act: Act) -> None:
    should, _ = run(name, server.address)
    assert violations(should) == []
    history, events = disturbed(name, server, act)
    assert violations(history, should) == []
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert events[1].how == "rewound"


def test_a_frozen_server_is_waited_for(server: ServerProcess) -> None:
    history, events = disturbed("file", server, freeze)
    assert violations(history) == []
    assert events == []
