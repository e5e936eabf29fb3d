"""Frames a second, masklet's engine and Meta's predictor in turn: `python -m benchmarks.speed --model M --device D`.

Each side lives in a process of its own, holds the same frames in memory and follows the same objects. They work by
turns, a round of frames each, so that whatever else the machine does hits both; the medians are compared. The reference
runs in every way that it supports here, and the quickest counts; on a GPU `--compiled` adds upstream's `vos_optimized`.
With `--streams`, masklet follows as many streams at once, and the reference one. A model whose checkpoint is not here
runs with seeded random weights, which cost the same.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.sides import EXAMPLE, EXAMPLE_CLICK, Reference, normalized, read_frames
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.network.device import device_name, make_network, pick_device
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.jobs import FrameInput, ObjectTask, StreamContext, Track
from masklet_server.models.build import build_model, build_reference
from masklet_server.models.registry import ModelSpec, Registry

# Both banks are full from here on: six memories and fifteen pointers.
WARM_UP_FRAMES = 17
STAGES = ("encode_pixels", "with_memory", "decode", "encode_memory", "resize")


@dataclass(frozen=True)
class Setting:
    """What both sides do.

    Attributes:
        model: Name or description of the model.
        device: "cpu" or "cuda:0".
        dtype: Of masklet's side: auto, float32 or bfloat16.
        objects: Followed at once, in each stream.
        streams: At once, of masklet's side; the reference has one.
        compiled: Let the reference run compiled, too.
        frames: In a round.
        rounds: Of each side.
        video: Whose frames are used, to and fro.
        filled: Track two frames before the first round, not seventeen, and take the second one's memory for those of
            the others: on a slow machine the same work a frame, sooner.
        precisions: Of the reference, which are tried.
        runtime: What computes masklet's side on a CPU: auto, torch or openvino.
    """

    model: str
    device: str
    dtype: str
    objects: int
    streams: int
    compiled: bool
    frames: int
    rounds: int
    video: Path
    filled: bool = False
    precisions: tuple[str, ...] = ("float32", "bfloat16 autocast")
    runtime: str = "auto"

    @property
    def num_frames(self) -> int:
        """All frames that a side sees."""
        return WARM_UP_FRAMES + self.frames * self.rounds

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return Registry.load().resolve(self.model)

    @property
    def weights(self) -> dict[str, Any]:
        """Arguments for building: the checkpoint, or random weights where there is none."""
        return {} if self.spec.checkpoint_path().is_file() else {"seed": 0}

    @property
    def sides(self) -> list[str]:
        """Ours, then the reference in every way that makes sense on the device."""
        chosen = self.precisions if not self.device.startswith("cuda") else ("bfloat16 autocast",)
        plain = [f"reference {precision}" for precision in chosen]
        return ["ours", *plain, *(["reference compiled bfloat16 autocast"] if self.compiled else [])]

    def prompts(self) -> list[Prompt]:
        """A click for each object, side by side."""
        x, y = EXAMPLE_CLICK
        return [Prompt(object_id=i + 1, point_coords=[(x + 15 * i, y)]) for i in range(self.objects)]


# What glibc and libgomp do by themselves, said aloud, so that masklet's engine, whose parts the reference's process
# imports, leaves it at that (`masklet_server.engine`).
STOCK = {"MALLOC_PERTURB_": "0", "GOMP_SPINCOUNT": "300000"}


def reference_rounds(setting: Setting, *, autocast: bool, compiled: bool) -> Iterator[float]:
    """Seconds of each round of Meta's predictor; masks arrive as NumPy arrays, as a user takes them."""
    device = torch.device(setting.device)
    predictor = build_reference(setting.spec, compiled=compiled, **setting.weights).to(device)
    frames, height, width = read_frames(setting.video, predictor.image_size, setting.num_frames)
    with torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext():
        reference = Reference(predictor, normalized(frames).to(device), height, width)
        for prompt in setting.prompts():
            reference.prompt(prompt)
        tracked = predictor.propagate_in_video(reference.state, 0)

        def run(count: int) -> None:
            for _ in range(count):
                _, _, logits = next(tracked)
                (logits > 0).cpu().numpy()

        def fill() -> None:
            nonlocal tracked
            for outputs in reference.state["output_dict_per_obj"].values():
                known = outputs["non_cond_frame_outputs"]
                known.update(dict.fromkeys(range(2, WARM_UP_FRAMES), known[1]))
            tracked = predictor.propagate_in_video(reference.state, WARM_UP_FRAMES)

        yield from _timed(run, fill, setting, device)


