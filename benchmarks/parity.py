"""How far masklet's masks are from Meta's: `python -m benchmarks.parity [--model NAME] [--video FILE] [--frames N]`.

Both sides get the same frames, prompts and weights, in float32, one object at a time. A model whose checkpoint is not
here runs with seeded random weights: parity does not need trained ones.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.sides import EXAMPLE, EXAMPLE_CLICK, Ours, Reference, normalized, read_frames
from masklet.prompts import Prompt
from masklet_server.engine.network.device import device_name
from masklet_server.engine.network.network import Network
from masklet_server.models.build import build_model, build_reference
from masklet_server.models.registry import Registry

LOGITS_BAR = 1e-3
PIXELS_BAR = 0.9999


def compare(model: str, video: Path, num_frames: int, click: tuple[float, float]) -> dict[str, Any]:
    """Follow one click through the video on both sides; the worst frame counts."""
    spec = Registry.load().resolve(model)
    random = not spec.checkpoint_path().is_file()
    weights: dict[str, Any] = {"seed": 0} if random else {}
    network = Network(build_model(spec, **weights), torch.device("cpu"))
    frames, height, width = read_frames(video, network.image_size, num_frames)
    prompt = Prompt(point_coords=[click])
    sides = (
        Reference(build_reference(spec, **weights), normalized(frames), height, width),
        Ours(network, normalized(frames), height, width),
    )
    for side in sides:
        side.prompt(prompt)
    theirs, ours = (side.propagate(0, num_frames) for side in sides)
    differences = [(theirs[key] - ours[key]).abs().max().item() for key in theirs]
    agreement = [((theirs[key] > 0) == (ours[key] > 0)).float().mean().item() for key in theirs]
    return {
        "model": model,
        "weights": "random" if random else "checkpoint",
        "frames": num_frames,
        "max_logit_difference": max(differences),
        "min_pixel_agreement": min(agreement),
        "mean_foreground": sum((mask > 0).float().mean().item() for mask in theirs.values()) / len(theirs),
        "passes": max(differences) <= LOGITS_BAR and min(agreement) >= PIXELS_BAR,
    }


def main(
    model: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    video: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = EXAMPLE,
    click: Annotated[tuple[float, float], typer.Option(help="Pixels of the first frame.")] = EXAMPLE_CLICK,
    frames: Annotated[int, typer.Option(min=2)] = 24,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Compare each model's masks with SAM2VideoPredictor's."""
    # Upstream says that its CUDA extension is missing; masklet skips hole filling there as well.
    warnings.filterwarnings("ignore", message="cannot import name '_C' from 'sam2'")
    results = [compare(name, video, frames, click) for name in model or ["nano"]]
    table = Table("model", "weights", "frames", "greatest logit difference", "least pixel agreement", "within the bar")
    for r in results:
        table.add_row(
            r["model"],
            r["weights"],
            str(r["frames"]),
            f"{r['max_logit_difference']:.2g}",
            f"{r['min_pixel_agreement']:.4%}",
            "yes" if r["passes"] else "NO",
        )
    console = Console()
    console.print(table)
    console.print(f"float32, {device_name(torch.device('cpu'))}, torch {torch.__version__}, {video.name}")
    if json_file is not None:
        json_file.write_text(json.dumps(results, indent=2) + "\n")
    if not all(r["passes"] for r in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
