"""`masklet export` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import masklet.importing
from masklet import export
from masklet.cli import console, main
from masklet.export import FORMATS
from tests.support import recordings
from tests.support.recordings import mask_of, recording


def run(*arguments: object) -> int:
    """Run a command line; its exit status."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def result(tmp_path: Path) -> Path:
    clip = recordings.clip(tmp_path / "clip.mp4")
    recording(clip).save(tmp_path / "result.json")
    return tmp_path / "result.json"


@pytest.mark.parametrize(
    ("to", "name"),
    [("coco", "coco.json"), ("cvat", "cvat.xml"), ("yolo", "yolo"), ("matte", "matte.webm"), ("mot", "mot.txt")],
)
def test_it_writes_and_says_so(
    to: str, name: str, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", result, "--to", to, "--out", tmp_path / name) == 0
    out, err = capsys.readouterr()
    assert f"{to:<8} {tmp_path / name}" in out
    assert err == ""
    assert (tmp_path / name).exists()


def test_options_reach_the_format(result: Path, tmp_path: Path) -> None:
    options = ("--object", 2, "--name", "2=Anna:person", "--shape", "polygon", "--tolerance", 0, "--pictures")
    assert run("export", result, "--to", "coco", "--out", tmp_path / "coco.json", *options) == 0
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["person"]
    assert all(isinstance(a["segmentation"], list) and a["track_id"] == 2 for a in content["annotations"])
    assert len(list((tmp_path / "images").iterdir())) == recordings.FRAMES


def test_masks_of_other_tools_are_converted(result: Path, tmp_path: Path) -> None:
    assert run("export", result, "--to", "cvat", "--out", tmp_path / "a.xml") == 0
    assert run("export", tmp_path / "a.xml", "--to", "davis", "--out", tmp_path / "davis") == 0
    assert run("export", tmp_path / "davis", "--to", "youtube-vis", "--out", tmp_path / "vis.json") == 0
    read = masklet.importing.read(tmp_path / "vis.json")
    np.testing.assert_array_equal(read[5].objects[2].mask, mask_of(2, 5))


def test_a_video_that_has_gone_is_asked_for(result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip.mp4").rename(tmp_path / "moved.mp4")
    assert run("export", result, "--to", "matte", "--out", tmp_path / "cutouts") == 1
    assert "video: is needed for its pictures; the results name" in capsys.readouterr().err
    assert not (tmp_path / "cutouts").exists()
    options = ("--video", tmp_path / "moved.mp4")
    assert run("export", result, "--to", "matte", "--out", tmp_path / "cutouts", *options) == 0
    assert len(list((tmp_path / "cutouts").iterdir())) == recordings.FRAMES


def test_the_list_has_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "--list") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in FORMATS)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("--to", "coco", "--out", "x.json"), 2, "is missing"),
        (("RESULT", "--out", "x.json"), 2, "is missing"),
        (("RESULT", "--to", "cocoa", "--out", "x.json"), 2, "Invalid value for --to: is 'cocoa', must be one of coco"),
        (("RESULT", "--to", "coco", "--out", "x.xml"), 2, "Invalid value for --out: x.xml does not go with coco"),
        (("RESULT", "--to", "matte", "--out", "x.avi"), 2, "Invalid value for --out: x.avi does not go with matte"),
        (("RESULT", "--to", "yolo", "--out", "x.json"), 2, "Invalid value for --out: x.json does not go with yolo"),
        (("RESULT", "--to", "coco", "--out", "x.json", "--shape", "box"), 2, "must be one of mask, polygon"),
        (("RESULT", "--to", "coco", "--out", "x.json", "--name", "rabbit"), 2, "such as 1=rabbit"),
        (("RESULT", "--to", "coco", "--out", "x.json", "--object", "9"), 1, "no object 9"),
        (("RESULT", "--to", "coco", "--out", "x.json", "--name", "9=Anna"), 2, "there is no object 9"),
        (("missing.json", "--to", "coco", "--out", "x.json"), 1, "missing.json"),
        (("RESULT", "--to", "matte", "--out", "x.mov", "--video", "gone.mp4"), 1, "gone.mp4"),
    ],
)
def test_mistakes_are_named(
    arguments: tuple[str, ...], status: int, complaint: str, result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", *(str(result) if word == "RESULT" else word for word in arguments)) == status
    assert complaint in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_an_export_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    made = recording(clip)
    os.mkfifo(tmp_path / "video.mp4")  # it never comes, so the export waits for it
    made.save(tmp_path / "result.json")
    words = ("export", tmp_path / "result.json", "--to", "matte", "--out", tmp_path / "out" / "a.mov")
    program = "import sys; from masklet.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, *map(str, words), "--video", str(tmp_path / "video.mp4")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out").is_dir() or not list((tmp_path / "out").iterdir()):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert list((tmp_path / "out").iterdir()) == []


class Told(list[tuple[int, int]]):
    """What a writer says of how far it is."""

    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))


def test_progress_is_counted_in_frames(result: Path, tmp_path: Path) -> None:
    made = masklet.importing.read(result)
    once = [(i + 1, recordings.FRAMES) for i in range(recordings.FRAMES)]
    for to, name, passes in (
        ("matte", "matte.mov", 1),
        ("masks-video", "masks.mkv", 1),
        ("mot", "mot.txt", 1),
        ("cvat", "cvat.xml", len(made.objects)),
    ):
        told = Told()
        export.write(made, to, tmp_path / name, progress=told)
        assert told == once * passes, to


def test_what_takes_long_says_how_far_it_is(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_PLAIN_EVERY_SECONDS", 0.0)
    path = tmp_path / "matte.mov"
    assert run("export", result, "--to", "matte", "--out", path) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == recordings.FRAMES
    assert lines[-1].startswith(f"writing {path}: {recordings.FRAMES} of {recordings.FRAMES} frames, ")
