"""Memory of a server before load, under it, and after it: `python -m benchmarks.idle_memory`.

A server with nano tracks four objects in each of several streams at once, and answers pictures. The last row is read
while one more stream has stayed open: a server that is never quite idle gives memory back, too.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

import masklet
from masklet import Live, Prompt

MIB = 1024**2
HEIGHT, WIDTH, OBJECTS = 720, 1280, 4


@dataclass(frozen=True)
class Reading:
    """Anonymous memory of the server's process, in bytes. Pages of libraries come and go as the machine pleases.

    Attributes:
        start: When it has said that it listens.
        peak: Most of it under load.
        idle: Some time after the last stream has ended.
        beside_a_stream: After the same load once more, while one stream that does little has stayed open.
    """

    start: int
    peak: int
    idle: int
    beside_a_stream: int


class ServerProcess:
    """A `masklet serve` of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", "from masklet.cli import main; main()", "serve", "--device", "cpu"]
        self._process = subprocess.Popen(
            [*command, "--address", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().split("listening on ")[1].split()[0]

    def memory(self) -> int:
        """Bytes of anonymous memory."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def least(self, seconds: float) -> int:
        """The least bytes in so many seconds, in which free memory is given back."""
        until, found = time.monotonic() + seconds, self.memory()
        while time.monotonic() < until:
            time.sleep(0.2)
            found = min(found, self.memory())
        return found

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def noise(count: int) -> list[np.typing.NDArray[np.uint8]]:
    """Pictures ``uint8[H, W, 3]`` that no decoder finds easy."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(count)]


def load(server: ServerProcess, streams: int, frames: int) -> int:
    """Track so many streams at once, and ask about as many pictures; returns the most bytes that the server had."""
    pictures = noise(frames)

    def stream(_: int) -> int:
        prompts = [Prompt(i + 1, point_coords=[(100.0 + 200 * i, 300.0)]) for i in range(OBJECTS)]
        with masklet.Client(server.address) as client:
            return len(list(client.track(iter(pictures), prompts)))

    def picture(number: int) -> None:
        file = io.BytesIO()
        Image.new("RGB", (3000 + number, 3000), (90, number, 90)).save(file, "JPEG")
        with masklet.Client(server.address) as client:
            client.segment(file.getvalue(), point_coords=[(9.0, 9.0)])

    peak = 0
    with ThreadPoolExecutor(2 * streams) as pool:
        running = [pool.submit(work, i) for i in range(streams) for work in (stream, picture)]
        while not all(work.done() for work in running):
            peak = max(peak, server.memory())
            time.sleep(0.1)
        for work in running:
            work.result()
    return peak


def measure(streams: int, frames: int, *, wait: float) -> Reading:
    """Load a new server twice, the second time beside a stream that stays.

    Args:
        streams: At once.
        frames: Of each stream.
        wait: Seconds after the load in which the server may give memory back.
    """
    server = ServerProcess()
    try:
        start = server.memory()
        peak = load(server, streams, frames)
        idle = server.least(wait)
        over = threading.Event()
        with masklet.Client(server.address) as client, client.live(Prompt(point_coords=[(50.0, 50.0)])) as live:
            sender = threading.Thread(target=_send_slowly, args=(live, over))
            sender.start()
            next(iter(live))
            load(server, streams, frames)
            beside = server.least(wait)
            over.set()
            sender.join()
        return Reading(start, peak, idle, beside)
    finally:
        server.close()


def _send_slowly(live: Live, over: threading.Event) -> None:
    (picture,) = noise(1)
    while not over.is_set():
        live.send(picture)
        over.wait(2.0)
    live.end()


def main(streams: Annotated[int, typer.Option(min=1)] = 8, frames: int = 24, wait: float = 60.0) -> None:
    """Measure what a server has before, under and after load."""
    found = measure(streams, frames, wait=wait)
    print(f"{streams} streams of {frames} frames at {WIDTH}x{HEIGHT}, {OBJECTS} objects each, and as many pictures:")
    print(f"  at the start {found.start / MIB:.0f} MiB, most under load {found.peak / MIB:.0f} MiB")
    print(f"  idle after it {found.idle / MIB:.0f} MiB, beside one quiet stream {found.beside_a_stream / MIB:.0f} MiB")


if __name__ == "__main__":
    typer.run(main)