def our_rounds(setting: Setting, stages: dict[str, list[float]]) -> Iterator[float]:
    """Seconds of each round of masklet's engine, from ``uint8`` frames to NumPy masks."""
    device = pick_device(setting.device)
    network = make_network(build_model(setting.spec, **setting.weights), device, setting.dtype, runtime=setting.runtime)
    frames, height, width = read_frames(setting.video, network.image_size, setting.num_frames)
    banks = [
        [MemoryBank(recent_memories=network.recent_memories) for _ in range(setting.objects)]
        for _ in range(setting.streams)
    ]
    prompts, position = setting.prompts(), iter(range(setting.num_frames))

    def job(stream: int, index: int) -> Track:
        given = zip(banks[stream], prompts, strict=True)
        tasks = [ObjectTask(bank, [prompt] if index == 0 else []) for bank, prompt in given]
        return Track(StreamContext(str(stream), "m"), FrameInput(index, frames[index], height, width), tasks)

    def run(count: int) -> None:
        for _ in range(count):
            index = next(position)
            run_jobs(network, [job(stream, index) for stream in range(setting.streams)])
        stages["bank_bytes"] = [float(bank.nbytes) for stream in banks for bank in stream]

    def fill() -> None:
        for bank in (bank for stream in banks for bank in stream):
            bank.recent.update(dict.fromkeys(range(2, WARM_UP_FRAMES), bank.recent[1]))
            bank.advance(WARM_UP_FRAMES - 1)
        while next(position) < WARM_UP_FRAMES - 1:
            pass

    stages["dtype"].append(float(network.dtype == torch.bfloat16))
    rounds = _timed(run, fill, setting, device)
    yield next(rounds)
    _time_stages(network, stages, device)
    yield from rounds


def _timed(
    run: Callable[[int], None], fill: Callable[[], None], setting: Setting, device: torch.device
) -> Iterator[float]:
    run(2 if setting.filled else WARM_UP_FRAMES)
    if setting.filled:
        fill()
    for i in range(setting.rounds + 1):
        start = time.perf_counter()
        if i > 0:  # the first yield says that the side is ready
            run(setting.frames)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield time.perf_counter() - start


def _time_stages(network: Network, stages: dict[str, list[float]], device: torch.device) -> None:
    """Wrap the network's functions so that each notes its time; on a GPU the waiting costs our side a little."""

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            stages[name].append(time.perf_counter() - start)
            return result

        return wrapper

    for name in STAGES:
        owner = network.decoder if name == "decode" else network
        setattr(owner, name, timed(name, getattr(owner, name)))


def _serve_side(connection: Connection, setting: Setting, side: str) -> None:
    """A side's process: a round for every word that comes, then what it has used."""
    warnings.filterwarnings("ignore", message="cannot import name '_C' from 'sam2'")
    stages: dict[str, list[float]] = defaultdict(list)
    rounds = (
        our_rounds(setting, stages)
        if side == "ours"
        else reference_rounds(setting, autocast="bfloat16" in side, compiled="compiled" in side)
    )
    torch.set_flush_denormal(True)  # as the engine's thread does; the reference profits as well
    with torch.inference_mode():
        before = time.process_time()
        for seconds in rounds:
            connection.send((seconds, time.process_time() - before))
            connection.recv()
            before = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gpu = torch.cuda.max_memory_allocated() if setting.device.startswith("cuda") else 0
    connection.send({"stages": dict(stages), "peak_bytes": peak, "peak_device_bytes": gpu})


@dataclass(frozen=True)
class Runs:
    """What the sides needed, by their names.

    Attributes:
        seconds: For each round.
        processor: Seconds of processor time, of all threads, for each round.
        used: What `_serve_side` tells at the end.
    """

    seconds: dict[str, list[float]]
    processor: dict[str, list[float]]
    used: dict[str, dict[str, Any]]


