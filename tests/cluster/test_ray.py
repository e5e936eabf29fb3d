"""``masklet cluster`` with the real Ray: workers that are killed, and that come and go, while clients track."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
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
from tests.support.streams import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra cluster)"),
    pytest.mark.timeout(600),
]

PROGRAM = [sys.executable, "-c", "from masklet_cluster.cli import cluster; cluster()"]
NAME = f"tests-{os.getpid()}"
STREAMS = 2
ARGUMENTS = ("--device", "cpu", "--dtype", "float32", "--grace", "2", "--park-seconds", "60", "--direct")


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MASKLET_", "RAY_"))}
    cache = os.environ.get("MASKLET_CACHE")
    return {**clean, "OMP_NUM_THREADS": "1", **({"MASKLET_CACHE": cache} if cache else {})}


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, timeout=180, check=False, env=environment()
    )


class Cluster:
    """A cluster that `masklet cluster up` runs.

    Attributes:
        address: The gateway's.
        process: That of `masklet cluster up`.
    """

    def __init__(self, log: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*PROGRAM, "up", "--name", NAME, "--workers", "2", "--address", self.address, *ARGUMENTS],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        self.until(lambda: "listening on" in self.log(), 240)

    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def until(self, holds: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def states(self) -> list[str]:
        """The states of all workers."""
        with masklet.Client(self.address) as client:
            return [one.state for one in client.info().workers]

    def replicas(self) -> list[int]:
        """The processes of the workers."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if b"ServeReplica:" + NAME.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found


def test_what_is_wrong_is_said_before_ray_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = command("up", "--name", f"{NAME}-a", "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert told.returncode == 1
    assert "Address already in use; stop the program that uses it" in told.stderr
    assert "starting" not in told.stderr


def test_a_cluster_that_cannot_be_scaled_says_why() -> None:
    with ClusterState.held(f"{NAME}-b", "127.0.0.1:1", "", 1) as state:
        told = command("scale", "2", "--name", f"{NAME}-b")
        assert (told.returncode, told.stdout) == (
            1,
            f"cluster {NAME}-b is still starting; try again when `masklet cluster status` says up\n",
        )
        state.max_workers = 4
        state.are_up()
        told = command("scale", "2", "--name", f"{NAME}-b")
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
    told = command("up", "--name", f"{NAME}-d", "--address", "127.0.0.1:0", "--model", "nope")
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
    told = command("down", "--name", name)
    assert (told.returncode, told.stdout) == (0, f"cluster {name} is down\n")
    assert process.wait(60) == 143, (tmp_path / "log").read_text()
    assert "SIGTERM received" not in (tmp_path / "log").read_text()  # what Ray prints when it aborts


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    one = Cluster(tmp_path_factory.mktemp("cluster") / "log")
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            one.process.wait(120)


def disturbed(cluster: Cluster, act: Callable[[], object]) -> list[tuple[History, list[masklet.ResumeEvent]]]:
    """Run a stream on each worker, and do something when they have seen some results."""
    histories = [History() for _ in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(run, "file", cluster.address, history=history) for history in histories]
        cluster.until(lambda: all(len(history.results) >= 3 for history in histories))
        act()
        return [stream.result() for stream in streams]


def test_streams_give_the_same_masks_and_survive(cluster: Cluster) -> None:
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
    runs = disturbed(cluster, lambda: command("scale", "1", "--name", NAME))
    assert [violations(history, should) for history, _ in runs] == [[]] * STREAMS
    cluster.until(lambda: cluster.states() == ["serving"])
    cluster.until(lambda: len(cluster.replicas()) == 1)


def test_status_tells_of_the_workers(cluster: Cluster) -> None:
    told = command("status", "--name", NAME)
    assert told.returncode == 0, told.stderr
    assert f"cluster {NAME} at {cluster.address}" in told.stdout
    assert "serving" in told.stdout
    assert command("status", "--name", "another").returncode == 1


def test_a_name_is_used_once(cluster: Cluster) -> None:
    told = command("up", "--name", NAME)
    assert told.returncode == 1
    assert f"a cluster {NAME} runs already" in told.stderr


def test_ray_cannot_be_reached_from_outside_without_its_token(cluster: Cluster) -> None:
    """All but one kind of port is open to this machine alone; the other one is a worker's own, for Ray's handles."""
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=False).stdout
    if not listening:
        pytest.skip("there is no ss here")
    ours = [line.split() for line in listening.splitlines() if "ray::" in line or "raylet" in line or "gcs_s" in line]
    everywhere = [words for words in ours if not words[3].startswith(("127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"))]
    assert len(ours) > 3
    assert [words for words in everywhere if "ServeRepl" not in words[5]] == []


def test_down_ends_everything(cluster: Cluster) -> None:
    told = command("down", "--name", NAME)
    assert told.returncode == 0, told.stderr + cluster.log()
    assert cluster.process.wait(60) == 0, cluster.log()
    assert cluster.replicas() == []
    assert command("down", "--name", NAME).returncode == 1
