"""The comparison with upstream's predictor runs, with nano for a few frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import gpu
from benchmarks.sides import EXAMPLE
from benchmarks.speed import Setting
from masklet_server.models.build import build_reference
from masklet_server.models.registry import Registry


def setting(device: str = "cpu", *, compiled: bool = False) -> Setting:
    return Setting("nano", device, "auto", 1, 1, compiled, 2, 1, EXAMPLE)


def test_the_reference_runs_in_every_way_that_makes_sense() -> None:
    assert setting().sides == ["ours", "reference float32", "reference bfloat16 autocast"]
    assert setting("cuda:0", compiled=True).sides == [
        "ours",
        "reference bfloat16 autocast",
        "reference compiled bfloat16 autocast",
    ]


def test_the_compiled_reference_is_upstreams_own() -> None:
    predictor = build_reference(Registry.load().get("nano"), compiled=True)

    assert type(predictor).__name__ == "SAM2VideoPredictorVOS"
    # torch.compile wraps the functions; nothing is compiled before they are called.
    assert hasattr(predictor.memory_attention.forward, "_torchdynamo_orig_callable")


@pytest.mark.slow
def test_both_sides_are_measured(tmp_path: Path) -> None:
    settings = gpu.rows("cpu", ["nano"], frames=2, rounds=1, compiled=False)[:1]

    results = gpu.run(settings, 5, tmp_path / "gpu.json", Console(quiet=True))

    assert json.loads((tmp_path / "gpu.json").read_text()) == results
    (result,) = results
    assert result["ours"] > 0
    assert result["reference"] == max(
        fps for side, fps in result["frames_per_second"].items() if side.startswith("reference")
    )
    assert result["ratio"] == pytest.approx(result["ours"] / result["reference"])
    assert set(result["milliseconds_per_frame_by_stage"]) >= {"encode_pixels", "with_memory", "decode", "encode_memory"}


def test_what_cannot_end_in_time_is_left_out() -> None:
    console = Console(record=True, quiet=False, width=120)

    assert gpu.run([setting()], -1, None, console) == []

    assert "left out for want of time: nano" in console.export_text()
