"""Workers behind a gateway that die, freeze, or stop: clients go on elsewhere, and see each result once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import masklet
from masklet_cluster.gateway.options import GatewayOptions
from tests.faults.history import History, violations
from tests.faults.server import ServerProcess
from tests.faults.streams import run
from tests.support.gateway import GatewayProcess, GatewayThread

pytestmark = pytest.mark.slow

Act = Callable[[ServerProcess], None]
TIMEOUT_SECONDS = 3.0


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ServerProcess]]:
    arguments = ("--trust-gateway", "--grace", "1")
    with ServerProcess(*arguments) as one, ServerProcess(*arguments) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def gateway(servers: list[ServerProcess]) -> Iterator[GatewayThread]:
    options = GatewayOptions(direct=True)
    with GatewayThread([one.address for one in servers], TIMEOUT_SECONDS, options) as one:
        yield one


@pytest.fixture(scope="module")
def should(servers: list[ServerProcess]) -> History:
    """What a client sees of the stream without faults."""
    history, _ = run("file", servers[0].address)
    assert violations(history) == []
    return history


def busy(servers: list[ServerProcess], gateway: GatewayThread) -> ServerProcess:
    """The worker that has a stream."""
    (name,) = [one.name for one in gateway.placement.workers() if one.streams]
    return next(one for one in servers if one.address == name)


def disturbed(
    servers: list[ServerProcess],
    gateway: GatewayThread,
    act: Act,
    stream: str = "file",
    *,
    direct: bool = False,
) -> tuple[History, list[masklet.ResumeEvent], float]:
    """Run a stream, do something to its worker in the middle; also how long the next result then took."""
    threads: list[threading.Thread] = []
    times: list[float] = []

    class Watched(History):
        def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
            super().add(result)
            times.append(time.monotonic())
            if len(self.results) == 5:
                threads.append(threading.Thread(target=act, args=(busy(servers, gateway),)))
                threads[0].start()

    history, events = run(stream, gateway.address, history=Watched(), direct=direct)
    for thread in threads:
        thread.join(120)
    assert threads, "there were too few results"
    return history, events, max(two - one for one, two in itertools.pairwise(times))


def all_serve(gateway: GatewayThread) -> None:
    deadline = time.monotonic() + 20
    while any(one.state != "serving" for one in gateway.placement.workers()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill(server: ServerProcess) -> None:
    server.kill()


def terminate(server: ServerProcess) -> None:
    server.terminate()


def freeze(server: ServerProcess) -> None:
    server.freeze(12.0)


@pytest.mark.parametrize("act", [kill, terminate, freeze])
def test_a_stream_goes_on_at_another_worker(
    act: Act, servers: list[ServerProcess], gateway: GatewayThread, should: History
) -> None:
    all_serve(gateway)
    history, events, longest = disturbed(servers, gateway, act)
    assert violations(history, should) == []
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert events[1].how == "rewound"
    assert longest < 11.0, "a frozen worker is not waited for"
    for server in servers:
        if not server.is_running:
            server.start()
    all_serve(gateway)


def test_work_on_request_goes_on_at_another_worker(servers: list[ServerProcess], gateway: GatewayThread) -> None:
    """The client repeats its requests there."""
    all_serve(gateway)
    should, _ = run("annotation", gateway.address)
    history, events, _ = disturbed(servers, gateway, kill, "annotation")
    assert violations(history, should) == []
    assert [(event.kind, event.how) for event in events] == [("lost", None), ("resumed", "rewound")]
    for server in servers:
        if not server.is_running:
            server.start()
    all_serve(gateway)


@pytest.mark.parametrize("act", [kill, pytest.param(freeze, marks=pytest.mark.soak)])
def test_a_direct_stream_goes_on_at_another_worker(
    act: Act, servers: list[ServerProcess], gateway: GatewayThread, should: History
) -> None:
    all_serve(gateway)
    history, events, longest = disturbed(servers, gateway, act, direct=True)
    assert violations(history, should) == []
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert longest < 11.0
    for server in servers:
        if not server.is_running:
            server.start()
    all_serve(gateway)


def test_a_direct_stream_needs_no_gateway_once_it_runs(servers: list[ServerProcess], should: History) -> None:
    gateway = GatewayThread([one.address for one in servers], options=GatewayOptions(direct=True))
    gateway.__enter__()

    def stop(_: ServerProcess) -> None:
        gateway.__exit__()

    history, events, _ = disturbed(servers, gateway, stop, direct=True)
    assert violations(history, should) == []
    assert events == []


def test_a_client_that_may_go_directly_need_not(servers: list[ServerProcess], should: History) -> None:
    """A gateway that tells no addresses, and a server that is no gateway."""
    with GatewayThread([one.address for one in servers]) as gateway:
        for address in (gateway.address, servers[0].address):
            history, events = run("file", address, direct=True)
            assert violations(history, should) == []
            assert events == []


def test_a_stream_goes_back_to_the_worker_that_has_it(
    servers: list[ServerProcess], gateway: GatewayThread, should: History
) -> None:
    """The gateway itself is gone for a moment; another one in its place knows nothing but what the token says."""
    from tests.faults.proxy import Fault, Proxy

    all_serve(gateway)
    with GatewayThread([one.address for one in reversed(servers)]) as other, Proxy(gateway.address) as proxy:

        def move(_: ServerProcess) -> None:
            proxy.target = other.address
            proxy.strike(Fault("reset"))

        history, events, _ = disturbed(servers, GatewayAt(proxy.address, gateway), move)
    assert violations(history, should) == []
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert events[1].how == "attached"


def test_a_gateway_dies(servers: list[ServerProcess], should: History, tmp_path: Path) -> None:
    """A real one (SIGKILL). Behind the same address, another one takes its place, and knows nothing of the stream."""
    from tests.faults.proxy import Proxy

    addresses = [one.address for one in servers]
    with (
        GatewayProcess(addresses, tmp_path / "one") as one,
        GatewayProcess(addresses[::-1], tmp_path / "two") as two,
        Proxy(one.address) as proxy,
    ):

        class Watched(History):
            def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
                super().add(result)
                if len(self.results) == 5:
                    proxy.target = two.address
                    one.kill()

        history, events = run("file", proxy.address, history=Watched())
    assert violations(history, should) == []
    assert [(event.kind, event.how) for event in events] == [("lost", None), ("resumed", "attached")]


class GatewayAt(GatewayThread):
    """A gateway that is reached at another address."""

    def __init__(self, address: str, gateway: GatewayThread) -> None:
        self.address = address
        self.placement = gateway.placement


def test_a_worker_that_dies_before_it_has_answered_is_not_noticed(
    servers: list[ServerProcess], should: History
) -> None:
    """The gateway has not heard yet that one of its workers is gone."""
    with GatewayThread([one.address for one in servers], timeout_seconds=30.0) as one:
        all_serve(one)
        servers[0].kill()
        try:
            for _ in range(2):
                history, events = run("file", one.address)
                assert violations(history, should) == []
                assert events == []
        finally:
            servers[0].start()


def test_what_cannot_be_sent_again_goes_on_from_a_snapshot(tmp_path: Path) -> None:
    """Workers that share a folder for snapshots: no client needs the worker that has died."""
    arguments = ("--trust-gateway", "--state-dir", str(tmp_path), "--snapshot-frames", "4")
    with (
        ServerProcess(*arguments) as one,
        ServerProcess(*arguments) as two,
        GatewayThread([one.address, two.address], TIMEOUT_SECONDS) as gateway,
    ):
        all_serve(gateway)
        should, _ = run("live", one.address)
        history, events, _ = disturbed([one, two], gateway, kill, "live")
        assert violations(history, should) == []
        assert [event.kind for event in events] == ["lost", "resumed"]
        assert events[1].how == "restored"
