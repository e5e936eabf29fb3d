"""``masklet cluster up --ray``: on a Ray cluster that somebody else has started, and where there is none."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import masklet
from tests.faults.history import History, violations
from tests.faults.streams import run
from tests.support.ray_cluster import TOKEN, ClusterUp, RayCluster, cluster_command
from tests.support.streams import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra cluster)"),
    pytest.mark.timeout(600),
]
NAME = f"tests-ray-{os.getpid()}"
SERVER = ("--device", "cpu", "--dtype", "float32", "--grace", "2")


def told_by_up(ray: str, token: str = TOKEN) -> str:
    """What `up` says on a cluster that it cannot use; it must say so soon."""
    begun = time.monotonic()
    words = ("up", "--name", f"{NAME}-e", "--ray", ray, "--trust-network", "--address", "127.0.0.1:0")
    told = cluster_command(*words, RAY_AUTH_TOKEN=token)
    assert time.monotonic() - begun < 60, "Ray itself would try for minutes"
    assert told.returncode in (1, 2)
    assert "starting workers" not in told.stderr
    return told.stderr


def test_an_address_where_nobody_listens() -> None:
    port = free_port()
    told = told_by_up(f"127.0.0.1:{port}")
    assert told.startswith("masklet cluster up: ray: nobody listens at ")
    assert f"127.0.0.1:{port} (Connection refused); start one there with `ray start --head`, or give" in told
    assert told.count("\n") == 1


def test_an_address_where_something_else_listens() -> None:
    with socket.create_server(("", 0)) as silent:
        told = told_by_up(f"127.0.0.1:{silent.getsockname()[1]}")
    assert "is no Ray head (it answers with DEADLINE_EXCEEDED); start one there" in told


@pytest.mark.parametrize("address", ["here", "ray://127.0.0.1:10001", "127.0.0.1:"])
def test_an_address_that_is_none(address: str) -> None:
    expected = (
        f"masklet cluster up: ray: is {address!r}, must be HOST:PORT of a Ray head, such as 10.0.0.1:6379, or auto\n"
    )
    assert told_by_up(address) == expected


@pytest.fixture(scope="module")
def ray() -> Iterator[RayCluster]:
    """A Ray cluster of one node, with room for one worker."""
    with RayCluster(1) as one:
        yield one


def test_a_ray_cluster_with_another_token(ray: RayCluster) -> None:
    told = told_by_up(ray.address, "cd" * 32)
    assert f"the Ray cluster at {ray.address} wants another token than this process has; put" in told


def runs(cluster: ClusterUp, number: int, act: Callable[[], object]) -> list[tuple[History, list[masklet.ResumeEvent]]]:
    """Run streams, and do something when each has seen some results."""
    histories = [History() for _ in range(number)]
    with ThreadPoolExecutor(number) as pool:
        streams = [pool.submit(run, "file", cluster.address, history=history) for history in histories]
        cluster.until(lambda: all(len(history.results) >= 3 for history in histories))
        act()
        return [stream.result() for stream in streams]


@pytest.mark.soak
def test_a_ray_cluster_whose_parts_die(ray: RayCluster, tmp_path: Path) -> None:
    """Its workers are found again by the same command; then one of its nodes dies; then the head's server dies."""
    options = ("--ray", ray.address, "--trust-network", *SERVER)
    token = {"RAY_AUTH_TOKEN": TOKEN}
    with ClusterUp(tmp_path / "first", NAME, *options, **token) as cluster:
        should, events = run("file", cluster.address)
        assert violations(should) == []
        assert events == []
        before = cluster.replicas()
    assert cluster.replicas() == before, "the workers of a Ray cluster outlive the command"

    raylet = ray.add_node(1)
    with ClusterUp(tmp_path / "second", NAME, *options, "--workers", "2", **token) as cluster:
        cluster.until(lambda: cluster.states() == ["serving"] * 2)
        assert set(before) < set(cluster.replicas()), "the worker that there was goes on"
        time.sleep(3)  # until the gateway has heard that nobody is busy, and gives each worker one of two streams
        found = runs(cluster, 2, lambda: os.kill(raylet, signal.SIGKILL))
        assert [violations(history, should) for history, _ in found] == [[], []]
        assert sorted(len(events) for _, events in found) == [0, 2], "one stream broke, and went on"
        assert cluster.replicas() == before

        (server,) = ray.processes("gcs_server")
        found = runs(cluster, 1, lambda: os.kill(server, signal.SIGKILL))
        assert [violations(history, should) for history, _ in found] == [[]]
        assert [events for _, events in found] == [[]], "streams need no head"
        history, events = run("file", cluster.address)
        assert (violations(history, should), events) == ([], []), "new ones go to the workers that there are"
