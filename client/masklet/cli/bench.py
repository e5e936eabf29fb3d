"""`masklet bench`: how fast a server is, and where the time of a frame goes."""

from __future__ import annotations

import dataclasses
import io
import json
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box as boxes
from rich.table import Table

from masklet._media.atomic_file import replacing
from masklet.cli.console import out, waiting
from masklet.cli.prompts import BoxOption, PointOption, read_prompts
from masklet.cli.server import (
    Access,
    CaOption,
    CertOption,
    InsecureOption,
    KeyOption,
    ModelOption,
    ServerOption,
    TokenFileOption,
)
from masklet.errors import InvalidArgument, Unimplemented
from masklet.prompts import Prompt

if TYPE_CHECKING:
    from masklet import Client, Timings, VideoInfo
    from masklet._media.uploads import VideoSource

# The clip that is made if none is given. All streams of a curve must be at work at the same time for a while.
_FRAMES_OF_CURVE = 150
_HEIGHT, _WIDTH, _FRAMES, _RADIUS = 720, 1280, 30, 90
_BESIDE = ("decode", "mask", "send")
_STAGES = ("decode", "queue", "encode", "step", "mask", "send")


@dataclass(frozen=True)
class StreamRun:
    """What was measured on one stream.

    Attributes:
        seconds: From the call to its last result.
        timings: Of all frames but the first one, for which a decoder is started and the prompt applied.
        times: When each result came, in seconds of one clock for all streams.
    """

    seconds: float
    timings: Sequence[Timings]
    times: Sequence[float] = ()

    @property
    def frames(self) -> int:
        """The number of results, with the first one."""
        return len(self.timings) + 1


