"""Measure an exported checkpoint on DAVIS through a real server: benchmarks.quality with a mask and with one click.

python -m training.evaluate --davis DIR --checkpoint FILE [--model-config FILE] [--json FILE]
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks import quality
from benchmarks.quality import PromptKind
from training.cli import run

NAME = "trained"


def evaluate(
    davis: list[str],
    checkpoint: Path,
    config: str,
    *,
    sequences: str = "",
    device: str = "auto",
    dtype: str = "float32",
) -> dict[str, dict[str, Any]]:
    """What ``benchmarks.quality`` reports, by kind of prompt.

    Raises:
        typer.Exit: DAVIS or the checkpoint is not there; the reason has been printed.
    """
    figures = {}
    for kind in PromptKind:
        with TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            quality.main(
                davis=davis,
                sequences=sequences,
                prompt=kind,
                model=[f"{NAME}={checkpoint.absolute()}:{config}"],
                device=device,
                dtype=dtype,
                json_file=report,
            )
            figures[kind.value] = json.loads(report.read_text())
    return figures


def main(
    davis: Annotated[list[str], typer.Option(metavar="DIR[:A,B,...]", help="As of benchmarks.quality; repeatable.")],
    checkpoint: Annotated[Path, typer.Option(metavar="FILE", help="What training.export wrote.")],
    model_config: Annotated[str, typer.Option(help="Its configuration; the one beside it if not given.")] = "",
    sequences: Annotated[str, typer.Option(metavar="A,B,...", help="Only these sequences.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 for equal figures each time, bfloat16 or auto.")] = "float32",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
) -> None:
    """Measure J, F and J&F from a mask and from one click."""
    config = model_config or str(checkpoint.with_suffix(".yaml").absolute())
    figures = evaluate(davis, checkpoint, config, sequences=sequences, device=device, dtype=dtype)
    for kind, report in figures.items():
        mean = report["mean"]
        print(f"{kind}: J {mean['J']:.3f}, F {mean['F']:.3f}, J&F {mean['J&F']:.3f}")
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
