"""The whole of `benchmarks.gpu` runs on the CPU in miniature, so that no typing error waits for the day with a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import gpu

MINIATURE = gpu.Size(frames=2, rounds=1, streams=3, objects=2, filled=True)


def planned(models: list[str]) -> list[gpu.Row]:
    return gpu.rows("cpu", models, MINIATURE, compiled=True)


def test_every_row_is_planned_the_most_wanted_first() -> None:
    everything = gpu.rows("cuda:0", list(gpu.SIZES), gpu.Size(), compiled=True)
    found = [(row.what, row.setting.model, row.setting.objects, row.setting.streams) for row in everything]
    tiny, *others = gpu.SIZES
    assert found[:4] == [
        ("engine", tiny, 1, 1),
        ("end to end", tiny, 1, 1),
        ("engine", tiny, 1, 16),
        ("engine", tiny, 10, 1),
    ]
    assert found[4:] == [(what, model, 1, 1) for model in others for what in ("engine", "end to end")]
    assert everything[0].setting.sides == [
        "ours",
        "reference bfloat16 autocast",
        "reference compiled bfloat16 autocast",
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)  # it starts twelve processes one after the other, each of which imports torch
def test_the_command_measures_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `vos_optimized` runs, but torch.compile compiles nothing: that takes minutes on a CPU.
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "250")
    figures = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--model", "nano@64", "--json", str(figures), "--filled"]
    arguments += ["--frames", "2", "--rounds", "1", "--streams", "3", "--objects", "2", "--minutes", "30"]

    program = typer.Typer()
    program.command()(gpu.main)
    ended = CliRunner().invoke(program, arguments)

    assert ended.exit_code == 0, ended.output
    results: list[dict[str, Any]] = json.loads(figures.read_text())
    assert [(one["what"], one["model"], one["objects"], one["streams"]) for one in results] == [
        (row.what, row.setting.model, row.setting.objects, row.setting.streams) for row in planned(["nano@64"])
    ]
    for one in results:
        assert one["ours"] > 0
        assert one["stock"] > 0
        assert one["vos_optimized"] > 0
        assert one["ratio"] == pytest.approx(one["ours"] / max(one["stock"], one["vos_optimized"]))
        if one["what"] == "engine":
            assert one["memory"] > 2**20
            assert one["memory_of_stock"] > 2**20
            assert set(one["milliseconds_per_frame_by_stage"]) >= {"encode_pixels", "with_memory", "decode"}
        else:
            assert one["start_seconds"] > 0
            assert one["second_start_seconds"] > 0
    last = ended.output[ended.output.rindex("ratio") :]
    assert last.split()[0] == "ratio"
    assert last.count("nano@64") == 4


def test_what_cannot_end_in_time_is_left_out() -> None:
    console = Console(record=True, width=120, quiet=False)

    assert gpu.run(planned(["nano"]), -1, None, console) == []

    text = console.export_text()
    assert "left out for want of time: engine, nano, objects: 1, streams: 1" in text
    assert "left out for want of time: end to end, nano, objects: 1, streams: 1" in text
