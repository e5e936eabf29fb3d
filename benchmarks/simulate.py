"""Up to a million streams in simulation: `python -m benchmarks.simulate --curve curve.json --streams 10000 --p99 0.2`.

`masklet bench --curve 1,2,4,8,16,32 --json curve.json` measures how long a device takes for so many streams. From this
curve the command answers: how many devices serve so many streams with such a latency; what a lost node costs; and how
quickly devices must start. `--validate` runs real streams on this machine beside the simulation of as many.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.simulation.curve import BatchCurve
from benchmarks.simulation.fleet import Demand, Failures, Scenario, Supply
from benchmarks.simulation.questions import Promise, devices_for, lost_node, scaling
from benchmarks.simulation.validation import Comparison, validate

_SECONDS_TO_START = (5.0, 15.0, 60.0)
_SHOWN = {
    "frames_per_second": "frames/s", "p50_seconds": "p50 s", "p99_seconds": "p99 s", "skipped_share": "skipped",
    "utilisation": "busy", "start_wait_p99_seconds": "start p99 s", "refused": "no place",
    "interruption_p50_seconds": "break p50 s", "interruption_p99_seconds": "break p99 s", "replayed_frames": "replayed",
}  # fmt: skip


def main(
    curve_file: Annotated[
        Path | None, typer.Option("--curve", metavar="FILE", help="Of masklet bench --curve.")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Streams at once, on average.")] = 10_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames a second of a stream.")] = 10.0,
    p99: Annotated[float, typer.Option(min=0.001, help="Seconds from capture to result, for 99 of 100 results.")] = 0.2,
    stream_seconds: Annotated[float, typer.Option(min=1.0, help="How long a stream lasts on average.")] = 300.0,
    node: Annotated[int, typer.Option(min=1, help="Devices of a node, which die together.")] = 8,
    snapshot_seconds: Annotated[float, typer.Option(min=0.1, help="Between two snapshots of a stream.")] = 2.0,
    snapshot_mib: Annotated[float, typer.Option(min=0.0, help="Size of a snapshot.")] = 4.0,
    store_gib: Annotated[float, typer.Option(min=0.001, help="GiB a second that the store of snapshots gives.")] = 1.0,
    surge: Annotated[
        float, typer.Option(min=1.0, help="So many times as many streams come, for the last answer.")
    ] = 1.5,
    seconds: Annotated[float, typer.Option(min=10.0, help="Simulated for the second and third answer.")] = 60.0,
    start_seconds: Annotated[
        list[float] | None, typer.Option(help="Until a new device serves; may be repeated. Default: 5, 15 and 60.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    real: Annotated[
        bool, typer.Option("--validate", help="Run real streams with nano on this machine beside the simulation.")
    ] = False,
    numbers: Annotated[str, typer.Option("--real-streams", help="How many, with --validate.")] = "8,16,32,64",
    real_seconds: Annotated[float, typer.Option(min=2.0, help="How long, with --validate.")] = 20.0,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With --validate; default: an own one.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures as JSON.")] = None,
) -> None:
    """Print what so many streams need, or how near the simulation is."""
    if real == (curve_file is not None):
        raise typer.BadParameter("give either --curve FILE or --validate", param_hint="--curve")
    if real:
        result = _validated(server, [int(number) for number in numbers.split(",")], rate, real_seconds)
    else:
        assert curve_file is not None
        try:
            curve = BatchCurve.load(curve_file)
        except (ValueError, TypeError, KeyError) as error:
            raise typer.BadParameter(str(error), param_hint="--curve") from None
        failures = Failures(
            snapshot_seconds=snapshot_seconds,
            snapshot_bytes=snapshot_mib * 2**20,
            store_bytes_per_second=store_gib * 2**30,
        )
        demand = Demand(streams, rate, stream_seconds)
        starts = start_seconds or _SECONDS_TO_START
        result = answers(
            curve, demand, Promise(p99), failures, node=node, surge=(surge, starts), seconds=seconds, seed=seed
        )
        _print_answers(result, Console(width=160), p99)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")


def answers(
    curve: BatchCurve,
    demand: Demand,
    promise: Promise,
    failures: Failures,
    *,
    node: int,
    surge: tuple[float, Sequence[float]],
    seconds: float,
    seed: int,
) -> dict[str, Any]:
    """The three answers.

    Args:
        curve: How long a round of a device takes.
        demand: The streams.
        promise: What they are promised.
        failures: What it takes to go on after a device's death.
        node: Devices that die together.
        surge: So many times as many streams come; and seconds until a new device serves, for each simulation.
        seconds: How long the last two are simulated; a surge for at least twice as long as devices take to start.
        seed: Of everything random.
    """
    need = devices_for(curve, demand, promise, seed)
    if not need["devices"]:
        return {"need": need}
    supply = Supply(need["devices"], room=need["streams_of_a_device"])
    scenario = Scenario(curve, demand, supply, failures, seconds=seconds, seed=seed)
    grows = Supply(need["devices"], room=need["streams_of_a_device"], scale_at=0.9 * need["streams_of_a_device"])
    times, starts = surge
    long = max(seconds, scenario.warm_up + 2 * max(starts))
    surging = Scenario(curve, demand, grows, failures, seconds=long, seed=seed)
    return {
        "need": need,
        "lost_node": lost_node(scenario, min(node, need["devices"] - 1)) if need["devices"] > 1 else None,
        "scaling": scaling(surging, times, starts),
        "snapshot_bytes_per_second": failures.write_rate(demand.streams),
        "demand": asdict(demand),
        "curve": asdict(curve),
    }


def _print_answers(result: dict[str, Any], console: Console, p99: float) -> None:
    need = result["need"]
    if not need["devices"]:
        console.print(f"no device keeps a p99 of {p99:g} s, not even of a single stream; promise more time")
        return
    console.print(
        f"{need['devices']} devices, each with at most {need['streams_of_a_device']} streams: "
        f"p99 {need['p99_seconds']:.3f} s, busy {need['utilisation']:.0%}"
    )
    rows = (
        {} if result["lost_node"] is None else {f"{name} a lost node": row for name, row in result["lost_node"].items()}
    )
    rows |= {f"surge, devices start in {row['seconds_to_start']:g} s": row for row in result["scaling"]}
    table = Table("", *_SHOWN.values())
    for name, row in rows.items():
        table.add_row(name, *(f"{row[key]:.3g}" if row[key] < 1000 else f"{row[key]:.0f}" for key in _SHOWN))
    console.print(table)
    console.print(f"snapshots write {result['snapshot_bytes_per_second'] / 2**30:.2f} GiB a second")


def _validated(server: str | None, numbers: list[int], rate: float, seconds: float) -> dict[str, Any]:
    from benchmarks.load.__main__ import own_server

    with own_server() if server is None else contextlib.nullcontext(server) as address:
        curve, found = validate(str(address), numbers, rate, seconds)
    _print_comparisons(curve, found, rate)
    return {"curve": asdict(curve), "frame_rate": rate, "comparisons": [asdict(one) for one in found]}


def _print_comparisons(curve: BatchCurve, found: list[Comparison], rate: float) -> None:
    console = Console(width=120)
    table = Table(title=f"live streams of {rate:g} frames/s, real against simulated, {date.today()}")
    table.add_column("streams", justify="right")
    for heading in ("frames/s", "p50 s", "p99 s", "skipped"):
        table.add_column(heading, justify="right")
        table.add_column("simulated", justify="right")
    for one in found:
        cells = [str(one.streams)]
        for key in ("frames_per_second", "p50_seconds", "p99_seconds", "skipped_share"):
            cells += [f"{one.real[key]:.3f}", f"{one.simulated[key]:.3f}"]
        table.add_row(*cells)
    console.print(table)
    points = ", ".join(f"{n}: {1000 * s:.0f} ms" for n, s in zip(curve.streams, curve.seconds, strict=True))
    console.print(f"rounds by streams: {points}; beside the device {1000 * curve.overhead_seconds:.0f} ms a frame")
    console.print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}")


if __name__ == "__main__":
    typer.run(main)
