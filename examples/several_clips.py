"""Track one object in each of several clips at once: python examples/several_clips.py [CLIP X,Y ...].

Start a server first (`masklet serve`). It tracks the streams in common batches. Without clips the program tracks the
rabbit and the boulder of the example clip, each in a stream of its own.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import masklet

CLIP = str(Path(__file__).parent / "bunny.mp4")
RABBIT_AND_BOULDER = [CLIP, "360,480", CLIP, "130,450"]


async def track(client: masklet.AsyncClient, clip: str, click: tuple[float, float]) -> None:
    """Track an object in one clip, and print on how many frames it is visible."""
    seen = total = 0
    async for frame in client.track(clip, masklet.Prompt(point_coords=[click])):
        total += 1
        seen += frame.objects[1].visible
    print(f"{clip}: visible on {seen} of {total} frames")


async def main(arguments: list[str]) -> None:
    """Track in all clips of the command line."""
    arguments = arguments or RABBIT_AND_BOULDER
    clicks = [tuple(float(part) for part in click.split(",")) for click in arguments[1::2]]
    async with masklet.AsyncClient("127.0.0.1:50051") as client:
        await asyncio.gather(
            *(track(client, clip, (x, y)) for clip, (x, y) in zip(arguments[::2], clicks, strict=True))
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
