"""Memory of a server while one stream runs long: `python -m benchmarks.growth`.

A server with nano, shrunk so that thousands of frames take a minute, follows an object; what its process and its
decoder's hold in memory is read at frame 100 and at the last one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from benchmarks.serving import Side, serve
from masklet import Client, Prompt
from masklet_server.engine.engines import Engines
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.engine import Engine
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry

HEIGHT, WIDTH, IMAGE_SIZE = 240, 320, 128
FIRST = 100


def small_side(connection: Connection) -> None:
    """A server with the small model, which answers every word with the bytes it holds."""
    torch.set_num_threads(1)
    model = build_model(Registry.load().get("nano"), image_size=IMAGE_SIZE)
    engines = Engines([Engine({"nano": Network(model, torch.device("cpu"), torch.bfloat16)})])
    engines.start()
    asyncio.run(serve(connection, engines, _resident_bytes))
    asyncio.run(engines.close())


def _resident_bytes() -> int:
    """Of this process and its children."""
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    # Anonymous memory: pages of files come and go as the machine pleases.
    return sum(_anonymous_bytes(Path(f"/proc/{pid}/status")) for pid in ("self", *children))


def _anonymous_bytes(status: Path) -> int:
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("RssAnon"))


def pictures(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A square that goes round."""
    for i in range(count):
        picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        x, y = WIDTH // 2 + int(80 * np.cos(i / 30)), HEIGHT // 2 + int(60 * np.sin(i / 30))
        picture[y - 30 : y + 30, x - 30 : x + 30] = (230, 200, 40)
        yield picture


def measure(frames: int) -> dict[str, Any]:
    """Bytes at frame 100 and at the end."""
    server = Side(small_side)
    held = {}
    with Client(server.first_word) as client, client.live(_prompt(), delivery="lossless") as live:
        sender = threading.Thread(target=_send, args=(live, frames))
        sender.start()
        for result in live:
            if result.frame_index + 1 in (FIRST, frames):
                held[result.frame_index + 1] = server.ask("memory")
        sender.join()
    server.stop()
    return {"frames": frames, "first_bytes": held[FIRST], "last_bytes": held[frames]}


def _prompt() -> Prompt:
    return Prompt(point_coords=[(WIDTH / 2 + 80, HEIGHT / 2)])


def _send(live: Any, frames: int) -> None:
    for picture in pictures(frames):
        live.send(picture)
    live.end()


def main(frames: Annotated[int, typer.Option(min=FIRST + 1)] = 3000) -> None:
    """Measure what a server holds while a stream runs."""
    result = measure(frames)
    first, last = result["first_bytes"] / 2**20, result["last_bytes"] / 2**20
    print(f"frame {FIRST}: {first:.1f} MiB, frame {frames}: {last:.1f} MiB, growth {last - first:+.1f} MiB")


if __name__ == "__main__":
    typer.run(main)
