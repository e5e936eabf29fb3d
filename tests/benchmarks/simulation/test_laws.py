"""The simulation keeps the laws that any server keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.simulation.curve import BatchCurve
from benchmarks.simulation.device import Device, Stream
from benchmarks.simulation.figures import Figures, Spread
from benchmarks.simulation.fleet import Demand, Failures, Fleet, Scenario, Supply

FLAT = BatchCurve((1,), (0.02,))  # one frame a round
BATCHED = BatchCurve((1, 8), (0.02, 0.04))


def scenario(streams: int, curve: BatchCurve = FLAT, devices: int = 1, **demand: float | bool) -> Scenario:
    return Scenario(curve, Demand(streams, **demand), Supply(devices), seconds=60.0)  # type: ignore[arg-type]


def test_without_load_the_latency_is_the_service_time() -> None:
    for latest in (True, False):
        found = Fleet(scenario(1, frame_rate=5.0, latest=latest)).run()
        assert found.latency.mean == pytest.approx(0.02)
        assert found.latency.quantile(0.99) == pytest.approx(0.02, rel=0.01)
        assert found.utilisation == pytest.approx(0.1, rel=0.02)
        assert found.skipped == 0
    assert Fleet(replace(scenario(1), curve=BatchCurve((1,), (0.02,), 0.5))).run().latency.mean == pytest.approx(0.52)


def test_under_too_much_load_the_device_is_always_busy_and_frames_are_skipped() -> None:
    found = Fleet(scenario(20, frame_rate=10.0)).run()  # 200 frames a second on a device that does 50
    assert 0.999 < found.utilisation <= 1.0
    assert found.results / 55 == pytest.approx(50, rel=0.01)
    assert found.skipped / (found.skipped + found.results) == pytest.approx(0.75, abs=0.01)
    assert found.latency.quantile(0.99) < 0.2  # the latest frame is always young


def test_without_skipping_frames_are_ever_later() -> None:
    short, long = (Fleet(replace(scenario(20, latest=False), seconds=seconds)).run() for seconds in (10.0, 30.0))
    assert short.skipped == long.skipped == 0
    assert long.latency.quantile(0.99) > 2 * short.latency.quantile(0.99)


def test_rounds_of_several_streams_carry_more() -> None:
    one, many = (Fleet(scenario(30, curve, frame_rate=10.0)).run() for curve in (FLAT, BATCHED))
    assert one.results / 55 == pytest.approx(50, rel=0.01)
    assert many.results / 55 == pytest.approx(8 / 0.04, rel=0.01)
    assert BATCHED(4) == pytest.approx(0.02 + 0.02 * 3 / 7)


@pytest.mark.parametrize("latest", [True, False])
@pytest.mark.parametrize("streams", [3, 20])
def test_no_frame_is_lost_or_doubled(streams: int, latest: bool) -> None:
    """Every frame has a result, was skipped, or waits."""
    fleet = Fleet(replace(scenario(streams, latest=latest, frame_rate=7.0), warm_up=0.0))
    found = fleet.run()
    chance = np.random.default_rng(0)
    phases = chance.uniform(0, 1 / 7.0, streams)
    captured = int(np.sum(np.floor((60.0 - phases) * 7.0 + 1e-9) + 1))
    assert found.results + found.skipped + fleet.frames_waiting() == captured


def test_no_frame_is_lost_when_devices_die() -> None:
    failures = Failures(at=20.0, devices=2, snapshot_seconds=1.0)
    whole = replace(scenario(60, BATCHED, devices=6), warm_up=0.0, failures=failures)
    fleet = Fleet(whole)
    found = fleet.run()
    phases = np.random.default_rng(0).uniform(0, 0.1, 60)
    assert found.results + found.skipped + fleet.frames_waiting() == int(
        np.sum(np.floor((60 - phases) * 10 + 1e-9) + 1)
    )
    assert found.interruption.count == 20
    assert found.replayed > 0
    assert found.interruption.quantile(0.5) > failures.detect_seconds
    quick = Fleet(replace(whole, failures=replace(failures, snapshot_seconds=0.2, detect_seconds=0.01))).run()
    slow = Fleet(replace(whole, failures=replace(failures, store_bytes_per_second=1e6))).run()
    assert quick.interruption.quantile(0.99) < found.interruption.quantile(0.99) < slow.interruption.quantile(0.99)
    assert slow.interruption.quantile(0.99) > 20 * 4e6 / 1e6 * 0.4  # 80 s of reading, of which the first 40 s are seen


def test_equal_seeds_give_equal_results() -> None:
    wanted = replace(scenario(100, BATCHED, devices=5, stream_seconds=20.0), failures=Failures(at=10.0), seconds=20.0)
    one, other = Fleet(wanted).run(), Fleet(wanted).run()
    assert one.to_dict(55.0) == other.to_dict(55.0)
    assert one.to_dict(55.0) != Fleet(replace(wanted, seed=1)).run().to_dict(55.0)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waits_are_those_of_a_queue_with_random_arrivals(load: float) -> None:
    """M/D/1: requests at random times, equal service; the mean wait is rho / (2 (1 - rho)) of a service time.

    Source: the formula of Pollaczek and Khinchine.
    """
    service, count = 0.02, 20_000
    device, figures = Device(FLAT, 4096), Figures()
    now, coming = 0.0, np.cumsum(np.random.default_rng(3).exponential(service / load, count))
    place = 0
    while place < count or device.count:
        while place < count and coming[place] <= now:
            device.add(Stream(float(coming[place]), 1.0, 0, latest=False))
            place += 1
        end, _ = device.round(now, figures)
        now = end if not device.asleep else float(coming[place]) if place < count else now
    assert figures.latency.count == count
    wait = figures.latency.mean - service
    assert wait == pytest.approx(load / (2 * (1 - load)) * service, rel=0.08)


def test_streams_come_and_go_and_their_number_stays() -> None:
    demand = Demand(100, stream_seconds=5.0)
    fleet = Fleet(Scenario(BATCHED, demand, Supply(7), seconds=45.0))
    found = fleet.run()
    assert found.results / 40 == pytest.approx(100 * 10, rel=0.1)
    assert found.start_wait.count == pytest.approx(100 / 5 * 40, rel=0.1)
    assert found.start_wait.quantile(0.99) == pytest.approx(0.01, rel=0.02)


def test_without_room_streams_wait_and_more_devices_take_them() -> None:
    demand = Demand(50, stream_seconds=20.0, surge=3.0, surge_at=10.0)
    still = Scenario(BATCHED, demand, Supply(5, room=16), seconds=80.0)
    waiting = Fleet(still).run()
    scaled = replace(still, supply=replace(still.supply, scale_at=10, boot_seconds=5, load_seconds=2, scale_every=2))
    served = Fleet(scaled).run()
    assert waiting.refused > 40
    assert served.refused < 20
    assert served.most_devices > 10
    assert served.start_wait.quantile(0.5) < waiting.start_wait.quantile(0.5)


def test_quantiles_are_close() -> None:
    values = np.random.default_rng(1).lognormal(-3, 1, 100_000)
    spread = Spread()
    spread.add(values)
    for share in (0.5, 0.9, 0.99):
        assert spread.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.01)
    assert spread.mean == pytest.approx(values.mean())
    assert Spread().quantile(0.5) == Spread().mean == 0.0


def test_curves_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    points = [{"streams": 4, "round_seconds": 0.2}, {"streams": 1, "round_seconds": 0.1}]
    path.write_text(json.dumps({"curve": points, "overhead_seconds": 0.01}))
    assert BatchCurve.load(path) == BatchCurve((1, 4), (0.1, 0.2), 0.01)
    path.write_text("{}")
    with pytest.raises(ValueError, match="masklet bench --curve"):
        BatchCurve.load(path)
    for streams, seconds in (((), ()), ((2, 1), (1.0, 1.0)), ((1,), (0.0,))):
        with pytest.raises(ValueError, match="curve"):
            BatchCurve(streams, seconds)
