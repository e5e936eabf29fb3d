"""What a person waits for at the studio's page: `python -m benchmarks.studio`.

A real Chromium, driven by Playwright, opens `masklet studio` on the example clip and on the same clip, encoded anew
with 300 frames:

- **first picture**: from the start of `masklet studio CLIP` (with its own server) to the picture on the page. The
  browser runs already.
- **first click**: on a frame that was looked at for a second and never clicked, to the mask on the page.
- **later clicks**: on the same frame.
- **frame change**: from the key to the next frame, which is in the page's cache.
- **masks drawn**: of two objects, from frame to frame as fast as it goes, with pictures; no outline is known before.
- **memory** of page and gateway (its server runs elsewhere): with a clip of 10,000 frames just opened, after it was
  looked through, and after it was looked through again.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import av
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import _page
from benchmarks.sides import EXAMPLE, EXAMPLE_CLICK
from masklet_server.embedded import EmbeddedServer

SIZE = (1280, 720)
BARS = {"first picture": 3.0, "first click": 0.15, "later clicks": 0.15, "frame change": 0.05, "masks drawn": 60.0}
"""Seconds, and masks a second; of a machine with 2 cores and `nano`."""
LONG = 10_000
_REST = 1.0
_TRACKED = 60
_STEPS = 20


@dataclass
class Found:
    """What was measured on one clip.

    Attributes:
        clip: What it is.
        seconds: Each thing that a person waits for, with all times.
        masks: Masks drawn.
        masks_seconds: How long drawing them took.
    """

    clip: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    masks: int = 0
    masks_seconds: float = 0.0


def at_720p(source: Path, target: Path, frames: int) -> None:
    """The example clip at 720p, forward and backward until it has so many frames."""
    with av.open(str(source)) as opened:
        pictures = [frame.reformat(*SIZE, format="yuv420p") for frame in opened.decode(video=0)]
    there_and_back = [*pictures, *pictures[-2:0:-1]]
    with av.open(str(target), "w", format="mp4") as written:
        stream = written.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = there_and_back[index % len(there_and_back)]
            picture.pts = index
            written.mux(stream.encode(picture))
        written.mux(stream.encode())


def measure(clip: Path, name: str, place: Sequence[float], browser: Any, work: Path, rounds: int) -> Found:
    """Measure one clip.

    Args:
        clip: The video.
        name: What it is.
        place: Where an object is on frame 0, [x, y].
        browser: Playwright's.
        work: An empty folder.
        rounds: How often each thing is measured.
    """
    found = Found(name)
    for turn in range(rounds):
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        with _page.studio(clip, work / f"first-{turn}") as (url, begun, _):
            found.seconds.setdefault("first picture", []).append(_page.Page(tab).open(url) - begun)
            tab.close()
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    with _page.studio(clip, work / "work") as (url, _, _):
        page = _page.Page(tab)
        page.open(url)
        page.ready()
        page.new_object()
        page.click(*place)  # the server's first click of all, after which the model is warm
        for turn in range(2 * rounds):
            page.new_object()
            page.rest(2 + turn, _REST)
            found.seconds.setdefault("first click", []).append(page.click(*place))
            for move in (25, 50):  # so far apart that none takes the one before away
                found.seconds.setdefault("later clicks", []).append(page.click(place[0] + move, place[1]))
        page.track([list(place), [place[0] / 2, place[1] / 2]], _TRACKED)
        page.rest(0, _REST)
        for index in range(_STEPS):
            found.seconds.setdefault("frame change", []).append(page.step(index % _STEPS < _STEPS // 2))
        found.masks, found.masks_seconds = page.draw(0, _TRACKED)
        tab.close()
    return found


def memory(clip: Path, browser: Any, work: Path) -> dict[str, list[int]]:
    """Bytes of page and gateway: with a clip just opened, and after it was looked through once and twice.

    The gateway keeps frames that were looked at, up to `cache_bytes` of `masklet_studio.studio`. Once is enough to fill
    that, so the last two figures say whether memory grows.
    """
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    with EmbeddedServer() as server, _page.studio(clip, work / "long", server) as (url, _, gateway):
        page = _page.Page(tab)
        page.open(url)
        page.ready()
        held: dict[str, list[int]] = {"page": [], "gateway": []}
        for frames, step in ((60, 1), (LONG, 7), (LONG, 6)):
            page.scrub(frames, step)
            held["page"].append(_page.renderers(os.getpid()))
            held["gateway"].append(_page.resident(gateway))
        tab.close()
    return held


def rows(found: Found) -> list[list[str]]:
    """The lines of the table for one clip."""
    lines = []
    for what, seconds in found.seconds.items():
        spread = sorted(seconds)
        p95 = spread[min(len(spread) - 1, round(0.95 * (len(spread) - 1)))]
        figures = [f"{1000 * value:.0f} ms" for value in (statistics.median(spread), p95, spread[-1], BARS[what])]
        lines.append([found.clip, what, str(len(seconds)), *figures])
    pace = found.masks / found.masks_seconds
    lines.append([found.clip, "masks drawn", str(found.masks), f"{pace:.0f}/s", "", "", f"{BARS['masks drawn']:.0f}/s"])
    return lines


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often the studio is started for each clip.")] = 5,
    clip: Annotated[list[str] | None, typer.Option(help="example or 720p; may be repeated. Default: both.")] = None,
    long: Annotated[bool, typer.Option(help="Also measure memory with a clip of 10,000 frames.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")] = None,
) -> None:
    """Print a table."""
    place = [float(value) for value in EXAMPLE_CLICK]
    with av.open(str(EXAMPLE)) as opened:
        stream = opened.streams.video[0]
        scale = (SIZE[0] / stream.width, SIZE[1] / stream.height)
    with tempfile.TemporaryDirectory() as folder, _page.chromium() as browser:
        work, large = Path(folder), Path(folder) / "720p.mp4"
        chosen = clip or ["example", "720p"]
        if "720p" in chosen:
            at_720p(EXAMPLE, large, 300)
        clips = {"example": (EXAMPLE, place), "720p": (large, [place[0] * scale[0], place[1] * scale[1]])}
        found = [measure(clips[name][0], name, clips[name][1], browser, work / name, rounds) for name in chosen]
        held: dict[str, list[int]] = {}
        if long:
            at_720p(EXAMPLE, work / "long.mp4", LONG)
            held = memory(work / "long.mp4", browser, work)
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "date": str(date.today()),
    }
    table = Table(title=f"{machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f}, {date.today()}")
    for heading in ("clip", "what", "n", "median", "p95", "max", "bar"):
        table.add_column(heading, justify="left" if heading in ("clip", "what") else "right")
    for one in found:
        for line in rows(one):
            table.add_row(*line)
    Console(width=100).print(table)
    if held:
        memories = Table(title=f"memory, a clip of {LONG} frames at 720p")
        for heading in ("process", "opened", "looked through", "again"):
            memories.add_column(heading, justify="left" if heading == "process" else "right")
        for what, sizes in held.items():
            memories.add_row(what, *(f"{size / 2**20:.0f} MiB" for size in sizes))
        Console(width=100).print(memories)
    if json_file is not None:
        json_file.write_text(json.dumps({**machine, "clips": [asdict(one) for one in found], "memory": held}, indent=1))


if __name__ == "__main__":
    typer.run(main)
