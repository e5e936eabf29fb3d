"""All comparisons that want a GPU, in one command that ends by itself: `python -m benchmarks.gpu --json gpu.json`.

For each official size one object against upstream's compiled predictor, and ten objects and sixteen streams with the
smallest. Random weights stand in for checkpoints that are not here. What was measured is printed and written after
every row; a row that cannot be expected to end in time is left out, and said to be.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.sides import EXAMPLE
from benchmarks.speed import Setting, measure
from masklet_server.engine.network.device import pick_device

SIZES = ("sam2.1-tiny", "sam2.1-small", "sam2.1-base-plus", "sam2.1-large")


def rows(device: str, models: list[str], frames: int, rounds: int, *, compiled: bool) -> list[Setting]:
    """What is to be compared, the most wanted first."""

    def row(model: str, *, objects: int = 1, streams: int = 1) -> Setting:
        # By torch wherever it runs: a GPU has nothing else, and a trial on a CPU is to go the same way.
        return Setting(model, device, "auto", objects, streams, compiled, frames, rounds, EXAMPLE, runtime="torch")

    smallest, *others = models
    return [row(smallest), row(smallest, streams=16), row(smallest, objects=10), *map(row, others)]


def run(settings: list[Setting], minutes: float, write: Path | None, console: Console) -> list[dict[str, Any]]:
    """Compare until all is done or the next row, if as slow as the slowest so far, would come too late."""
    results: list[dict[str, Any]] = []
    deadline, slowest = time.monotonic() + minutes * 60, 0.0
    for setting in settings:
        if time.monotonic() + slowest > deadline:
            console.print(
                f"left out for want of time: {setting.model}, {setting.objects} objects, {setting.streams} streams"
            )
            continue
        start = time.monotonic()
        results.append(measure(setting))
        slowest = max(slowest, time.monotonic() - start)
        console.print(_row_table(results[-1:]))
        if write is not None:
            write.write_text(json.dumps(results, indent=2) + "\n")
    return results


def _row_table(results: list[dict[str, Any]]) -> Table:
    table = Table("model", "objects", "streams", "ours", "reference", "ratio")
    for result in results:
        table.add_row(
            result["model"],
            str(result["objects"]),
            str(result["streams"]),
            f"{result['ours']:.2f} frames/s, {result['our_dtype']}",
            f"{result['reference']:.2f} frames/s, {result['reference_precision']}",
            f"{result['ratio']:.2f}",
        )
    return table


def main(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:N]")] = "auto",
    model: Annotated[list[str], typer.Option(help="Repeatable; the first also runs with many objects.")] = list(SIZES),  # noqa: B006
    frames: Annotated[int, typer.Option(min=1, help="In a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    minutes: Annotated[float, typer.Option(help="Begin nothing that would take longer.")] = 7.5,
    compiled: Annotated[bool, typer.Option(help="Hold against vos_optimized, too.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure masklet's engine against SAM2VideoPredictor on a GPU."""
    console = Console()
    results = run(rows(str(pick_device(device)), model, frames, rounds, compiled=compiled), minutes, json_file, console)
    console.rule()
    console.print(_row_table(results))
    if results:
        console.print(f"{results[0]['device']}, torch {results[0]['torch']}, {results[0]['date']}")


if __name__ == "__main__":
    typer.run(main)
