"""The simulation beside real streams on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import masklet
from benchmarks.load.arrivals import Arrivals, Process
from benchmarks.load.run import Load, quantile, run
from benchmarks.load.visits import Visit, Work, clip, prompt
from benchmarks.simulation.curve import BatchCurve
from benchmarks.simulation.fleet import Demand, Scenario, Supply
from benchmarks.simulation.questions import simulated
from masklet.cli.bench import StreamRun, curve_point


@dataclass(frozen=True)
class Comparison:
    """Real and simulated figures of so many live streams.

    Attributes:
        streams: How many.
        real: Figures of real streams: `frames_per_second`, `p50_seconds`, `p99_seconds`, `skipped_share`.
        simulated: The same of the simulation.
    """

    streams: int
    real: dict[str, float]
    simulated: dict[str, float]


def measured_curve(address: str, numbers: Sequence[int], frames: int = 60) -> BatchCurve:
    """The curve of a server, by the streams that the validation has.

    Args:
        address: The server.
        numbers: With how many streams at once it is measured.
        frames: Of each stream.
    """
    points = [curve_point(_saturated(address, number, frames)) for number in sorted(set(numbers))]
    streams = tuple(int(point["streams"]) for point in points)
    return BatchCurve(streams, _never_shorter([point["round_seconds"] for point in points]))


def _never_shorter(seconds: Sequence[float]) -> tuple[float, ...]:
    """A round with more streams takes no less; what was measured otherwise is noise."""
    found: list[float] = []
    for one in seconds:
        found.append(max(one, *found) if found else one)
    return tuple(found)


def _saturated(address: str, streams: int, frames: int) -> list[StreamRun]:
    """Clips at once, as fast as they go."""
    runs: list[StreamRun] = []
    together = threading.Barrier(streams)

    def track() -> None:
        with masklet.Client(address) as client:
            together.wait()
            begun = time.perf_counter()
            times = [time.perf_counter() for _ in client.track(clip(frames), prompt())]
        runs.append(StreamRun(times[-1] - begun, (), times))

    threads = [threading.Thread(target=track) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return runs


def real_streams(address: str, streams: int, frame_rate: float, seconds: float) -> dict[str, float]:
    """The figures of so many live streams, the first second of each left out, in which its decoder starts.

    Args:
        address: The server.
        streams: How many at once.
        frame_rate: Frames a second of each.
        seconds: How long.
    """
    work = Work(live_seconds=seconds, live_rate=frame_rate)
    # A hair more than a second, so that the last one comes, too: at random phases of a frame's time.
    visits = run(address, Load(Arrivals(Process.CONSTANT, streams), {"live": 1.0}, work, 1.0 + 0.5 / streams))
    return figures_of(visits, frame_rate, seconds)


def figures_of(visits: Sequence[Visit], frame_rate: float, seconds: float) -> dict[str, float]:
    """What `real_streams` returns."""
    late: list[float] = []
    frames = skipped = 0
    for visit in visits:
        results = [one for one in visit.history.results if one.revision == 0]
        counted = [place for place, one in enumerate(results) if one.frame_index >= frame_rate]
        late += [visit.latencies[place] for place in counted]
        frames += len(counted)
        skipped += sum(len(results[place].skipped) for place in counted)
    return {
        "frames_per_second": frames / (seconds - 1.0),
        "p50_seconds": quantile(late, 0.5),
        "p99_seconds": quantile(late, 0.99),
        "skipped_share": skipped / max(1, skipped + frames),
    }


def validate(
    address: str, numbers: Sequence[int], frame_rate: float, seconds: float, curve: BatchCurve | None = None
) -> tuple[BatchCurve, list[Comparison]]:
    """Real streams and the simulation of as many, for each of these numbers.

    A single stream tells first what a frame takes beside the device.

    Args:
        address: A server that nobody else uses.
        numbers: How many streams.
        frame_rate: Frames a second of each.
        seconds: How long each run lasts.
        curve: How long a round takes; None: it is measured.

    Returns:
        The curve, with what a frame takes beside the device, and both figures for each number.
    """
    curve = curve or measured_curve(address, [1, 2, 4, *numbers])
    alone = real_streams(address, 1, frame_rate, seconds)
    curve = replace(curve, overhead_seconds=max(0.0, alone["p50_seconds"] - curve(1)))
    found = []
    for streams in numbers:
        scenario = Scenario(curve, Demand(streams, frame_rate), Supply(1, room=max(numbers)), seconds=60.0, warm_up=5.0)
        found.append(Comparison(streams, real_streams(address, streams, frame_rate, seconds), simulated(scenario)))
    return curve, found
