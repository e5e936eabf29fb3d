"""`masklet batch`, as a user runs it, against a real server: killed in the middle, broken clips, shards, exports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import masklet
from masklet.batch import Entry
from masklet.cli import main
from tests.faults.server import ServerProcess
from tests.support.e2e import center, h264, lossless, truth
from tests.support.synthetic import iou

PROGRAM = [sys.executable, "-c", "from masklet.cli import main; main()"]
CLIPS = 12


def run(*arguments: object) -> int:
    """Run a command line; its exit status."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def states(folder: Path) -> dict[str, list[str]]:
    """The states of each clip, from all ledgers."""
    found: dict[str, list[str]] = {}
    for path in folder.glob("ledger*.jsonl"):
        for line in path.read_text().splitlines():
            entry = Entry.from_line(line)
            found.setdefault(entry.clip, []).append(entry.state)
    return found


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    x, y = center(0)
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"object": 1, "name": "blob", "points": [[x, y]]}]))
    return path


def clips(folder: Path, count: int = CLIPS, frames: int = 4) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.mkv").write_bytes(lossless(frames))
    return folder


def assert_tracked(folder: Path, frames: int = 4) -> None:
    recording = masklet.Recording.load(folder / "result.jsonl")
    assert recording.frame_indices == list(range(frames))
    assert recording.objects[1].name == "blob"
    for frame in recording:
        assert iou(frame.objects[1].mask, truth(0, frame.frame_index)) > 0.45


