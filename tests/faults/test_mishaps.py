"""What happens to servers beside networks and ends: streams go on, or end by name, and the server serves on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.faults import mishaps
from tests.faults.history import violations
from tests.faults.proxy import Fault, Proxy
from tests.faults.server import ServerProcess
from tests.faults.streams import run
from tests.faults.test_restoring import disturbed, reference
from tests.support.processes import decoders

pytestmark = pytest.mark.slow
# A program whose stream takes its time, and that is killed in the middle.
CLIENT = """
import sys, time, masklet
from tests.support.e2e import lossless, prompt
with masklet.Client(sys.argv[1]) as client:
    for frame in client.track(lossless(), prompt("point"), window=2):
        print("sent", flush=True)
        time.sleep(60)
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[ServerProcess]:
    arguments = ("--grace", "1", "--state-dir", str(state), "--snapshot-frames", "2", "--park-seconds", "2")
    with ServerProcess(*arguments) as one:
        yield one


def test_without_a_disk_nothing_is_lost(server: ServerProcess, state: Path) -> None:
    should = reference("live", server.address)
    act = threading.Thread(target=mishaps.without_disk, args=(state, 1.0))
    history, events = disturbed("live", server.address, act, at=4)
    assert violations(history, should) == []
    assert events == []


def test_without_descriptors_streams_that_run_go_on(server: ServerProcess) -> None:
    should = reference("packets", server.address)
    act = threading.Thread(target=mishaps.without_descriptors, args=(server, 1.0))
    history, events = disturbed("packets", server.address, act, at=4)
    assert violations(history, should) == []
    assert events == []
    assert violations(run("file", server.address)[0]) == [], "and new ones begin when there are some again"


def test_a_killed_decoder_ends_its_stream_by_name(server: ServerProcess) -> None:
    should = reference("live", server.address)
    act = threading.Thread(target=mishaps.kill_decoders, args=(server,))
    history, _ = disturbed("live", server.address, act, at=3)
    assert violations(history, should, may_fail=True) == []
    assert violations(run("live", server.address)[0], should) == []


def test_forged_and_expired_tokens_find_nothing(server: ServerProcess) -> None:
    assert mishaps.knock(server.address, mishaps.forged_token()) is grpc.StatusCode.NOT_FOUND
    assert mishaps.knock(server.address, "no token") is grpc.StatusCode.NOT_FOUND
    assert violations(run("file", server.address)[0]) == []


def test_of_two_calls_that_resume_at_once_one_has_the_session(server: ServerProcess) -> None:
    aborted, cancelled = grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED
    assert mishaps.twins(server.address) == [aborted, aborted, cancelled]


def test_a_clock_that_jumps_changes_nothing(server: ServerProcess, state: Path) -> None:
    """The files look old; then the server dies, and the one after it goes on from them."""

    def jump() -> None:
        mishaps.jump_clock(state)
        server.kill()
        mishaps.jump_clock(state)
        server.start()

    should = reference("live", server.address)
    history, events = disturbed("live", server.address, threading.Thread(target=jump))
    assert violations(history, should) == []
    assert [event.how for event in events] == [None, "restored"]


def test_a_client_that_is_away_for_too_long_goes_on_from_a_snapshot(server: ServerProcess) -> None:
    """Its session has expired at the server, which forgets it; not so the snapshots."""
    should = reference("live", server.address)
    with Proxy(server.address) as proxy:
        act = threading.Thread(target=proxy.strike, args=(Fault("refuse", seconds=3.0),))
        history, events = disturbed("live", proxy.address, act)
    assert violations(history, should) == []
    assert [event.how for event in events] == [None, "restored"]


def test_a_killed_client_leaves_nothing(server: ServerProcess) -> None:
    with subprocess.Popen([sys.executable, "-c", CLIENT, server.address], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "sent\n"
        client.kill()
    deadline = time.monotonic() + 30
    while decoders(server.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not decoders(server.pid), "its session ended park_seconds later"