def bench(
    video: Annotated[
        Path | None,
        typer.Argument(
            metavar="VIDEO",
            help="A video file or a folder of pictures. Default: a short clip that is made for the purpose.",
        ),
    ] = None,
    point: PointOption = None,
    box: BoxOption = None,
    streams: Annotated[int, typer.Option(min=1, help="How many streams run at once, all with the same video.")] = 1,
    curve: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Measure with each of these numbers of streams: the curve from which benchmarks.simulate computes how "
            "many devices serve how many streams.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.", rich_help_panel="Results"),
    ] = None,
    model: ModelOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Measure how many frames a second a server tracks, and where the time of a frame goes.

    Without prompts it tracks the object in the middle of the first frame. A stage that several frames or objects run
    through together counts in full for each of them.
    """
    from masklet._media.uploads import video_path

    numbers = [] if curve is None else _numbers(curve)
    source: VideoSource = (
        _make_clip(_FRAMES if curve is None else _FRAMES_OF_CURVE) if video is None else video_path(video)
    )
    prompts = read_prompts(points=point, boxes=box) if point or box else []
    with Access(server, token_file, ca, cert, key, insecure).connect(model) as client:
        with waiting(f"tracking {streams} x {'a clip made for the purpose' if video is None else video.name} ..."):
            prompts = prompts or [_middle(_begin(client, source, [], model or ""))]
            _begin(client, source, prompts, model or "")
            runs = _run(client, source, prompts, model or "", streams)
            points = [
                curve_point(runs if n == streams else _run(client, source, prompts, model or "", n)) for n in numbers
            ]
        where = client.info()
    result = {
        "server": server or "in this process",
        "server_version": where.server_version,
        "device": where.device_name,
        "model": model or next((m.name for m in where.models if m.default), ""),
        "tuning": next((m.tuning for m in where.models if m.answers_to(model or "")), ""),
        "objects": len({prompt.object_id for prompt in prompts}),
        **summary(runs),
    }
    if points:
        result["curve"] = points
        # What a frame takes beside the device, in which rounds of several streams are computed.
        result["overhead_seconds"] = sum(result["milliseconds"][name]["median"] for name in _BESIDE) / 1000
    _print(result)
    if json_file is not None:
        with replacing(json_file) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def summary(runs: Sequence[StreamRun]) -> dict[str, Any]:
    """The figures of streams that ran at once: frames per second, and milliseconds of each stage."""
    rates = [run.frames / run.seconds for run in runs]
    times = [dataclasses.asdict(timings) for run in runs for timings in run.timings]
    return {
        "streams": len(runs),
        "frames": sum(run.frames for run in runs),
        "frames_per_second": sum(run.frames for run in runs) / max(run.seconds for run in runs),
        "frames_per_second_of_a_stream": statistics.median(rates),
        "slowest_stream": min(rates),
        "quickest_stream": max(rates),
        "milliseconds": {stage: _spread([1000 * one[stage] for one in times]) for stage in _STAGES},
    }


def curve_point(runs: Sequence[StreamRun]) -> dict[str, float]:
    """A point of the curve: how long a device takes for one frame of each of so many streams.

    Only the time in which all of them get results counts: until then decoders start.

    Raises:
        InvalidArgument: There is no such time.
    """
    begin, end = max(run.times[0] for run in runs), min(run.times[-1] for run in runs)
    together = sum(begin < time <= end for run in runs for time in run.times)
    if together < len(runs):
        raise InvalidArgument.of(
            "video", f"is too short: {len(runs)} streams were hardly at work at the same time; give a longer one"
        )
    rate = together / (end - begin)
    return {"streams": len(runs), "frames_per_second": rate, "round_seconds": len(runs) / rate}


def _numbers(word: str) -> list[int]:
    """The value of --curve."""
    parts = word.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(f"is {word}, must be numbers of streams, such as 1,2,4,8", param_hint="--curve")
    return sorted({int(part) for part in parts})


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile (nearest rank)."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "p95": ordered[-(-95 * len(ordered) // 100) - 1]}


def _begin(client: Client, video: VideoSource, prompts: list[Prompt], model: str) -> VideoInfo:
    """Track a few frames, so that the server has done what it does only once; returns what it says of the video."""
    with client.track(video, prompts, model=model) as tracking:
        count = sum(1 for _ in zip(range(3), tracking, strict=False))
        if count < 2 or tracking.video is None:
            raise InvalidArgument.of("video", f"has {count} frames, too few to measure; at least 2 are needed")
        return tracking.video


def _run(client: Client, video: VideoSource, prompts: list[Prompt], model: str, streams: int) -> list[StreamRun]:
    """Track the same video on several streams at once."""
    together = threading.Barrier(streams)

    def track(_: int) -> StreamRun:
        together.wait()
        start = time.perf_counter()
        # Masks are decoded, as a user would do; this takes time here and none on the server.
        results = [
            (frame.timings, len(frame.masks), time.perf_counter())
            for frame in client.track(video, prompts, model=model, timings=True)
        ]
        seconds = time.perf_counter() - start
        timings = [timings for timings, *_ in results[1:] if timings is not None]
        if len(timings) != len(results) - 1:
            raise Unimplemented("the server sent no timings: it is older than this client")
        return StreamRun(seconds, timings, [when for *_, when in results])

    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(track, range(streams)))


def _middle(video: VideoInfo) -> Prompt:
    return Prompt(point_coords=[(video.width / 2, video.height / 2)])


def _make_clip(frames: int) -> bytes:
    """A clip in H.264: a bright disc that moves from the middle to the right, over a background with some texture."""
    import av
    import numpy as np

    y, x = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
    ground = 90 + 40 * np.sin(x / 23) * np.cos(y / 31)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for i in range(frames):
            inside = np.hypot(x - _WIDTH / 2 - 6 * (i % _FRAMES), y - _HEIGHT / 2) < _RADIUS
            gray = np.where(inside, 235, ground).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _print(result: dict[str, Any]) -> None:
    console = out()
    server = f"server {result['server']}, masklet {result['server_version']}"
    console.print(f"{result['model']} on {result['device']}, {server}", markup=False, soft_wrap=True)
    if result["tuning"]:
        console.print(f"measured on this device: {result['tuning']}", markup=False, soft_wrap=True)
    console.print(
        f"streams: {result['streams']}, objects in each: {result['objects']}, frames of all: {result['frames']}",
        soft_wrap=True,
    )
    console.print(
        f"all streams together: {result['frames_per_second']:.2f} frames/s; one stream (median): "
        f"{result['frames_per_second_of_a_stream']:.2f}, the slowest {result['slowest_stream']:.2f}, "
        f"the quickest {result['quickest_stream']:.2f}",
        soft_wrap=True,
    )
    table = Table(box=boxes.SIMPLE_HEAD)
    table.add_column("stage of a frame")
    for heading in ("median ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for stage, spread in result["milliseconds"].items():
        table.add_row(stage, f"{spread['median']:.2f}", f"{spread['p95']:.2f}")
    console.print(table)
    for point in result.get("curve", ()):
        console.print(
            f"{point['streams']} streams: {point['frames_per_second']:.2f} frames/s, "
            f"{1000 * point['round_seconds']:.1f} ms for a frame of each"
        )