def test_killed_in_the_middle_every_clip_is_done_once(tmp_path: Path, prompts: Path, nano_server: str) -> None:
    out = tmp_path / "out"
    words = [
        "batch",
        str(clips(tmp_path / "in")),
        "--out",
        str(out),
        "--prompts",
        str(prompts),
        "--server",
        nano_server,
    ]
    process = subprocess.Popen([*PROGRAM, *words, "--jobs", "2"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if " 4/12 " in line:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    before = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/clip.json")}
    assert 4 <= len(before) < CLIPS
    assert run(*words) == 0
    after = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/clip.json")}
    assert len(after) == CLIPS
    assert {name: after[name] for name in before} == before  # nothing was done twice
    assert all(found.count("done") == 1 for found in states(out).values())
    for name in after:
        assert_tracked(out / name)


def test_ctrl_c_ends_in_order_and_says_how_to_go_on(tmp_path: Path, prompts: Path, nano_server: str) -> None:
    out = tmp_path / "out"
    words = ["batch", str(clips(tmp_path / "in", 4, 10)), "--jobs", "2", "--out", str(out), "--prompts", str(prompts)]
    process = subprocess.Popen(
        [*PROGRAM, *words, "--server", nano_server], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (out / "ledger.jsonl").exists() or "done" not in (out / "ledger.jsonl").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in complaints
    assert "Traceback" not in complaints
    assert " left; " in told.splitlines()[-1]
    assert {found[-1] for found in states(out).values()} <= {"done", "interrupted"}
    assert run(*words, "--server", nano_server) == 0
    assert {found[-1] for found in states(out).values()} == {"done"}


def test_a_broken_clip_leaves_the_others(
    tmp_path: Path, prompts: Path, nano_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = clips(tmp_path / "in", 2)
    (folder / "broken.mp4").write_bytes(h264()[:2000])
    out = tmp_path / "out"
    words = ("batch", folder, "--out", out, "--prompts", prompts, "--server", nano_server, "--export", "coco")
    assert run(*words) == 1
    told = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("done ") for line in told) == 2
    assert any(line.startswith("poisoned ") and "broken.mp4  DATA_LOSS: " in line for line in told)
    assert "2 of 3 clips done (0 before), 1 failed, 0 left" in told[-2]
    assert json.loads((out / "poisoned.jsonl").read_text())["clip"] == "broken.mp4"
    for name in ("00.mkv", "01.mkv"):
        assert_tracked(out / name)
        assert len(json.loads((out / name / "coco.json").read_text())["annotations"]) == 4
    assert run(*words) == 1
    assert "already poisoned" in capsys.readouterr().out
    (folder / "broken.mp4").write_bytes(lossless(4))
    assert run(*words) == 0


def test_prompts_for_all_clips_that_are_wrong_are_told_before_the_first(
    tmp_path: Path, nano_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, prompts = clips(tmp_path / "in", 1), tmp_path / "out", tmp_path / "wrong.json"
    for content in (b"{", b"\xff\xfe", b'[{"objekt": 1}]'):
        prompts.write_bytes(content)
        assert run("batch", folder, "--out", out, "--prompts", prompts, "--server", nano_server) == 2
        assert "Invalid value for --prompts" in capsys.readouterr().err
    assert not out.exists()


def test_a_run_that_cannot_begin_does_not_say_how_to_go_on(
    tmp_path: Path, prompts: Path, nano_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("batch", clips(tmp_path / "in", 1), "--out", tmp_path / "out", "--prompts", prompts)
    assert run(*words, "--server", nano_server, "--model", "huge") == 1
    told = capsys.readouterr()
    assert "the server has no model 'huge'" in told.err
    assert "run the same command" not in told.err
    assert told.out == ""


def test_a_manifest_with_ranges_and_directions(tmp_path: Path, nano_server: str) -> None:
    clips(tmp_path / "in", 1, 18)
    lines = []
    for name, frame, rest in (("forward", 4, {"start": 4, "end": 9}), ("backward", 10, {"direction": "backward"})):
        x, y = center(0, frame)
        prompt = {"object": 1, "frame": frame, "points": [[x, y]]}
        lines.append({"clip": "in/00.mkv", "name": name, "prompts": [prompt], "names": "1=blob:thing", **rest})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    assert run("batch", "--manifest", tmp_path / "m.jsonl", "--out", out, "--server", nano_server) == 0
    for name, frames in (("forward", range(4, 10)), ("backward", range(11))):
        recording = masklet.Recording.load(out / name / "result.jsonl")
        assert recording.frame_indices == list(frames)
        assert (recording.objects[1].name, recording.objects[1].class_name) == ("blob", "thing")


def test_shards_and_a_detectors_boxes(tmp_path: Path, nano_server: str) -> None:
    folder, out = clips(tmp_path / "in", 4), tmp_path / "out"
    boxes = []
    for number in range(3):
        x, y = center(0)
        box = [x - 30, y - 30, 60, 60]
        boxes.append({"image_id": f"{number:02}_000000", "bbox": box, "score": 0.9, "category_name": "blob"})
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    for shard in ("1/2", "2/2"):
        words = ("--detections", tmp_path / "boxes.json", "--shard", shard, "--server", nano_server)
        assert run("batch", folder, "--out", out, *words) == 0
    found = states(out)
    assert {name: states[-1] for name, states in found.items()} == {
        "00.mkv": "done", "01.mkv": "done", "02.mkv": "done", "03.mkv": "empty"
    }  # fmt: skip
    assert masklet.Recording.load(out / "00.mkv" / "result.jsonl").objects[1].class_name == "blob"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in",), "--out"),
        (("in", "--out", "out", "--manifest", "m.csv"), "give either files, folders and patterns"),
        (("in", "--out", "out", "--shard", "3/2"), "must be I/N with I from 1 to N"),
        (("in", "--out", "out", "--export", "nothing"), "must be one of coco"),
        (("in", "--out", "out", "--min-score", "0.5"), "goes with --detections"),
        (("nowhere*.mp4", "--out", "out"), "no video matches"),
    ],
)
def test_wrong_command_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    clips(tmp_path / "in", 1, 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert run("batch", *words) == 2
    assert message in capsys.readouterr().err


def test_a_server_that_dies_and_comes_back(tmp_path: Path, prompts: Path) -> None:
    folder, out = clips(tmp_path / "in", 3, 8), tmp_path / "out"
    with ServerProcess() as server:
        words = ["batch", str(folder), "--out", str(out), "--prompts", str(prompts), "--server", server.address]
        process = subprocess.Popen([*PROGRAM, *words, "--jobs", "2"], stdout=subprocess.PIPE, text=True, env=os.environ)
        while not (out / "ledger.jsonl").exists() or "done" not in (out / "ledger.jsonl").read_text():
            time.sleep(0.02)
        server.kill()
        time.sleep(0.5)
        server.start()
        told, _ = process.communicate(timeout=200)
    assert process.returncode == 0, told
    for name in sorted(path.name for path in folder.iterdir()):
        assert_tracked(out / name, 8)
        assert states(out)[name].count("done") == 1
