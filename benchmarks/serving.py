"""What serving costs beside the engine: `python -m benchmarks.serving`.

Three comparisons, each side in processes of its own and by turns, medians compared:

- *end to end*: an H.264 file through a server to masks in a client's process, against the engine alone on the same
  frames in memory;
- *streams*: several files at once, against the same files one after the other;
- *overhead*: processor time of everything but the engine (decoding, resizing, run-lengths, protobuf, gRPC) for a frame
  of a 1080p file, with an engine that answers at once. A session's start, which costs the same for any length,
  is told by itself.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import av
import cv2
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.sides import EXAMPLE, EXAMPLE_CLICK, read_frames
from masklet import Client, Prompt
from masklet_server.embedded import EmbeddedServer
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.network.device import device_name, make_network, pick_device
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.jobs import (
    FrameInput,
    FrameOutput,
    ObjectOutput,
    ObjectTask,
    StreamContext,
    Track,
    TrackingJob,
)
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.engine.serving.picture_jobs import PictureJob, PictureOutput
from masklet_server.engine.serving.recent_features import RecentFeatures
from masklet_server.masks.runs import Runs
from masklet_server.metrics import Metrics
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from masklet_server.rpc.segment_image import ServingEngines
from masklet_server.rpc.server import Server
from masklet_server.rpc.tracking_service import TrackingService
from masklet_server.settings import checked
from masklet_server.video.sandbox import fork_server

FULL_HD = (1920, 1080)


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        model: Name of a model whose checkpoint is here.
        device: "cpu" or "cuda:0".
        video: A 720p H.264 file.
        frames: Of it, in each run of one stream.
        stream_frames: Of it, in each of several streams.
        rounds: Runs of each side.
        streams: At once.
    """

    model: str
    device: str
    video: Path
    frames: int
    stream_frames: int
    rounds: int
    streams: int

    @property
    def prompt(self) -> Prompt:
        """One click."""
        return Prompt(point_coords=[EXAMPLE_CLICK])


