"""A caller that does not want the rest: the server keeps nothing for it."""

from __future__ import annotations

import gc
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

import masklet
from masklet_server.embedded import EmbeddedServer
from tests.faults.proxy import Fault, Proxy
from tests.support.e2e import frames, lossless, prompt
from tests.support.streams import free_port

pytestmark = pytest.mark.slow
Leave = Callable[[masklet.Client], None]


class Server:
    """A server, and what its metrics say of sessions.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, address: str, metrics: str) -> None:
        self.address = address
        self._metrics = metrics

    def sessions(self) -> tuple[float, float]:
        """How many sessions run, and how many of them wait for their clients."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics") as answer:
            text = answer.read().decode()
        found = [re.search(rf"^masklet_{name} (\S+)$", text, re.MULTILINE) for name in ("sessions", "parked_sessions")]
        running, parked = (float(one[1]) for one in found if one is not None)
        return running, parked

    def is_empty_within(self, seconds: float) -> bool:
        """Whether no session is left after so many seconds at most."""
        deadline = time.monotonic() + seconds
        while self.sessions() != (0, 0):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    metrics = f"127.0.0.1:{free_port()}"
    with EmbeddedServer(device="cpu", dtype="float32", metrics_address=metrics, park_seconds=60) as address:
        yield Server(address, metrics)


def by_break(client: masklet.Client) -> None:
    for _ in client.track(lossless(), prompt("point")):
        break


def by_with(client: masklet.Client) -> None:
    with client.track(lossless(), prompt("point")) as tracking:
        next(tracking)


def by_cancel(client: masklet.Client) -> None:
    tracking = client.track(lossless(), prompt("point"))
    next(tracking)
    tracking.cancel()
    with pytest.raises(masklet.Cancelled):
        for _ in tracking:
            pass


def by_client(client: masklet.Client) -> None:
    tracking = client.track(lossless(), prompt("point"))
    next(tracking)
    client.close()
    with pytest.raises(masklet.Cancelled):
        for _ in tracking:
            pass


def by_live(client: masklet.Client) -> None:
    with client.live(delivery="lossless") as live:
        live.send(frames()[0])
        next(live)


def by_annotation(client: masklet.Client) -> None:
    with client.annotate(lossless()) as annotation:
        annotation.prompt(prompt("point"))


def by_timeout(client: masklet.Client) -> None:
    live = client.live(delivery="lossless", timeout=3.0)
    live.send(frames()[0])
    next(live)
    with pytest.raises(masklet.DeadlineExceeded, match="did not finish within 3 s"):
        next(live)


def by_closing_meanwhile(client: masklet.Client) -> None:
    """As Ctrl-C of the command line does: one thread cancels the stream, and another one closes the client at once."""
    tracking = client.track(lossless(), prompt("point"))
    next(tracking)
    cancelling = threading.Thread(target=tracking.cancel)
    cancelling.start()
    with pytest.raises(masklet.Cancelled):
        for _ in tracking:
            pass
    client.close()
    cancelling.join()


LEAVES = [by_break, by_with, by_cancel, by_client, by_live, by_annotation, by_timeout, by_closing_meanwhile]


@pytest.mark.parametrize("leave", LEAVES)
def test_nothing_waits_for_a_caller_that_has_left(server: Server, leave: Leave) -> None:
    with masklet.Client(server.address) as client:
        leave(client)
        gc.collect()
    assert server.is_empty_within(5)


def test_nothing_waits_for_a_caller_that_leaves_while_it_has_no_connection(server: Server) -> None:
    with Proxy(server.address) as proxy, masklet.Client(proxy.address) as client:
        events: list[masklet.ResumeEvent] = []

        def leave(event: masklet.ResumeEvent) -> None:
            events.append(event)
            if event.kind == "lost":
                tracking.cancel()

        proxy.arm(Fault("reset", "down", 4_000))
        tracking = client.track(lossless(), prompt("point"), on_resume=leave)
        with pytest.raises(masklet.Cancelled):
            for _ in tracking:
                pass
        assert [event.kind for event in events] == ["lost"]
        assert server.is_empty_within(5)


def test_a_caller_that_just_goes_leaves_its_session_waiting(server: Server) -> None:
    """Which shows that the tests above would see one."""
    with Proxy(server.address) as proxy, masklet.Client(proxy.address) as client:
        tracking = client.track(lossless(), prompt("point"), window=1)
        next(tracking)
        proxy.strike(Fault("refuse", seconds=20))
        deadline = time.monotonic() + 10
        while server.sessions()[1] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
