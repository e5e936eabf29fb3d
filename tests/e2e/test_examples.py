"""Example programs, run as they are against a real server."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

import masklet
from tests.support import clips, synthetic
from tests.support.e2e import HEIGHT, WIDTH, center, lossless

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example: str, *arguments: object) -> str:
    """What the example prints; it must end well and say nothing on stderr."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def passing_by(num_frames: int) -> list[npt.NDArray[np.uint8]]:
    """An empty scene, which two discs cross one after the other."""
    ground = np.clip(110 + synthetic.texture(HEIGHT, WIDTH, seed=0), 0, 255).astype(np.uint8)
    pictures = [ground.copy() for _ in range(num_frames)]
    for begin, row, color in ((6, 80, (230, 90, 30)), (16, 170, (40, 90, 240))):
        for index in range(begin, num_frames):
            cv2.circle(pictures[index], (30 + 8 * (index - begin), row), 26, color, -1)
    return pictures


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory, nano_server: str) -> Path:
    """The examples beside a shorter clip, talking to the tests' server."""
    folder = tmp_path_factory.mktemp("masklet") / "examples"
    folder.mkdir()
    with av.open(str(EXAMPLES / "bunny.mp4")) as clip:
        frames = [
            f.to_ndarray(format="rgb24").astype(np.uint8) for f, _ in zip(clip.decode(video=0), range(6), strict=False)
        ]
    height, width = frames[0].shape[:2]
    (folder / "bunny.mp4").write_bytes(clips.make_clip("mp4", "libx264", size=(width, height), pictures=frames))
    for example in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")):
        (folder / example.name).write_text(example.read_text().replace("127.0.0.1:50051", nano_server))
    return folder


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_runs_without_arguments(example: str, copies: Path) -> None:
    command = [sys.executable, "-W", "error", str(copies / example)]
    done = subprocess.run(command, cwd=copies.parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


async def test_the_notebook_runs_in_a_running_loop(
    copies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copies)
    cells = json.loads((copies / "notebook.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            program = compile("".join(cell["source"]), cell["id"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(program, names)
            if running is not None:
                await running
    assert "6 frames; the largest mask has" in capsys.readouterr().out
    assert names["frames"][0]._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"
    assert "<" in names["recording"]._repr_html_()
    annotations = json.loads((copies / "rabbit-coco.json").read_text())["annotations"]
    assert len(annotations) == len(list(masklet.Recording.load(copies / "rabbit.jsonl"))) == 6


def test_the_example_of_sam2(nano_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_SERVER", nano_server)
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(lossless(3))
    x, y = center(0)
    first, *frames = run("from_sam2.py", clip, f"{x},{y}").splitlines()
    assert re.fullmatch(r"frame 0, prompted: [1-9]\d* pixels of \[1, 1, 240, 320\]", first)
    assert [line.partition(":")[0] for line in frames] == ["frame 0", "frame 1", "frame 2"]
    assert all(re.search(r"\{1: [1-9]\d*\}", line) for line in frames)


def test_objects_are_counted_once_each(nano_server: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(
        clips.make_clip("matroska", "ffv1", size=(WIDTH, HEIGHT), pixel_format="bgr0", pictures=passing_by(28))
    )
    lines = run("count_with_detector.py", clip, nano_server).splitlines()
    counts = [tuple(map(int, re.findall(r"\d+", line))) for line in lines]
    assert [index for index, _, _ in counts] == list(range(28))
    assert [total for _, _, total in counts] == sorted(total for _, _, total in counts)
    assert counts[5][1:] == (0, 0)
    assert counts[15][1:] == (1, 1)
    assert counts[-1][1:] == (2, 2)


def test_a_correction_changes_what_was_tracked(nano_server: str) -> None:
    shown = run("refine.py", nano_server, 5).splitlines()
    lines = [re.fullmatch(r"frame (\d+): (\d+) pixels(?:, then (\d+))?", line) for line in shown]
    found = [line.groups() for line in lines if line is not None]
    assert [int(index) for index, _, _ in found] == [0, 1, 2, 3, 4]
    assert [after is not None for _, _, after in found] == [False, True, True, True, True]
    assert any(before != after for _, before, after in found[1:]), "the clicks changed nothing"