def _run_by_turns(setting: Setting) -> Runs:
    """Every side in a process of its own, one round of each after the other."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in setting.sides:
        pipes[name], theirs = context.Pipe()
        process = context.Process(target=_serve_side, args=(theirs, setting, name), daemon=True)
        with mock.patch.dict(os.environ, {} if name == "ours" else STOCK):
            process.start()
        pipes[name].recv()  # one at a time until each is warm
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    processor: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(setting.rounds):
        for name, pipe in pipes.items():
            pipe.send("round")
            for times, new in zip((seconds, processor), pipe.recv(), strict=True):
                times[name].append(new)
    used = {}
    for name, pipe in pipes.items():
        pipe.send("stop")
        used[name] = pipe.recv()
    return Runs(seconds, processor, used)


def measure(setting: Setting) -> dict[str, Any]:
    """Run all sides by turns and compare."""
    runs = _run_by_turns(setting)
    used, stages = runs.used, runs.used["ours"]["stages"]
    frames = {name: setting.frames * (setting.streams if name == "ours" else 1) for name in setting.sides}
    fps = {name: frames[name] / statistics.median(times) for name, times in runs.seconds.items()}
    best = max(setting.sides[1:], key=fps.__getitem__)
    # Of all threads: what is left of a comparison on a machine that is busy with other things.
    cost = {name: statistics.median(times) / frames[name] for name, times in runs.processor.items()}
    bank_bytes = max(stages.pop("bank_bytes"))
    tracked = setting.frames * setting.rounds
    return {
        "model": setting.model,
        "weights": "random" if setting.weights else "checkpoint",
        "objects": setting.objects,
        "streams": setting.streams,
        "ours": fps["ours"],
        "reference": fps[best],
        "ratio": fps["ours"] / fps[best],
        "processor_seconds_per_frame": cost,
        "processor_ratio": cost[best] / cost["ours"],
        "reference_precision": best.removeprefix("reference "),
        "our_dtype": "bfloat16" if stages.pop("dtype")[0] else "float32",
        "frames_per_second": fps,
        "milliseconds_per_frame_by_stage": {name: sum(times) / tracked * 1000 for name, times in stages.items()},
        "bank_bytes_of_an_object": bank_bytes,
        "peak_bytes": {name: use["peak_bytes"] for name, use in used.items()},
        "peak_device_bytes": {name: use["peak_device_bytes"] for name, use in used.items()},
        "device": device_name(torch.device(setting.device)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def _print(result: dict[str, Any], console: Console) -> None:
    table = Table("side", "frames/s", "peak memory", "on the device")
    for name, fps in result["frames_per_second"].items():
        memory, device = result["peak_bytes"][name], result["peak_device_bytes"][name]
        table.add_row(name, f"{fps:.2f}", f"{memory / 2**20:.0f} MiB", f"{device / 2**20:.0f} MiB" if device else "-")
    console.print(table)
    console.print(
        f"ratio {result['ratio']:.2f} (of processor time {result['processor_ratio']:.2f}): ours in "
        f"{result['our_dtype']} over the reference in {result['reference_precision']}; "
        f"{result['model']}, {result['weights']} weights, "
        f"objects: {result['objects']}, streams: {result['streams']}"
    )
    stages = Table("stage", "ms a frame")
    for name, milliseconds in result["milliseconds_per_frame_by_stage"].items():
        stages.add_row(name, f"{milliseconds:.1f}")
    console.print(stages)
    console.print(
        f"{result['device']}, {result['cores']} cores, torch {result['torch']}, "
        f"Python {result['python']}, {result['date']}"
    )


def main(
    model: Annotated[str, typer.Option()] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:N]")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of our side: auto, float32 or bfloat16.")] = "auto",
    objects: Annotated[int, typer.Option(min=1)] = 1,
    streams: Annotated[int, typer.Option(min=1, help="At once, of our side.")] = 1,
    compiled: Annotated[bool, typer.Option("--compiled", help="The reference also as vos_optimized makes it.")] = False,
    frames: Annotated[int, typer.Option(min=1, help="In a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    video: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = EXAMPLE,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure masklet's engine against SAM2VideoPredictor on the same frames."""
    os.environ["TQDM_DISABLE"] = "1"  # the predictor's own progress bars
    setting = Setting(model, str(pick_device(device)), dtype, objects, streams, compiled, frames, rounds, video)
    result = measure(setting)
    _print(result, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
