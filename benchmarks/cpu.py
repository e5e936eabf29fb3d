"""Every promise about speed and memory that a processor can keep, in one command: `python -m benchmarks.cpu`.

Ten minutes on two idle cores. Each figure is a ratio or a cost of two sides that run by turns; see `speed`, `serving`
and `growth`, which do the work.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import growth, serving, speed
from benchmarks.sides import EXAMPLE
from masklet_server.engine.network.device import device_name

TINY = "sam2.1-tiny"


@dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        what: Is measured.
        measured: Its value.
        limit: That it is held against.
        at_least: The value must not be below; otherwise, not above.
        note: What else is to be known.
    """

    what: str
    measured: float
    limit: float
    at_least: bool
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the promise is kept."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def against_reference(results: dict[str, Any]) -> list[Bar]:
    """SAM 2.1 tiny at 1024, one object and four, against Meta's predictor; and what an object's memory takes."""
    one = speed.Setting(TINY, "cpu", "auto", 1, 1, False, 1, 5, EXAMPLE, filled=True)
    results["one_object"] = first = speed.measure(one)
    # The reference works through its objects one after the other: what was quicker for one is quicker for four.
    four = replace(one, objects=4, rounds=3, precisions=(first["reference_precision"],))
    results["four_objects"] = second = speed.measure(four)
    rows = [
        Bar(
            f"{TINY} at 1024, {result['objects']} object(s): times the reference's frames/s",
            result["ratio"],
            1.6,
            True,
            f"{result['ours']:.3f} against {result['reference']:.3f} frames/s in {result['reference_precision']}; "
            f"of processor time {result['processor_ratio']:.2f}",
        )
        for result in (first, second)
    ]
    return [*rows, Bar("memory of an object at 1024, MiB", first["bank_bytes_of_an_object"] / 2**20, 3.8, False)]


def through_the_server(results: dict[str, Any]) -> list[Bar]:
    """Nano end to end, many streams, and what the server costs beside the engine."""
    results["serving"] = found = serving.measure(serving.Setting("nano", "cpu", EXAMPLE, 130, 40, 3, 8))
    return [
        Bar(
            "nano end to end: share of the engine's own frames/s",
            found["end_to_end_ratio"],
            0.85,
            True,
            f"{found['end_to_end_fps']:.1f} against {found['engine_fps']:.1f} frames/s",
        ),
        Bar("nano, 8 streams at once: times the frames/s of one after the other", found["streams_ratio"], 1.1, True),
        Bar("nano, 8 streams at once: slowest over quickest", found["slowest_over_quickest"], 1.2, False),
        Bar(
            "server beside the engine, 1080p: ms of CPU a frame",
            found["overhead_ms"],
            10.0,
            False,
            f"decoding and resizing {found['overhead_decoder_ms']:.1f}; starting a session "
            f"{found['session_start_ms']:.0f} once",
        ),
    ]


def over_time(results: dict[str, Any]) -> list[Bar]:
    """What a server's memory does between frame 100 and frame 3,000."""
    results["growth"] = found = growth.measure(3000)
    grown = (found["last_bytes"] - found["first_bytes"]) / 2**20
    # What an allocator keeps for later moves by some MiB; one kept memory or frame of each 2,900 would be 200 and more.
    return [Bar("growth of the server's memory, frame 100 to 3,000, MiB", grown, 8.0, False)]


PARTS: dict[str, Callable[[dict[str, Any]], list[Bar]]] = {
    "reference": against_reference,
    "serving": through_the_server,
    "growth": over_time,
}


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "device": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def table_of(bars: list[Bar]) -> Table:
    """For people."""
    table = Table("what", "measured", "bar", "met", "note")
    for bar in bars:
        limit = f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}"
        table.add_row(bar.what, f"{bar.measured:.2f}", limit, "yes" if bar.is_met else "NO", bar.note)
    return table


def main(
    part: Annotated[list[str], typer.Option(help=f"One of {', '.join(PARTS)}; repeatable.")] = list(PARTS),  # noqa: B006
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure everything that a processor can show."""
    if unknown := set(part) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(PARTS)}", param_hint="--part")
    os.environ["TQDM_DISABLE"] = "1"  # the predictor's own progress bars
    console, bars, results = Console(), [], {**machine()}
    for name in part:
        bars += PARTS[name](results)
        console.print(table_of(bars))
        results["bars"] = [{**asdict(bar), "met": bar.is_met} for bar in bars]
        if json_file is not None:
            json_file.write_text(json.dumps(results, indent=2) + "\n")
    where = machine()
    console.print(
        f"{where['device']}, {where['cores']} cores, {where['threads']} threads, torch {where['torch']}, "
        f"{where['date']}"
    )


if __name__ == "__main__":
    typer.run(main)
