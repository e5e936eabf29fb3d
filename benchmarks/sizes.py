"""What another size of a model's input costs and brings: `python -m benchmarks.sizes --model sam2.1-tiny --size 512`.

masklet's engine tracks the same objects at each size, with full memories, by turns: a round of each size, then the next
round, so that whatever else the machine does hits all of them. Processor time is given beside frames a second, because
it hardly depends on what else the machine does. A model whose checkpoint is not here runs with seeded random weights,
which cost the same. `benchmarks.quality --model NAME --model NAME@SIZE` measures how good the masks are.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.sides import EXAMPLE
from benchmarks.speed import Setting, our_rounds
from masklet_server.engine.network.device import device_name, pick_device


@dataclass(frozen=True)
class Cost:
    """What one frame costs at one size.

    Attributes:
        model: The name, with the size.
        milliseconds: Median time of a frame.
        processor_milliseconds: Median processor time of a frame, of all threads.
        encoder_milliseconds: Median time of the image encoder.
        bank_bytes: What an object's memory takes.
    """

    model: str
    milliseconds: float
    processor_milliseconds: float
    encoder_milliseconds: float
    bank_bytes: int


def measure(names: list[str], *, device: str, dtype: str, objects: int, frames: int, rounds: int) -> list[Cost]:
    """Track by turns with all models.

    Args:
        names: ``NAME`` or ``NAME@SIZE``.
        device: As masklet names it.
        dtype: auto, float32 or bfloat16.
        objects: Tracked at once.
        frames: In a round.
        rounds: Of each model.
    """
    stages: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in names}
    settings = [Setting(n, device, dtype, objects, 1, False, frames, rounds, EXAMPLE, filled=True) for n in names]
    runs = {setting.model: our_rounds(setting, stages[setting.model]) for setting in settings}
    wall: dict[str, list[float]] = defaultdict(list)
    processor: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        for run in runs.values():
            next(run)  # builds, chooses kernels, fills the memories
        for _ in range(rounds):
            for name, run in runs.items():
                before = time.process_time()
                wall[name].append(next(run) / frames * 1000)
                processor[name].append((time.process_time() - before) / frames * 1000)
    return [
        Cost(
            name,
            statistics.median(wall[name]),
            statistics.median(processor[name]),
            statistics.median(stages[name]["encode_pixels"]) * 1000,
            int(max(stages[name]["bank_bytes"])),
        )
        for name in names
    ]


def table_of(costs: list[Cost]) -> Table:
    """For people; the first model is what the others are compared with."""
    table = Table(
        "model", "frames/s", "times the first", "ms of processor", "less by", "encoder, ms", "memory of an object"
    )
    first = costs[0]
    for cost in costs:
        table.add_row(
            cost.model,
            f"{1000 / cost.milliseconds:.2f}",
            f"{first.milliseconds / cost.milliseconds:.2f}",
            f"{cost.processor_milliseconds:.0f}",
            f"{first.processor_milliseconds / cost.processor_milliseconds:.2f}",
            f"{cost.encoder_milliseconds:.1f}",
            f"{cost.bank_bytes / 2**20:.2f} MiB",
        )
    return table


def main(
    model: Annotated[str, typer.Option(help="A name from `masklet models list`; the first row.")] = "sam2.1-tiny",
    size: Annotated[list[int], typer.Option(help="Another side of the input; repeatable.")] = [512],  # noqa: B006
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:N]")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16")] = "auto",
    objects: Annotated[int, typer.Option(min=1)] = 1,
    frames: Annotated[int, typer.Option(min=1, help="In a round.")] = 1,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure one model at several sizes."""
    names = [model, *(f"{model}@{side}" for side in size)]
    where = str(pick_device(device))
    costs = measure(names, device=where, dtype=dtype, objects=objects, frames=frames, rounds=rounds)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table_of(costs))
    print(
        f"{device_name(torch.device(where))}, {os.cpu_count()} cores, torch {torch.__version__}, objects: {objects}, "
        f"{date.today().isoformat()}"
    )
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
