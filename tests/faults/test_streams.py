"""Streams over a network that breaks, to a server that dies: what the caller sees is what an undisturbed run gives."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import masklet
from tests.faults.history import History, violations
from tests.faults.proxy import HARMLESS, KINDS, Fault, Kind, Proxy
from tests.faults.streams import FRAMES, NOT_REPEATABLE, STREAMS, run
from tests.support.e2e import lossless, prompt

pytestmark = pytest.mark.slow
# Like others as far as resuming goes, and not run by scripts/test, which has to be short.
LONG = ("folder", "packets", "latest")
PROGRAM = [sys.executable, "-c", "from masklet.cli import main; main()"]


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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] if name in LONG else []) for name in STREAMS]
)
def test_two_breaks_change_nothing(name: str, nano_server: str, proxy: Proxy) -> None:
    should = None if name in NOT_REPEATABLE else reference(name, nano_server)
    proxy.arm(Fault("reset", "down", 4_000))
    proxy.arm(Fault("reset", "up", 3_000))
    history, events = run(name, proxy.address)
    assert violations(history, should) == []
    assert proxy.made["reset"] == 2 or name in NOT_REPEATABLE
    assert [event.kind for event in events] == ["lost", "resumed"] * proxy.made["reset"]
    assert {event.how for event in events if event.frame_index is not None} <= {None, "attached"}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_network_does_nothing_changes(kind: Kind, nano_server: str, proxy: Proxy) -> None:
    proxy.arm(Fault(kind, "down", 3_000, 0.3))
    history, events = run("file", proxy.address)
    assert violations(history, reference("file", nano_server)) == []
    assert proxy.made[kind] == 1
    assert bool(events) == (kind not in HARMLESS)


def test_a_break_at_each_place_of_the_first_kilobytes(nano_server: str) -> None:
    """From the connection's first byte on, which is before the server has answered anything."""
    for after in (0, 300, 900):
        with Proxy(nano_server) as proxy:
            proxy.arm(Fault("reset", "down", after))
            history, _ = run("file", proxy.address)
        assert violations(history, reference("file", nano_server)) == [], after


def test_a_server_that_is_gone_ends_the_stream_by_name(nano_server: str) -> None:
    with Proxy(nano_server) as proxy:
        proxy.arm(Fault("refuse", "down", 4_000, seconds=30))
        begun = time.monotonic()
        history, events = run("file", proxy.address, resume_seconds=1.0)
    assert time.monotonic() - begun < 20
    assert history.end.startswith("Unavailable: the connection to ")
    assert "it could not be reached again for " in history.end
    assert violations(history, reference("file", nano_server), may_fail=True) == []
    assert [event.kind for event in events] == ["lost"]


def test_a_caller_may_not_want_it(proxy: Proxy) -> None:
    proxy.arm(Fault("reset", "down", 4_000))
    with (
        masklet.Client(proxy.address) as client,
        pytest.raises(masklet.Unavailable, match=r"^the connection to .* was lost"),
    ):
        for _ in client.track(lossless(), prompt("point"), resume=False):
            pass


async def test_asyncio_goes_on_as_well(nano_server: str, proxy: Proxy) -> None:
    proxy.arm(Fault("reset", "down", 4_000))
    events: list[masklet.ResumeEvent] = []
    loop = asyncio.get_running_loop()
    threads = set()

    def told(event: masklet.ResumeEvent) -> None:
        threads.add(threading.get_ident())
        assert asyncio.get_running_loop() is loop
        events.append(event)

    async with masklet.AsyncClient(proxy.address) as client:
        tracking = client.track(lossless(), prompt("point"), deterministic=True, on_resume=told)
        indices = [frame.frame_index async for frame in tracking]
    assert indices == list(range(FRAMES))
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert threads == {threading.get_ident()}


def test_the_command_line_goes_on_and_says_so(proxy: Proxy, tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mkv", tmp_path / "out.json"
    clip.write_bytes(lossless())
    command = [*PROGRAM, "track", str(clip), "--point", "96,96", "--json", str(out), "--server", proxy.address]
    proxy.arm(Fault("reset", "down", 4_000))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning: connection lost, trying for up to 120 s to go on (" in done.stderr
    assert "resumed at frame " in done.stderr
    assert done.stderr.count("connection lost") == 1, "not logged beside it"
    assert [frame["frame_index"] for frame in json.loads(out.read_text())["frames"]] == list(range(FRAMES))

    proxy.arm(Fault("reset", "down", 4_000))
    done = subprocess.run([*command, "--no-resume"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "error: the connection to " in done.stderr
