"""``masklet cluster`` with the real Ray: workers that are killed, and that come and go, while clients track."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import masklet
from masklet_cluster.cli.state import ClusterState
from tests.faults.history import History, violations
from tests.faults.streams import run
from tests.support.processes import descendants
from tests.support.ray_cluster import PROGRAM, ClusterUp, cluster_command, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra cluster)"),
    pytest.mark.timeout(600),
]

NAME = f"tests-{os.getpid()}"
STREAMS = 2
ARGUMENTS = ("--device", "cpu", "--dtype", "float32", "--grace", "2", "--park-seconds", "60", "--direct")


def test_what_is_wrong_is_said_before_ray_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = cluster_command("up", "--name", f"{NAME}-a", "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert told.returncode == 1
    assert "Address already in use; stop the program that uses it" in told.stderr
    assert "starting" not in told.stderr


def test_a_cluster_that_cannot_be_scaled_says_why() -> None:
    with ClusterState.held(f"{NAME}-b", "127.0.0.1:1", "", 1) as state:
        told = cluster_command("scale", "2", "--name", f"{NAME}-b")
        assert (told.returncode, told.stdout) == (
            1,
            f"cluster {NAME}-b is still starting; try again when `masklet cluster status` says up\n",
        )
        state.max_workers = 4
        state.are_up()
        told = cluster_command("scale", "2", "--name", f"{NAME}-b")
        assert told.returncode == 1
        assert "has --max-workers 4: it changes the number of workers itself" in told.stdout


def test_a_state_that_is_half_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ClusterState.held("one", "127.0.0.1:1", "", 1) as state:
        (file,) = tmp_path.glob("*/cluster-one.json")
        whole = file.read_text()
        file.write_text(whole[:10])
        threading.Timer(0.3, file.write_text, [whole]).start()
        assert ClusterState.running("one") == state
        file.write_text("")
        with pytest.raises(masklet.DataLoss, match=r"cluster-one\.json is damaged"):
            ClusterState.running("one")


def test_workers_that_cannot_start_are_told_with_the_reason() -> None:
    told = cluster_command("up", "--name", f"{NAME}-d", "--address", "127.0.0.1:0", "--model", "nope")
    assert told.returncode == 1
    assert "masklet cluster up: the workers do not start: " in told.stderr
    assert "there is no model 'nope'; known models: nano" in told.stderr
    assert "Traceback" not in told.stderr


def test_sigterm_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    name = f"{NAME}-c"
    with (tmp_path / "log").open("w") as file:
        process = subprocess.Popen(
            [*PROGRAM, "up", "--name", name, "--address", "127.0.0.1:0"],
            stdout=file, stderr=subprocess.STDOUT, env=environment(), start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while "starting workers" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    told = cluster_command("down", "--name", name)
    assert (told.returncode, told.stdout) == (0, f"cluster {name} is down\n")
    assert process.wait(60) == 143, (tmp_path / "log").read_text()
    assert "SIGTERM received" not in (tmp_path / "log").read_text()  # what Ray prints when it aborts


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUp]:
    with ClusterUp(tmp_path_factory.mktemp("cluster") / "log", NAME, "--workers", "2", *ARGUMENTS) as one:
        yield one


def disturbed(cluster: ClusterUp, act: Callable[[], object]) -> list[tuple[History, list[masklet.ResumeEvent]]]:
    """Run a stream on each worker, and do something when they have seen some results."""
    histories = [History() for _ in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(run, "file", cluster.address, history=history) for history in histories]
        cluster.until(lambda: all(len(history.results) >= 3 for history in histories))
        act()
        return [stream.result() for stream in streams]


def test_streams_give_the_same_masks_and_survive(cluster: ClusterUp) -> None:
    cluster.until(lambda: cluster.states() == ["serving"] * 2)
    should, events = run("file", cluster.address)
    assert violations(should) == []
    assert events == []

    # A worker is killed: its streams go on elsewhere, and Serve starts another one.
    time.sleep(3)  # until the gateway has heard that nobody is busy, and gives each worker one of two streams
    old = cluster.replicas()
    assert len(old) == 2
    runs = disturbed(cluster, lambda: os.kill(old[0], signal.SIGKILL))
    assert [violations(history, should) for history, _ in runs] == [[]] * STREAMS
    assert sum(len(events) for _, events in runs) == 2, "one stream broke, and went on"
    cluster.until(lambda: cluster.states() == ["serving"] * 2)
    assert len(set(cluster.replicas()) - set(old)) == 1

    # One worker fewer: whoever has streams there moves.
    runs = disturbed(cluster, lambda: cluster_command("scale", "1", "--name", NAME))
    assert [violations(history, should) for history, _ in runs] == [[]] * STREAMS
    cluster.until(lambda: cluster.states() == ["serving"])
    cluster.until(lambda: len(cluster.replicas()) == 1)


def test_status_tells_of_the_workers(cluster: ClusterUp) -> None:
    told = cluster_command("status", "--name", NAME)
    assert told.returncode == 0, told.stderr
    assert f"cluster {NAME} at {cluster.address}" in told.stdout
    assert "serving" in told.stdout
    assert cluster_command("status", "--name", "another").returncode == 1


def test_a_name_is_used_once(cluster: ClusterUp) -> None:
    told = cluster_command("up", "--name", NAME)
    assert told.returncode == 1
    assert f"a cluster {NAME} runs already; `masklet cluster down --name {NAME}` stops it" in told.stderr


def test_ray_cannot_be_reached_from_outside_without_its_token(cluster: ClusterUp) -> None:
    """All but one kind of port is open to this machine alone; the other one is a worker's own, for Ray's handles."""
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=False).stdout
    if not listening:
        pytest.skip("there is no ss here")
    family = set(descendants(cluster.process.pid))  # other tests may have a Ray of their own at the same time
    all_words = [line.split() for line in listening.splitlines()]
    ours = [words for words in all_words if {int(pid) for pid in re.findall(r"pid=(\d+)", words[-1])} & family]
    everywhere = [words for words in ours if not words[3].startswith(("127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"))]
    assert len(ours) > 3
    assert [words for words in everywhere if "ServeRepl" not in words[5]] == []


def test_down_ends_everything(cluster: ClusterUp) -> None:
    told = cluster_command("down", "--name", NAME)
    assert told.returncode == 0, told.stderr + cluster.log()
    assert cluster.process.wait(60) == 0, cluster.log()
    assert cluster.replicas() == []
    assert cluster_command("down", "--name", NAME).returncode == 1