class InstantEngine:
    """Answers every job at once, with one and the same mask: what is left is the cost of all the rest.

    It takes frames as nano does. Finding the mask's runs, which the engine does, counts among the rest: a client's mask
    begins there. Guided edges, which the engine draws, know where there may be foreground: a sixth of the frame around.
    """

    default_model = "instant"

    def __init__(self, image_size: int, height: int, width: int) -> None:
        self.models: Mapping[str, LoadedModel] = {
            "instant": LoadedModel("instant", image_size, image_size // 4, "float32", "cpu", "none", 0, scaling="area")
        }
        mask = np.zeros((height, width), np.uint8)
        for i in range(40):  # an outline with as many turns as that of an animal
            cv2.circle(mask, (width // 3 + 12 * i, height // 2 + (37 * i) % 120), 40 + (13 * i) % 50, 1, -1)
        left, top, columns, rows = cv2.boundingRect(mask)
        self._size = height, width
        self._top, self._left = max(0, top - height // 6), max(0, left - width // 6)
        bottom, right = top + rows + height // 6, left + columns + width // 6
        self._part = mask[self._top : bottom, self._left : right].astype(bool)

    def place(self) -> InstantEngine:
        """The engine for a new session: this one."""
        return self

    def new_bank(
        self, model: str, *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> MemoryBank:
        """An empty one, which stays so."""
        return MemoryBank(model, correction_window=correction_window)

    def load_bank(self, model: str, data: bytes) -> MemoryBank:
        """A memory that was dumped."""
        return MemoryBank.load(data, model=model)

    def new_history(self, model: str, file: TensorFile) -> History:
        """Likewise."""
        return History(model, file)

    async def run(self, job: TrackingJob) -> FrameOutput:
        """The mask for every object and prompt."""
        assert isinstance(job, Track)
        return FrameOutput([self._look() for _ in job.tasks], [[self._look() for _ in t.prompts] for t in job.tasks])

    def _look(self) -> ObjectOutput:
        return ObjectOutput(Runs.of_part(self._part, self._top, self._left, *self._size), 0.9, 5.0)

    async def segment(self, job: PictureJob) -> PictureOutput:
        """Not asked for here."""
        raise NotImplementedError

    async def forget(self, stream: str) -> None:
        """Nothing waits."""


def engine_side(connection: Connection, setting: Setting) -> None:
    """For every word: track the frames, held in memory, with the engine alone; answer with the seconds.

    "one by one" gives it a frame at a time, "ahead" also those that follow, as a server does.
    """
    network = make_network(build_model(Registry.load().get(setting.model)), pick_device(setting.device))
    frames, height, width = read_frames(setting.video, network.image_size, setting.frames)
    torch.set_flush_denormal(True)  # as the engine's thread does
    connection.send("ready")
    while (word := connection.recv()) is not None:
        start = time.perf_counter()
        bank = MemoryBank(recent_memories=network.recent_memories)
        stream = StreamContext("s", "m", recent=RecentFeatures(network.encode_ahead))
        for index, pixels in enumerate(frames):
            task = ObjectTask(bank, [setting.prompt] if index == 0 else [])
            following = network.encode_ahead if word == "ahead" else 1
            upcoming = list(frames[index + 1 : index + following])
            job = Track(stream, FrameInput(index, pixels, height, width), [task], upcoming)
            run_jobs(network, [job])
        connection.send(time.perf_counter() - start)


def server_side(connection: Connection, setting: Setting) -> None:
    """A server until the word to stop comes."""
    with EmbeddedServer(setting.model, setting.device, max_sessions=64, max_sessions_per_client=64) as address:
        connection.send(address)
        connection.recv()


def instant_side(connection: Connection, height: int, width: int) -> None:
    """A server with an `InstantEngine`; answers every word with the processor seconds used so far."""
    asyncio.run(serve(connection, InstantEngine(384, height, width), _processor_seconds))


async def serve(connection: Connection, engine: ServingEngines, measure: Callable[[], Any]) -> None:
    """A server with the engine: tells its address, then answers every word with the measure, until None comes."""
    settings = checked({"address": "127.0.0.1:0"})
    metrics = Metrics()
    service = TrackingService(engine, settings, metrics)
    async with AsyncExitStack() as stack:
        stack.callback(service.close)
        server = Server(service, settings, metrics)
        stack.push_async_callback(server.stop)
        await server.start()
        connection.send(server.address)
        while await asyncio.to_thread(connection.recv) is not None:
            connection.send(measure())


def _processor_seconds() -> tuple[float, float]:
    """Of this process, and of the decoders that have ended, with the process that forks them."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, fork_server.processor_seconds()


def client_side(connection: Connection, address: str, video: Path, frames: int) -> None:
    """For every number: so many streams at once; answer with the seconds that each took."""
    data = _first_frames(video, frames)
    with Client(address) as client:
        connection.send("ready")
        while streams := connection.recv():
            seconds = [0.0] * streams

            def follow(i: int, seconds: list[float] = seconds) -> None:
                start = time.perf_counter()
                for frame in client.track(data, Prompt(point_coords=[EXAMPLE_CLICK])):
                    frame.objects[1].mask  # noqa: B018 - decoded on first use, which a user pays for
                seconds[i] = time.perf_counter() - start

            threads = [threading.Thread(target=follow, args=(i,)) for i in range(streams)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            connection.send(seconds)


def _first_frames(video: Path, frames: int) -> bytes:
    """The first frames of an H.264 file, not encoded anew."""
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / "short.mp4"
        with av.open(str(video)) as source, av.open(str(short), "w") as target:
            stream = source.streams.video[0]
            copy = target.add_stream_from_template(stream)
            packets = [packet for packet in source.demux(stream) if packet.dts is not None]
            for packet in packets[:frames]:
                packet.stream = copy
                target.mux(packet)
        return short.read_bytes()


def full_hd(video: Path, frames: int, folder: Path) -> Path:
    """The video at 1080p, H.264."""
    path = folder / "1080p.mp4"
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=30, options={"preset": "medium", "crf": "20"})
        stream.width, stream.height = FULL_HD
        stream.pix_fmt = "yuv420p"
        for frame, _ in zip(source.decode(video=0), range(frames), strict=False):
            target.mux(stream.encode(frame.reformat(*FULL_HD, format="yuv420p")))
        target.mux(stream.encode())
    return path


class Side:
    """A process that works when it is told to."""

    def __init__(self, target: Any, *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *args))
        self._process.start()
        self.first_word: Any = self._ours.recv()

    def ask(self, word: Any) -> Any:
        """Say a word and wait for the answer."""
        self._ours.send(word)
        return self._ours.recv()

    def stop(self) -> None:
        """Let it end."""
        self._ours.send(None)
        self._process.join()


def measure(setting: Setting) -> dict[str, Any]:
    """All three comparisons."""
    engine, server = Side(engine_side, setting), Side(server_side, setting)
    client = Side(client_side, server.first_word, setting.video, setting.frames)
    crowd = Side(client_side, server.first_word, setting.video, setting.stream_frames)
    engine.ask("one by one"), client.ask(1)  # warm both up
    alone, ahead, end_to_end, in_turn, at_once, fairness = [], [], [], [], [], []
    for _ in range(setting.rounds):
        alone.append(engine.ask("one by one"))
        ahead.append(engine.ask("ahead"))
        end_to_end.append(client.ask(1)[0])
        start = time.perf_counter()
        for _ in range(setting.streams):
            crowd.ask(1)
        in_turn.append(time.perf_counter() - start)
        start = time.perf_counter()
        each = crowd.ask(setting.streams)
        at_once.append(time.perf_counter() - start)
        fairness.append(max(each) / min(each))
    for side in (client, crowd, server, engine):
        side.stop()
    frames_alone, frames_ahead, frames_served = (
        setting.frames / statistics.median(seconds) for seconds in (alone, ahead, end_to_end)
    )
    return {
        **asdict(setting),
        "video": setting.video.name,
        "engine_fps": frames_alone,
        "engine_ahead_fps": frames_ahead,
        "end_to_end_fps": frames_served,
        "end_to_end_ratio": frames_served / frames_alone,
        "end_to_end_ahead_ratio": frames_served / frames_ahead,
        "streams_in_turn_fps": setting.stream_frames * setting.streams / statistics.median(in_turn),
        "streams_at_once_fps": setting.stream_frames * setting.streams / statistics.median(at_once),
        "streams_ratio": statistics.median(in_turn) / statistics.median(at_once),
        "slowest_over_quickest": statistics.median(fairness),
        **overhead_milliseconds(setting),
        "device": device_name(torch.device(setting.device)),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def overhead_milliseconds(setting: Setting) -> dict[str, float]:
    """Processor milliseconds of the server for a 1080p frame with one object, the engine left out; and of a start."""
    with tempfile.TemporaryDirectory() as folder:
        video = full_hd(setting.video, setting.frames, Path(folder))
        server = Side(instant_side, FULL_HD[1], FULL_HD[0])
        clients = [Side(client_side, server.first_word, video, frames) for frames in (2, setting.frames)]
        short, long = ([_costs(server, client) for _ in range(setting.rounds + 1)][1:] for client in clients)
        for side in (*clients, server):
            side.stop()
    own, decoder = (
        (statistics.median(c[i] for c in long) - statistics.median(c[i] for c in short)) / (setting.frames - 2)
        for i in range(2)
    )
    start = statistics.median(map(sum, short)) - 2 * (own + decoder)
    return {"overhead_ms": own + decoder, "overhead_decoder_ms": decoder, "session_start_ms": start}


def _costs(server: Side, client: Side) -> tuple[float, float]:
    """Processor milliseconds of one stream: of the server's own process, and of the decoder."""
    before = server.ask("cpu")
    client.ask(1)
    time.sleep(0.5)  # until the decoder is gone, and so counted
    after = server.ask("cpu")
    return (after[0] - before[0]) * 1000, (after[1] - before[1]) * 1000


def _print(result: dict[str, Any], console: Console) -> None:
    table = Table("what", "measured", "against")
    table.add_row(
        "end to end, one stream",
        f"{result['end_to_end_fps']:.2f} frames/s",
        f"engine alone {result['engine_fps']:.2f} frames/s: {result['end_to_end_ratio']:.0%}; "
        f"with frames ahead {result['engine_ahead_fps']:.2f}: {result['end_to_end_ahead_ratio']:.0%}",
    )
    table.add_row(
        f"{result['streams']} streams at once",
        f"{result['streams_at_once_fps']:.2f} frames/s in all",
        f"one after the other {result['streams_in_turn_fps']:.2f} frames/s: {result['streams_ratio']:.2f} x, "
        f"slowest over quickest {result['slowest_over_quickest']:.2f}",
    )
    table.add_row(
        "server beside the engine, 1080p",
        f"{result['overhead_ms']:.1f} ms of CPU a frame",
        f"decoder {result['overhead_decoder_ms']:.1f} of it; a session's start {result['session_start_ms']:.0f} ms",
    )
    console.print(table)
    console.print(
        f"{result['model']}, {result['frames']} frames of {result['video']}; {result['device']}, "
        f"{result['cores']} cores, torch {result['torch']}, Python {result['python']}, {result['date']}"
    )


def main(
    model: Annotated[str, typer.Option()] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:N]")] = "auto",
    frames: Annotated[int, typer.Option(min=3, help="In each run of one stream.")] = 130,
    stream_frames: Annotated[int, typer.Option(min=2, help="In each of several streams.")] = 40,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    streams: Annotated[int, typer.Option(min=2)] = 8,
    video: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = EXAMPLE,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure what serving costs beside the engine."""
    result = measure(Setting(model, str(pick_device(device)), video, frames, stream_frames, rounds, streams))
    _print(result, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
