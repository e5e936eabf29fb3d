"""How live streams are served: `python -m benchmarks.live --seconds 20`.

Frames of the example clip are sent at 10, 30 and 60 a second, to a server inside this process, with each delivery.
Printed are the time from capture to result (median and 99th percentile, by the sender's clock), how many frames were
skipped, how far the sender fell behind its own pace (lossless delivery makes it wait), and by how much the process grew
from a quarter of the run to its end.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

import masklet
from benchmarks.sides import EXAMPLE, EXAMPLE_CLICK
from masklet._live_protocol import Delivery
from masklet._overlay_video import shown_frames
from masklet_server.embedded import EmbeddedServer

DELIVERIES: tuple[Delivery, ...] = ("latest", "lossless")


@dataclass
class Run:
    """One stream.

    Attributes:
        sent: Frames.
        results: Frames tracked.
        skipped: Frames named as skipped.
        latencies: Seconds from capture to result, of each result.
        late: Seconds by which the last frame was sent after its time.
        grown: Bytes of resident memory, from a quarter of the run on.
    """

    sent: int
    results: int
    skipped: int
    latencies: list[float]
    late: float
    grown: int


def resident_bytes() -> int:
    """Of this process, the server in it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def stream(
    client: masklet.Client, frames: list[npt.NDArray[np.uint8]], *, rate: float, seconds: float, delivery: Delivery
) -> Run:
    """Send for so long at that rate, and take all results."""
    count = int(rate * seconds)
    run = Run(count, 0, 0, [], 0.0, 0)
    with client.live(masklet.Prompt(1, point_coords=[EXAMPLE_CLICK]), delivery=delivery) as live:

        def film() -> None:
            begun = time.monotonic()
            for index in range(count):
                due = begun + index / rate
                time.sleep(max(0.0, due - time.monotonic()))
                # Captured when it was due: a sender that has to wait does not make its frames younger.
                captured = time.time_ns() - max(0, int((time.monotonic() - due) * 1e9))
                live.send(frames[index % len(frames)], capture_time_nanoseconds=captured)
                run.late = time.monotonic() - due
            live.end()

        threading.Thread(target=film, daemon=True).start()
        early = 0
        for frame in live:
            run.results += 1
            run.skipped += len(frame.skipped_frame_indices)
            run.latencies.append(frame.latency_seconds or 0.0)
            if not early and frame.frame_index >= count // 4:
                early = resident_bytes()
        run.grown = resident_bytes() - early if early else 0
    return run


def main(
    seconds: Annotated[float, typer.Option(help="Length of each stream.")] = 20.0,
    rate: Annotated[list[float] | None, typer.Option(help="Frames a second; may be repeated.")] = None,
    model: Annotated[str, typer.Option(help="A model's name.")] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Print a table."""
    frames = list(itertools.islice(shown_frames(EXAMPLE), 24))
    table = Table(title=f"{model}, {date.today()}")
    for heading in ("frames/s", "delivery", "results/s", "p50 s", "p99 s", "skipped", "sender late s", "grown MiB"):
        table.add_column(heading, justify="right")
    with EmbeddedServer(model, device=device) as address, masklet.Client(address) as client:
        stream(client, frames, rate=10, seconds=1, delivery="lossless")  # warms up
        for each in rate or [10.0, 30.0, 60.0]:
            for delivery in DELIVERIES:
                run = stream(client, frames, rate=each, seconds=seconds, delivery=delivery)
                spread = statistics.quantiles(run.latencies, n=100) if len(run.latencies) > 1 else [0.0] * 99
                table.add_row(
                    *(f"{each:g}", delivery, f"{run.results / (seconds + run.late):.1f}"),
                    *(f"{spread[49]:.3f}", f"{spread[98]:.3f}", f"{run.skipped} of {run.sent}"),
                    *(f"{run.late:.2f}", f"{run.grown / 2**20:.1f}"),
                )
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
