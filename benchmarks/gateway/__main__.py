"""What a gateway costs, and what becomes of streams when workers die: `python -m benchmarks.gateway`.

Without options: the hop, and ten kills. With options, only what they name.

- `--messages N`, the hop: messages of 4 KB go to a server that sends each back, by way of a gateway and without one, by
  turns in one run. The server, the gateway and the client are processes of their own. The difference of the round
  trips is what the gateway adds there and back; its own processor time is counted for each message that it passes on.
- `--kills N --streams 8`, failover: streams with a small nano on two workers behind a gateway, which share a folder for
  snapshots. Again and again one that has streams is killed (SIGKILL), and started again at once. What each client saw
  is held against a run without faults. Printed is what each step between the kill and the next new mask took.
- `--seconds 600 --streams 64`, memory: half of the streams last as long as that, the clients of the other half track
  clip after clip. Printed is what gateway and workers hold at the start (after a fifth of the time), in the middle and
  at the end.
- `--ratio N`: frames a second of two workers behind a gateway, and of the same two servers without it, N turns of each.
"""

from __future__ import annotations

import logging
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gateway import endurance
from benchmarks.gateway import ratio as rate
from benchmarks.gateway.endurance import MOMENTS, Endurance, measure_endurance
from benchmarks.gateway.failover import Outcome, Plan, measure_failover
from benchmarks.gateway.hop import measure_hop
from benchmarks.gateway.ratio import Ratio, measure_ratio
from benchmarks.gateway.timeline import STEPS


def _new_table(title: str) -> Table:
    table = Table(title=f"{title}, {platform.processor() or platform.machine()}, {date.today()}")
    table.add_column("figure")
    return table


def _print_hop(console: Console, messages: int) -> None:
    hop = measure_hop(messages)
    direct, through = statistics.median(hop.direct), statistics.median(hop.through)
    table = _new_table("gateway")
    table.add_column("value", justify="right")
    table.add_row("round trip of 4 KB without, p50", f"{1e3 * direct:.3f} ms")
    table.add_row("round trip of 4 KB with, p50", f"{1e3 * through:.3f} ms")
    table.add_row("what the gateway adds for one message, p50", f"{1e3 * (through - direct) / 2:.3f} ms")
    table.add_row("its processor time for one message", f"{1e3 * hop.cpu / 2 / len(hop.through):.3f} ms")
    console.print(table)


def _print_failover(console: Console, outcome: Outcome) -> None:
    table = _new_table("from a SIGKILL of the worker to the next new mask")
    for heading in ("p50 s", "p90 s", "most s"):
        table.add_column(heading, justify="right")
    failovers = outcome.failovers
    for step in STEPS if failovers else ():
        table.add_row(step, *_spread([one.steps[step] for one in failovers]))
    if failovers:
        table.add_row("all", *_spread([one.seconds for one in failovers]), style="bold")
        table.add_row("workers asked for", *_spread([one.tries for one in failovers], 0))
        table.add_row("frames tracked again", *_spread([one.repeated for one in failovers], 0))
    console.print(table)
    console.print(
        f"{outcome.kills} kills, {outcome.streams} streams with {outcome.results} results in {outcome.seconds:.0f} s; "
        f"{len(failovers)} broke and went on; results lost, doubled or altered: {len(outcome.wrong)}"
    )
    for wrong in outcome.wrong[:10]:
        console.print(f"  {wrong}", markup=False)


def _print_endurance(console: Console, found: Endurance, seconds: float) -> None:
    table = _new_table("memory of a process")
    for moment in MOMENTS:
        table.add_column(f"{moment} MiB", justify="right")
    for name, held in found.held.items():
        table.add_row(name, *(f"{size / 2**20:.1f}" for size in held))
    console.print(table)
    console.print(
        f"{found.streams} streams with {found.results} results in {seconds:.0f} s; growing: "
        f"{', '.join(found.growing) or 'none'}; wrong: {len(found.wrong)}"
    )
    for wrong in found.wrong[:10]:
        console.print(f"  {wrong}", markup=False)


def _print_ratio(console: Console, found: Ratio) -> None:
    table = _new_table("frames a second, two workers")
    table.add_column("median", justify="right")
    table.add_column("of the turns")
    for name, rates in (("separate servers", found.separate), ("behind a gateway", found.together)):
        table.add_row(name, f"{statistics.median(rates):.2f}", ", ".join(f"{one:.2f}" for one in rates))
    table.add_row("ratio", f"{found.value:.3f}", "", style="bold")
    console.print(table)
    for failed in found.failed[:10]:
        console.print(f"  {failed}", markup=False)


def _spread(values: Sequence[float], digits: int = 2) -> tuple[str, str, str]:
    ordered = sorted(values)
    chosen = statistics.median(ordered), ordered[int(0.9 * (len(ordered) - 1))], ordered[-1]
    return f"{chosen[0]:.{digits}f}", f"{chosen[1]:.{digits}f}", f"{chosen[2]:.{digits}f}"


def main(
    messages: Annotated[int | None, typer.Option(min=10, help="The hop: messages on each side.")] = None,
    kills: Annotated[int | None, typer.Option(min=1, help="Failover: workers to kill.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Memory: how long streams run.")] = None,
    ratio: Annotated[int | None, typer.Option(min=1, help="Ratio: turns of each side.")] = None,
    streams: Annotated[int, typer.Option(min=1, help="Failover, memory: streams at once.")] = 8,
    frames: Annotated[int, typer.Option(min=20, help="Frames of a clip.")] = 60,
    image_size: Annotated[int | None, typer.Option(help="nano's input. Default: 128; of the ratio 384.")] = None,
    seed: Annotated[int, typer.Option(help="Failover: of the times of kills.")] = 1,
) -> None:
    """Measure a gateway on this machine. The exit status is 1 where a result was lost, doubled or altered.

    It is 1 also where memory grew, or a stream failed.
    """
    logging.getLogger("masklet").addHandler(logging.NullHandler())  # hundreds of lines say the same
    console, is_wrong = Console(width=110), False
    if messages is kills is seconds is ratio is None:
        messages, kills = 4000, 10
    if messages:
        _print_hop(console, messages)
    if kills:
        outcome = measure_failover(Plan(kills, streams, frames, image_size or 128, seed))
        _print_failover(console, outcome)
        is_wrong |= bool(outcome.wrong)
    if seconds:
        memory = measure_endurance(endurance.Plan(streams, seconds, frames, image_size or 128))
        _print_endurance(console, memory, seconds)
        is_wrong |= bool(memory.wrong or memory.growing)
    if ratio:
        rates = measure_ratio(rate.Plan(ratio, frames=frames, image_size=image_size or 384))
        _print_ratio(console, rates)
        is_wrong |= bool(rates.failed)
    if is_wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
