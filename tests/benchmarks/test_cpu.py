"""The table of promises that a processor can keep, and what a long stream does to a server's memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import cpu, growth
from benchmarks.cpu import Bar


@pytest.mark.parametrize(
    ("measured", "at_least", "is_met"), [(1.0, True, True), (0.9, True, False), (1.0, False, True), (1.1, False, False)]
)
def test_bars(measured: float, at_least: bool, is_met: bool) -> None:
    assert Bar("what", measured, 1.0, at_least).is_met is is_met


def test_the_table_says_what_is_not_met() -> None:
    console = Console(record=True, width=120, quiet=False)
    console.print(cpu.table_of([Bar("good", 2.0, 1.6, True, "why"), Bar("bad", 12.5, 10, False)]))
    good, bad = (line for line in console.export_text().splitlines() if "good" in line or "bad" in line)
    assert [cell.strip() for cell in good.strip("│").split("│")] == ["good", "2.00", "at least 1.6", "yes", "why"]
    assert [cell.strip() for cell in bad.strip("│").split("│")] == ["bad", "12.50", "at most 10", "NO", ""]


def command() -> Any:
    import typer

    app = typer.Typer()
    app.command()(cpu.main)
    return app


def test_parts_are_written_as_they_come(tmp_path: Path) -> None:
    def part(results: dict[str, Any]) -> list[Bar]:
        results["growth"] = {"frames": 3000}
        return [Bar("growth", 1.0, 8.0, False)]

    with mock.patch.dict(cpu.PARTS, {"growth": part}):
        done = CliRunner().invoke(command(), ["--part", "growth", "--json", str(tmp_path / "cpu.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "cpu.json").read_text())
    assert written["growth"] == {"frames": 3000}
    assert [(bar["what"], bar["met"]) for bar in written["bars"]] == [("growth", True)]
    assert written["cores"] > 0


def test_an_unknown_part_is_refused() -> None:
    done = CliRunner().invoke(command(), ["--part", "nonsense"])
    assert done.exit_code == 2
    assert "nonsense" in done.output


@pytest.mark.slow
def test_a_stream_does_not_grow() -> None:
    found = growth.measure(growth.FIRST + 60)
    assert 50 * 2**20 < found["first_bytes"] < 4 * 2**30
    # The features of a frame that were kept would be some 100 KiB: 60 frames of them 6 MiB.
    assert found["last_bytes"] - found["first_bytes"] < 5 * 2**20
