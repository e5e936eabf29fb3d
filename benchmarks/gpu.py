"""All comparisons that want a GPU, in one command that ends by itself: `python -m benchmarks.gpu --json gpu.json`.

For each official size one object, by the engine alone and end to end from an H.264 file through a server; with the
smallest also sixteen streams and ten objects. All against upstream's predictor, as it is ("stock") and as
`vos_optimized` makes it, which get their frames from memory. Also the memory on the device, and how long a server takes
to start: the first time, when it measures how it computes fastest, and the second time.

Random weights stand in for checkpoints that are not here. What was measured is printed and written after every row; a
row that cannot be expected to end in time is left out, and said to be.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving import Side, client_side, serve
from benchmarks.sides import EXAMPLE
from benchmarks.speed import WARM_UP_FRAMES, Setting, measure
from masklet_server.engine.engines import Engines
from masklet_server.engine.network import device as devices
from masklet_server.engine.network.device import make_network, pick_device
from masklet_server.engine.serving.engine import Engine
from masklet_server.models.build import build_model

SIZES = ("sam2.1-tiny", "sam2.1-small", "sam2.1-base-plus", "sam2.1-large")
STREAMS, OBJECTS = 16, 10


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: "engine", which is measured against the reference, or "end to end", which is compared with the reference
            of the same model's engine row.
        setting: What is tracked.
    """

    what: str
    setting: Setting

    @property
    def name(self) -> str:
        """The row in words, for people."""
        return f"{self.what}, {self.setting.model}, objects: {self.setting.objects}, streams: {self.setting.streams}"


@dataclass(frozen=True)
class Size:
    """How much is measured; the tests measure less.

    Attributes:
        frames: In a round.
        rounds: Of each side.
        streams: In the row of many streams.
        objects: In the row of many objects.
        filled: Fill memories after two frames instead of tracking seventeen; see `Setting`.
    """

    frames: int = 20
    rounds: int = 5
    streams: int = STREAMS
    objects: int = OBJECTS
    filled: bool = False


def rows(device: str, models: list[str], size: Size, *, compiled: bool) -> list[Row]:
    """What is to be compared, the most wanted first."""

    def setting(model: str, *, objects: int = 1, streams: int = 1) -> Setting:
        # By torch wherever it runs: a GPU has nothing else, and a trial on a CPU is to go the same way.
        return Setting(
            model,
            device,
            "auto",
            objects,
            streams,
            compiled,
            size.frames,
            size.rounds,
            EXAMPLE,
            filled=size.filled,
            precisions=("float32",),  # of a trial on a CPU; on a GPU the reference has bfloat16 autocast
            runtime="torch",
        )

    def both(model: str) -> list[Row]:
        return [Row("engine", setting(model)), Row("end to end", setting(model))]

    smallest, *others = models
    many = [
        Row("engine", setting(smallest, streams=size.streams)),
        Row("engine", setting(smallest, objects=size.objects)),
    ]
    return [*both(smallest), *many, *(row for model in others for row in both(model))]


def run(planned: list[Row], minutes: float, write: Path | None, console: Console) -> list[dict[str, Any]]:
    """Compare until all is done or the next row, if as slow as the slowest so far, would come too late."""
    results: list[dict[str, Any]] = []
    deadline, slowest = time.monotonic() + minutes * 60, 0.0
    for row in planned:
        if time.monotonic() + slowest > deadline:
            console.print(f"left out for want of time: {row.name}")
            continue
        start = time.monotonic()
        results.append(measured(row, results))
        slowest = max(slowest, time.monotonic() - start)
        console.print(table(results[-1:]))
        if write is not None:
            write.write_text(json.dumps(results, indent=2) + "\n")
    return results


def measured(row: Row, before: list[dict[str, Any]]) -> dict[str, Any]:
    """Measure one row; `before` are the results of the rows above."""
    if row.what == "end to end":
        reference = next((one for one in before if one["what"] == "engine" and one["model"] == row.setting.model), None)
        return end_to_end(row.setting, reference)
    result = measure(row.setting)
    stock = max(fps for side, fps in result["frames_per_second"].items() if _is_stock(side))
    optimized = result["frames_per_second"].get("reference compiled bfloat16 autocast")
    where = "peak_device_bytes" if row.setting.device.startswith("cuda") else "peak_bytes"
    peak = result[where]
    return {
        "what": row.what,
        **result,
        "stock": stock,
        "vos_optimized": optimized,
        "memory": peak["ours"],
        "memory_of_stock": min(size for side, size in peak.items() if _is_stock(side)),
    }


