"""How live streams are served: `python -m benchmarks.live --seconds 20`.

Frames of the example clip are sent at 10, 30 and 60 a second to a server in a process of its own, with each delivery,
as JPEG pictures (as most cameras send them), raw RGB pictures, or packets of H.264. Printed are the time from capture
to result (median and 99th percentile, by the sender's clock, a stream's first second left out), the same 99th
percentile in frames' times of the server, how many frames were skipped, how far the sender fell behind its own pace
(lossless delivery makes it wait), and by how much the server grew from a quarter of the run to its end.
"""

from __future__ import annotations

import enum
import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.table import Table

import masklet
from benchmarks.serving import Side
from benchmarks.sides import EXAMPLE, EXAMPLE_CLICK
from masklet import Delivery
from masklet._media.frames import shown_frames
from masklet_server.embedded import EmbeddedServer
from masklet_server.engine.network.device import device_name, pick_device

DELIVERIES: tuple[Delivery, ...] = ("latest", "lossless")
_FRAMES = 24
_WARM_UP_SECONDS = 1.0  # a decoder starts, which is not what a stream that never ends waits for

Sent = bytes | npt.NDArray[np.uint8] | masklet.VideoPacket


class Form(str, enum.Enum):
    """What is sent."""

    JPEG = "jpeg"
    RAW = "raw"
    PACKETS = "packets"


@dataclass
class Run:
    """One stream.

    Attributes:
        sent: Frames.
        results: Frames tracked.
        skipped: Frames named as skipped.
        latencies: Seconds from capture to result, of each result after the first second.
        seconds: From the first frame sent to the last result.
        late: Seconds by which the last frame was sent after its time.
        grown: Bytes of the server's resident memory, from a quarter of the run on.
    """

    sent: int
    results: int
    skipped: int
    latencies: list[float]
    seconds: float
    late: float
    grown: int


def frames_to_send(form: Form) -> list[Sent]:
    """A second or so of the example; the packets begin with a key frame, and so may be repeated for ever."""
    pictures = list(itertools.islice(shown_frames(EXAMPLE), _FRAMES))
    if form is Form.RAW:
        return list(pictures)
    if form is Form.JPEG:
        return [cv2.imencode(".jpg", cv2.cvtColor(p, cv2.COLOR_RGB2BGR))[1].tobytes() for p in pictures]
    return list(_packets(pictures))


def _packets(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[masklet.VideoPacket]:
    """H.264 as cameras send it: no frame is held back for one after it, and headers come with each key frame."""
    with tempfile.NamedTemporaryFile(suffix=".h264") as file, av.open(file.name, "w", format="h264") as output:
        options = {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}
        stream = output.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        units = [
            bytes(packet)
            for picture in pictures
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        ]
    return [masklet.VideoPacket(unit, codec="h264") for unit in units]


def server_side(connection: Connection, model: str, device: str) -> None:
    """A server; tells its address, then answers every word with its resident bytes, until None comes."""
    with EmbeddedServer(model, device) as address:
        connection.send(address)
        while connection.recv() is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            connection.send(pages * os.sysconf("SC_PAGESIZE"))


def stream(
    client: masklet.Client, server: Side, frames: Sequence[Sent], *, rate: float, seconds: float, delivery: Delivery
) -> Run:
    """Send for so long at that rate, and take all results."""
    count = int(rate * seconds)
    run = Run(count, 0, 0, [], 0.0, 0.0, 0)
    with client.live(masklet.Prompt(1, point_coords=[EXAMPLE_CLICK]), delivery=delivery) as live:
        begun = time.monotonic()

        def film() -> None:
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
            if frame.frame_index >= rate * _WARM_UP_SECONDS:
                run.latencies.append(frame.latency_seconds or 0.0)
            if not early and frame.frame_index >= count // 4:
                early = server.ask("memory")
        run.seconds = time.monotonic() - begun
        run.grown = server.ask("memory") - early if early else 0
    return run


def row(run: Run, rate: float, delivery: Delivery) -> list[str]:
    """What the table says of a stream."""
    spread = statistics.quantiles(run.latencies, n=100) if len(run.latencies) > 1 else [0.0] * 99
    throughput = run.results / run.seconds
    return [
        *(f"{rate:g}", delivery, f"{throughput:.1f}", f"{spread[49]:.3f}", f"{spread[98]:.3f}"),
        *(f"{spread[98] * throughput:.1f}", f"{run.skipped} of {run.sent}", f"{run.late:.2f}"),
        f"{run.grown / 2**20:.1f}",
    ]


def main(
    seconds: Annotated[float, typer.Option(min=2.0, help="Length of each stream.")] = 20.0,
    rate: Annotated[list[float] | None, typer.Option(help="Frames a second; may be repeated.")] = None,
    form: Annotated[Form, typer.Option(help="What is sent.")] = Form.JPEG,
    model: Annotated[str, typer.Option(help="A model's name.")] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Print a table."""
    frames = frames_to_send(form)
    table = Table(title=f"{model}, {form.value}, {date.today()}, {device_name(pick_device(device))}")
    for heading in ("frames/s", "delivery", "results/s", "p50 s", "p99 s", "p99 frames", "skipped", "late s", "MiB"):
        table.add_column(heading, justify="right")
    server = Side(server_side, model, device)
    try:
        with masklet.Client(server.first_word) as client:
            stream(client, server, frames, rate=10, seconds=2, delivery="lossless")  # warms up
            for each, delivery in itertools.product(rate or [10.0, 30.0, 60.0], DELIVERIES):
                run = stream(client, server, frames, rate=each, seconds=seconds, delivery=delivery)
                table.add_row(*row(run, each, delivery))
    finally:
        server.stop()
    console = Console(width=110)
    console.print(table)
    console.print(f"{os.cpu_count()} cores, torch {torch.__version__}; late: of the sender; MiB: the server's growth")


if __name__ == "__main__":
    typer.run(main)
