"""The answers of `benchmarks.simulate`, and its command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import simulate
from benchmarks.load.visits import Visit
from benchmarks.simulation.curve import BatchCurve
from benchmarks.simulation.fleet import Demand, Failures, Scenario, Supply
from benchmarks.simulation.questions import Promise, devices_for, lost_node, scaling, simulated, streams_of_a_device
from benchmarks.simulation.validation import figures_of, measured_curve, validate
from tests.faults.history import Seen

CURVE = BatchCurve((1, 4, 16), (0.02, 0.03, 0.08))
PROMISE = Promise(0.2)


def test_a_device_takes_as_many_streams_as_it_can() -> None:
    each = streams_of_a_device(CURVE, 10.0, PROMISE)
    assert 12 <= each <= 20  # 16 of 10 frames a second are 160, and the device does 200
    for streams, kept in ((each, True), (each + 1, False)):
        found = simulated(Scenario(CURVE, Demand(streams), Supply(1), seconds=20.0))
        assert PROMISE.is_kept(found) is kept
    assert streams_of_a_device(CURVE, 5.0, PROMISE) > each
    assert streams_of_a_device(CURVE, 10.0, Promise(0.01)) == 0


def test_so_many_devices_are_needed_and_no_fewer() -> None:
    demand = Demand(120, stream_seconds=30.0)
    found = devices_for(CURVE, demand, PROMISE)
    assert found["devices"] >= 120 / found["streams_of_a_device"]
    assert found["p99_seconds"] <= 0.2
    assert devices_for(CURVE, Demand(120), PROMISE)["devices"] < found["devices"]  # nobody comes: no room to spare
    assert devices_for(CURVE, demand, Promise(0.01)) == {"devices": 0, "streams_of_a_device": 0}


def test_a_lost_node_costs_more_where_there_is_less_to_spare() -> None:
    failures = Failures(snapshot_seconds=1.0)
    tight = Scenario(CURVE, Demand(48), Supply(4, room=14), failures, seconds=15.0)
    ample = replace(tight, supply=Supply(8, room=14))
    for scenario in (tight, ample):
        found = lost_node(scenario, 1)
        assert found["without"]["interrupted_streams"] == 0
        assert found["with"]["interrupted_streams"] > 0
    assert lost_node(tight, 1)["with"]["refused"] > 0  # the three that are left have no room for all
    assert lost_node(ample, 1)["with"]["refused"] == 0


def test_devices_that_start_sooner_leave_fewer_without_a_place() -> None:
    supply = Supply(5, room=12, scale_at=10.0, scale_every=2.0)
    scenario = Scenario(CURVE, Demand(45, stream_seconds=20.0), supply, seconds=60.0)
    found = scaling(scenario, 2.0, (2.0, 40.0))
    assert found[0]["start_wait_p99_seconds"] < found[1]["start_wait_p99_seconds"]
    assert [row["seconds_to_start"] for row in found] == [2.0, 40.0]


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(simulate.main)
    return made


def test_the_command(tmp_path: Path) -> None:
    points = [{"streams": n, "round_seconds": s} for n, s in zip(CURVE.streams, CURVE.seconds, strict=True)]
    (tmp_path / "curve.json").write_text(json.dumps({"curve": points}))
    words = [
        "--curve",
        str(tmp_path / "curve.json"),
        "--streams",
        "60",
        "--node",
        "1",
        "--seconds",
        "15",
        "--start-seconds",
        "4",
    ]
    done = CliRunner().invoke(app(), [*words, "--json", str(tmp_path / "result.json")])
    assert done.exit_code == 0, done.output
    assert "devices, each with at most" in done.output
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["need"]["devices"] >= 4
    assert len(result["scaling"]) == 1
    assert "no device keeps" in CliRunner().invoke(app(), [*words, "--p99", "0.001"]).output
    assert CliRunner().invoke(app(), []).exit_code == 2
    (tmp_path / "curve.json").write_text("{}")
    assert CliRunner().invoke(app(), words).exit_code == 2


def test_figures_of_real_streams_leave_out_their_first_second() -> None:
    visit = Visit(0, "live", 0.0)
    visit.history.results = [Seen(1, 0, -1, ()), *(Seen(i + 2, i, 0, (), (9,) if i == 3 else ()) for i in (0, 1, 2, 3))]
    visit.latencies = [9.0, 9.0, 0.1, 0.3]
    found = figures_of([visit], frame_rate=2.0, seconds=3.0)
    assert found == {"frames_per_second": 1.0, "p50_seconds": 0.3, "p99_seconds": 0.3, "skipped_share": 1 / 3}


@pytest.mark.slow
def test_real_streams_beside_the_simulation(nano_server: str) -> None:
    measured = measured_curve(nano_server, [2, 1], frames=6)
    assert measured.streams == (1, 2)
    assert 0 < measured.seconds[0] <= measured.seconds[1]
    curve, found = validate(nano_server, [2], frame_rate=3.0, seconds=2.5, curve=measured)
    assert curve.seconds == measured.seconds
    assert found[0].streams == 2
    for figures in (found[0].real, found[0].simulated):
        assert 0 < figures["p50_seconds"] <= figures["p99_seconds"]
        assert 0 < figures["frames_per_second"] < 7