def _is_stock(side: str) -> bool:
    return side.startswith("reference") and "compiled" not in side


def end_to_end(setting: Setting, reference: dict[str, Any] | None) -> dict[str, Any]:
    """Track an H.264 file through a server; start the server twice.

    Args:
        setting: One object of one stream.
        reference: The result of the same model's engine row; None if it was left out.
    """
    frames = WARM_UP_FRAMES + setting.frames
    with tempfile.TemporaryDirectory() as cache:
        first, server = _started(setting, cache)
        server.stop()
        second, server = _started(setting, cache)
    client = Side(client_side, server.first_word, setting.video, frames)
    client.ask(1)  # the first stream warms up
    fps = frames / statistics.median(client.ask(1)[0] for _ in range(setting.rounds))
    memory, dtype, tuning = server.ask("memory")
    client.stop()
    server.stop()
    best = None if reference is None else max(reference["stock"], reference["vos_optimized"] or 0.0)
    return {
        "what": "end to end",
        "model": setting.model,
        "objects": setting.objects,
        "streams": setting.streams,
        "ratio": None if best is None else fps / best,
        "ours": fps,
        "our_dtype": dtype,
        "tuning": tuning,
        "stock": None if reference is None else reference["stock"],
        "vos_optimized": None if reference is None else reference["vos_optimized"],
        "memory": memory,
        "start_seconds": first,
        "second_start_seconds": second,
    }


def _started(setting: Setting, cache: str) -> tuple[float, Side]:
    """Seconds until a server answers, and the server; choices are kept in the folder `cache`."""
    start = time.perf_counter()
    server = Side(server_side, setting, cache)
    return time.perf_counter() - start, server


def server_side(connection: Connection, setting: Setting, cache: str) -> None:
    """A server with this model, which keeps its choices in the folder `cache`.

    It answers every word with its memory on the device, its dtype and its choice.
    """
    device = pick_device(setting.device)
    model = build_model(setting.spec, **setting.weights)
    with mock.patch.object(devices, "tuning_folder", return_value=Path(cache)):
        network = make_network(model, device, setting.dtype, runtime=setting.runtime)
    engines = Engines([Engine({setting.model: network})])
    engines.start()

    def facts() -> tuple[int, str, str]:
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        return memory, str(network.dtype).removeprefix("torch."), network.tuning

    asyncio.run(serve(connection, engines, facts))


def table(results: list[dict[str, Any]]) -> Table:
    """The results for people, the ratio first."""
    shown = Table(
        "ratio",
        "row",
        "model",
        "objects",
        "streams",
        "ours",
        "stock",
        "vos_optimized",
        "memory (stock)",
        "start (again)",
    )
    for one in results:
        memory, stock = _bytes(one["memory"]), _bytes(one.get("memory_of_stock"))
        shown.add_row(
            _number(one["ratio"]),
            one["what"],
            one["model"],
            str(one["objects"]),
            str(one["streams"]),
            f"{one['ours']:.2f} frames/s, {one['our_dtype']}",
            _number(one["stock"]),
            _number(one["vos_optimized"]),
            f"{memory} ({stock})",
            f"{_number(one.get('start_seconds'))} s ({_number(one.get('second_start_seconds'))} s)",
        )
    return shown


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _bytes(value: float | None) -> str:
    return f"{value / 2**20:.0f} MiB" if value else "-"


def main(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:N]")] = "auto",
    model: Annotated[list[str], typer.Option(help="Repeatable; the first also runs with many objects.")] = list(SIZES),  # noqa: B006
    frames: Annotated[int, typer.Option(min=1, help="In a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    minutes: Annotated[float, typer.Option(help="Begin nothing that would take longer.")] = 7.5,
    compiled: Annotated[bool, typer.Option(help="Hold against vos_optimized, too.")] = True,
    streams: Annotated[int, typer.Option(min=1, help="In the row of many streams.")] = STREAMS,
    objects: Annotated[int, typer.Option(min=1, help="In the row of many objects.")] = OBJECTS,
    filled: Annotated[
        bool, typer.Option("--filled", help="Fill memories instead of tracking 17 frames first.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure masklet against SAM2VideoPredictor on a GPU."""
    os.environ["TQDM_DISABLE"] = "1"  # the predictor's own progress bars
    console = Console()
    size = Size(frames, rounds, streams, objects, filled)
    results = run(rows(str(pick_device(device)), model, size, compiled=compiled), minutes, json_file, console)
    console.rule()
    console.print(table(results))
    if results:
        first = results[0]
        console.print(f"{first['device']}, torch {first['torch']}, {first['date']}")


if __name__ == "__main__":
    typer.run(main)
