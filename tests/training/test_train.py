from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.learning.log import RunLog, Window
from training.train import stopper


@pytest.fixture
def signals() -> Iterator[None]:
    """Puts the handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("signals")
def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    should_stop = stopper(None)
    assert not should_stop()
    os.kill(os.getpid(), number)
    assert should_stop()


@pytest.mark.usefixtures("signals")
def test_time_runs_out() -> None:
    assert stopper(0)()
    assert not stopper(10)()


def test_the_log_holds_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = Window()
    window.add("loss", 2.0)
    window.add("loss", 4.0)
    window.add("iou/point", 1.5, 2)
    window.add("iou/track", 0.0, 0)  # nothing to see, nothing to say
    window.steps = 2
    log = RunLog(tmp_path)
    log.event("start", weights="none")
    log.steps(window, stage="frames", step=2, of=10, total=2, rate=0.1)
    start, steps = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert (start["event"], start["weights"]) == ("start", "none")
    assert (steps["loss"], steps["iou/point"], steps["step"], steps["rate"]) == (3, 0.75, 2, 0.1)
    assert "iou/track" not in steps
    printed = capsys.readouterr().out
    assert "start: weights none" in printed
    assert "frames 2/10" in printed
    assert "loss 3.000" in printed


@pytest.mark.slow
def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("cache: nowhere\nout: out\nstages: []\n")
    command = [sys.executable, "-m", "training.export", "--config", str(recipe)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {recipe}: stages: ")
    assert done.stderr.count("\n") == 1
