"""Makes the picture of the README: frames of the demo clip with the masks of nano, side by side.

Run it from the root of the repository: `python -m docs.generate.picture_strip`. It starts a real server, tracks the
two objects of `scripts/demo` through the clip, and writes `docs/images/bunny-strip.jpg`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

import masklet
from masklet_server.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "examples" / "bunny.mp4"
OUT = ROOT / "docs" / "images" / "bunny-strip.jpg"
FRAMES = (0, 40, 120)
PANEL_WIDTH = 560
GAP = 6
QUALITY = 88

Picture = npt.NDArray[np.uint8]


def prompts() -> list[masklet.Prompt]:
    """The clicks of `scripts/demo`: the rabbit (1) and the boulder to its left (2)."""
    return [
        masklet.Prompt(object_id=1, point_coords=[[345, 400]]),
        masklet.Prompt(object_id=2, point_coords=[[130, 450]]),
    ]


def panels(wanted: Collection[int]) -> Iterator[Picture]:
    """The wanted frames of the clip, ``uint8[H, W, 3]`` RGB, with their masks drawn in."""
    with (
        EmbeddedServer("nano", device="cpu") as address,
        masklet.Client(address) as client,
        av.open(str(CLIP)) as video,
    ):
        results = client.track(CLIP, prompts())
        for frame, result in itertools.islice(zip(video.decode(video=0), results, strict=False), max(wanted) + 1):
            if result.frame_index in wanted:
                yield masklet.overlay(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False), result.masks)


def strip(pictures: list[Picture]) -> Image.Image:
    """The pictures in one row, each `PANEL_WIDTH` wide, with a white gap between them."""
    height = round(PANEL_WIDTH * pictures[0].shape[0] / pictures[0].shape[1])
    row = Image.new("RGB", ((PANEL_WIDTH + GAP) * len(pictures) - GAP, height), "white")
    for position, picture in enumerate(pictures):
        panel = Image.fromarray(picture).resize((PANEL_WIDTH, height), Image.Resampling.LANCZOS)
        row.paste(panel, (position * (PANEL_WIDTH + GAP), 0))
    return row


def main() -> None:
    """Write the strip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    strip(list(panels(FRAMES))).save(out, quality=QUALITY, optimize=True)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
