"""A load of real clients on a server: `python -m benchmarks.load --own --rate 2 --seconds 30`.

Clients come in an open loop: at random (Poisson), evenly, or in bursts. Each has a connection of its own, and tracks a
clip, films live, or clicks and thinks. Printed are median and 99th percentile of the latency of results, fairness
between clients, errors and frames a second. What each client saw is checked: every result once, in order; with --exact
also the masks, to the bit, against a run without load.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.load.arrivals import Arrivals, Process
from benchmarks.load.run import Load, described, references, run, summary, wrong
from benchmarks.load.visits import KINDS, Kind, Work
from tests.faults.server import ServerProcess


@contextlib.contextmanager
def own_server(sessions: int = 1024) -> Iterator[str]:
    """A server with nano on this machine's CPU, in a process of its own; its address."""
    most = str(sessions)
    with ServerProcess("--max-sessions", most, "--max-sessions-per-client", most) as server:
        yield server.address


def parsed_mix(word: str) -> dict[Kind, float]:
    """Read ``clip=2,live=1,clicks=1``.

    Raises:
        BadParameter: It is something else.
    """
    found: dict[Kind, float] = {}
    for part in word.split(","):
        name, _, weight = part.partition("=")
        try:
            found[cast("Kind", name)] = float(weight or 1)
        except ValueError:
            found = {}
        if name not in KINDS or not found or min(found.values()) < 0:
            raise typer.BadParameter(f"{word!r} is not such as clip=2,live=1,clicks=1", param_hint="--mix")
    return found


def main(
    server: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A server or a gateway.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Start a server with nano on this machine.")] = False,
    rate: Annotated[float, typer.Option(min=0.001, help="Clients a second.")] = 1.0,
    process: Annotated[Process, typer.Option(help="How they are spread.")] = Process.POISSON,
    burst: Annotated[int, typer.Option(min=1, help="How many come at once, of bursts.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="For how long clients come.")] = 30.0,
    mix: Annotated[str, typer.Option(help="Kinds of clients, in proportion.")] = "clip=1,live=1,clicks=1",
    clip_frames: Annotated[int, typer.Option(min=2)] = 48,
    live_seconds: Annotated[float, typer.Option(min=0.1)] = 5.0,
    live_rate: Annotated[float, typer.Option(min=0.1, help="Frames a second of a live stream.")] = 10.0,
    clicks: Annotated[int, typer.Option(min=1)] = 5,
    think: Annotated[float, typer.Option(min=0.0, help="Seconds between an answer and the next click.")] = 1.0,
    exact: Annotated[bool, typer.Option("--exact", help="Deterministic calls, whose masks are compared.")] = False,
    model: Annotated[str, typer.Option()] = "",
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures as JSON.")] = None,
) -> None:
    """Let clients come, and print what they saw. The exit status is 1 where a result was lost, doubled or wrong."""
    if own == (server is not None):
        raise typer.BadParameter("give either --server HOST:PORT or --own", param_hint="--server")
    logging.getLogger("masklet").addHandler(logging.NullHandler())
    work = Work(clip_frames, live_seconds, live_rate, clicks, think, exact, model)
    load = Load(Arrivals(process, rate, burst), parsed_mix(mix), work, seconds, seed)
    with own_server() if own else contextlib.nullcontext(server) as address:
        reference = references(str(address), work)
        visits = run(str(address), load)
    result = {**described(load), **summary(visits), "wrong": wrong(visits, reference if exact else {})}
    report(result)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    if result["wrong"]:
        raise typer.Exit(1)


def report(result: dict[str, Any]) -> None:
    """Print the figures."""
    console = Console(width=110)
    table = Table(title=f"{result['clients']} clients, {result['process']}, seed {result['seed']}, {date.today()}")
    for heading in ("client", "number", "results", "p50 s", "p99 s", "mean s", "skipped", "fairness"):
        table.add_column(heading, justify="left" if heading == "client" else "right")
    for kind, found in result["kinds"].items():
        spread = (f"{found[name]:.3f}" for name in ("p50_seconds", "p99_seconds", "mean_seconds"))
        counts = (str(found["clients"]), str(found["results"]))
        table.add_row(kind, *counts, *spread, str(found["skipped"]), f"{found['fairness']:.3f}")
    console.print(table)
    console.print(
        f"{result['frames']} frames in {result['seconds']:.1f} s: {result['frames_per_second']:.1f} frames/s; errors: "
        f"{result['errors'] or 'none'}; the latest client began {result['latest_start_seconds']:.3f} s after its time; "
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    )
    console.print(f"violations: {sum(map(len, result['wrong'].values()))}")
    for where, problems in result["wrong"].items():
        console.print(f"  {where}: {'; '.join(problems[:3])}", markup=False)


if __name__ == "__main__":
    typer.run(main)
