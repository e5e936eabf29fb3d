"""The load generator: when clients come, what is counted, and a run with real clients."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.load import __main__ as command
from benchmarks.load.arrivals import Arrivals, Process
from benchmarks.load.run import Load, fairness, quantile, references, run, summary, wrong
from benchmarks.load.visits import Visit, Work
from tests.faults.history import Seen


def times(process: Process, rate: float, seconds: float, seed: int = 1) -> list[float]:
    return list(Arrivals(process, rate, 5).times(seconds, random.Random(seed)))


@pytest.mark.parametrize("process", Process)
def test_arrivals_have_their_rate_and_come_again_with_their_seed(process: Process) -> None:
    found = times(process, 10, 1000)
    assert found == sorted(found)
    assert len(found) == pytest.approx(10_000, rel=0.06)
    assert found == times(process, 10, 1000)
    if process is not Process.CONSTANT:
        assert found != times(process, 10, 1000, seed=2)


def test_arrivals_are_spread_as_their_process_says() -> None:
    gaps = [b - a for a, b in zip(times(Process.POISSON, 10, 1000), times(Process.POISSON, 10, 1000)[1:], strict=False)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.05)  # exponential
    bursts = times(Process.BURSTS, 10, 1000)
    assert {bursts.count(one) for one in set(bursts)} == {5}
    assert times(Process.CONSTANT, 4, 1.1) == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_figures() -> None:
    assert quantile([], 0.5) == 0.0
    assert quantile(list(range(100)), 0.99) == 99
    assert fairness([1, 1, 1]) == pytest.approx(1.0)
    assert fairness([1, 0, 0, 0]) == pytest.approx(0.25)
    load = Load(Arrivals(Process.CONSTANT, 10), {"clip": 1, "clicks": 1}, Work(), 10)
    assert [visit.kind for visit in load.visits()] == [visit.kind for visit in load.visits()]
    assert {visit.kind for visit in load.visits()} == {"clip", "clicks"}


def test_a_result_that_is_lost_is_told() -> None:
    visit = Visit(3, "clip", 0.0)
    visit.history.results = [Seen(1, 0, -1, ()), Seen(2, 0, 0, ()), Seen(4, 2, 0, ())]
    visit.history.given, visit.history.frame_count, visit.history.end = 1, 3, "done"
    assert "clip 3" in wrong([visit], {})


@pytest.mark.slow
def test_real_clients_of_each_kind(nano_server: str) -> None:
    work = Work(clip_frames=6, live_seconds=1.0, live_rate=4, clicks=2, think_seconds=0.05, is_exact=True)
    load = Load(Arrivals(Process.CONSTANT, 3), {"clip": 1, "live": 1, "clicks": 1}, work, 2.1, seed=0)
    reference = references(nano_server, work)
    visits = run(nano_server, load)
    assert wrong(visits, reference) == {}
    found = summary(visits)
    assert found["clients"] == 6
    assert found["errors"] == {}
    assert set(found["kinds"]) == {"clip", "live", "clicks"}
    for kind in found["kinds"].values():
        assert 0 < kind["p50_seconds"] <= kind["p99_seconds"]
        assert 0.3 < kind["fairness"] <= 1.0
    # And the checker sees a mask that is not the reference's.
    reference["clip"].results[2] = Seen(3, 1, 0, ((1, "other"),))
    assert wrong(visits, reference) != {}


@pytest.mark.slow
def test_the_command(nano_server: str, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(command.main)
    path = tmp_path / "load.json"
    words = ["--server", nano_server, "--rate", "4", "--seconds", "1", "--process", "constant", "--mix", "clip=1"]
    words += ["--clip-frames", "4", "--live-seconds", "0.5", "--clicks", "1", "--think", "0", "--json", str(path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "violations: 0" in done.output
    assert json.loads(path.read_text())["frames"] == 12
    assert CliRunner().invoke(app, []).exit_code == 2
    assert CliRunner().invoke(app, ["--own", "--mix", "films=1"]).exit_code == 2
