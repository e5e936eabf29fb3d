"""What decoding costs if parts are left out: `python -m benchmarks.latest_decoding`.

A clip is encoded at 1920 x 1080 in two ways, and its packets are decoded by each `latest_decoding` of the server, by
turns, by the server's own decoder with one thread and without its sandbox. Milliseconds are of processor time, for each
packet. The error is the mean difference from what "full" decodes, of the pictures at the model's size, 0 to 255.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections import defaultdict
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from av.video.frame import PictureType
from rich.console import Console
from rich.table import Table

from benchmarks.sides import EXAMPLE
from masklet_server.video.formats import LATEST_DECODING
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import OpenCodec
from masklet_server.video.worker.packet_decoder import PacketDecoder

CLIPS = {
    "camera, no B-frames": {"preset": "veryfast", "tune": "zerolatency", "b": "8000000"},
    "2 B-frames": {"preset": "medium", "crf": "20", "bf": "2", "b_strategy": "0", "b-pyramid": "none"},
}


def packets_of(video: Path, frames: int, options: dict[str, str], size: tuple[int, int]) -> list[bytes]:
    """A video's first frames in H.264 at another size."""
    file = io.BytesIO()
    width, height = size
    with av.open(str(video)) as source, av.open(file, "w", format="mpegts") as target:
        stream = target.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, (frame, _) in enumerate(zip(source.decode(video=0), range(frames), strict=False)):
            large = frame.reformat(width=width, height=height, format="yuv420p")
            large.pts, large.time_base = index, Fraction(1, 30)
            large.pict_type = PictureType.NONE  # else the encoder makes each frame what it was in the file
            target.mux(stream.encode(large))
        target.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def decode(packets: list[bytes], decoding: str) -> tuple[float, dict[int, Any]]:
    """Processor milliseconds for each packet, and the pictures by the number of their packet."""
    codec = OpenCodec("h264", False, b"", decoding)
    decoder = PacketDecoder(codec, VideoLimits(), image_size=384)
    start = time.process_time()
    shown = [frame for index, data in enumerate(packets) for frame in decoder.decode(data, index)]
    shown += decoder.drain()
    spent = time.process_time() - start
    return spent / len(packets) * 1000, {frame.pts: np.frombuffer(frame.pixels, np.uint8) for frame in shown}


def measure(packets: list[bytes], rounds: int) -> dict[str, tuple[float, int, float]]:
    """For each way: milliseconds, frames that are decoded, and their mean error."""
    spent: dict[str, list[float]] = defaultdict(list)
    shown: dict[str, dict[int, Any]] = {}
    for _ in range(rounds):
        for name in LATEST_DECODING:
            milliseconds, shown[name] = decode(packets, name)
            spent[name].append(milliseconds)
    exact = shown["full"]
    return {
        name: (
            statistics.median(spent[name]),
            len(found),
            float(np.mean([np.abs(pixels.astype(int) - exact[pts]).mean() for pts, pixels in found.items()])),
        )
        for name, found in shown.items()
    }


def main(
    frames: Annotated[int, typer.Option(min=1)] = 60,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    video: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = EXAMPLE,
    size: Annotated[tuple[int, int], typer.Option(help="Width and height.")] = (1920, 1080),
) -> None:
    """Measure each way to decode less."""
    table = Table("clip", "latest_decoding", "ms of processor", "frames", "error")
    for name, options in CLIPS.items():
        for decoding, (spent, count, error) in measure(packets_of(video, frames, options, size), rounds).items():
            table.add_row(name, decoding, f"{spent:.2f}", str(count), f"{error:.2f}")
    Console().print(table)
    print(f"{os.cpu_count()} cores, {size[0]} x {size[1]}, {date.today().isoformat()}")


if __name__ == "__main__":
    typer.run(main)
