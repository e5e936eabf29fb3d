"""The ways to attend at the shapes of models, and what the device could do: `python -m benchmarks.kernels`."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from masklet_server.engine.network.attention import Kernel, blocked, fused, takes_keys_in_columns, unshifted
from masklet_server.engine.network.device import DTYPES, device_name, pick_device

# Heads, queries, keys, width of queries and keys, width of values.
SHAPES = {
    "memory, SAM 2.1 at 1024": (1, 4096, 28736, 256, 64),
    "self, SAM 2.1 at 1024": (1, 4096, 4096, 256, 256),
    "encoder, tiny at 1024": (4, 4096, 4096, 96, 96),
    "memory, nano": (1, 576, 4064, 128, 64),
    "self, nano": (1, 576, 576, 128, 128),
}


@torch.inference_mode()
def milliseconds(function: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The median of some runs, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1000


def main(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:N]")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "bfloat16",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Time attention kernels."""
    where, kind = pick_device(device), DTYPES[dtype]

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=where, dtype=kind)

    side = 4096
    a, b = some(side, side), some(side, side)
    peak = 2 * side**3 / milliseconds(lambda: a @ b, where, rounds) / 1e6  # GFLOP/s
    kernels: dict[str, Kernel] = {"fused": fused, "blocked": blocked, "unshifted": unshifted}
    table = Table("attention", "GFLOP", "at the peak", *kernels)
    for name, (heads, queries, keys, width, narrow) in SHAPES.items():
        q, k, v = some(1, heads, queries, width), some(1, heads, keys, width), some(1, heads, keys, narrow)
        work = 2 * heads * queries * keys * (width + narrow) / 1e9
        columns = k.mT.contiguous().mT
        times = [
            milliseconds(partial(kernel, q, columns if takes_keys_in_columns(kernel) else k, v), where, rounds)
            for kernel in kernels.values()
        ]
        table.add_row(name, f"{work:.1f}", f"{work / peak * 1000:.1f} ms", *(f"{ms:.1f} ms" for ms in times))
    console = Console()
    console.print(table)
    console.print(
        f"{dtype}; a product of two 4096 x 4096 matrices runs at {peak:.0f} GFLOP/s; {device_name(where)}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}, {date.today().isoformat()}"
    )


if __name__ == "__main__":
    typer.run(main)
