"""Results in other libraries, with the real packages. A test is skipped where its package is not installed."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import masklet
from masklet import Unavailable
from masklet.cli import main
from masklet.integrations import fiftyone, pandas, rerun, supervision
from tests.support import recordings
from tests.support.recordings import FRAMES, HEIGHT, LOST, WIDTH, mask_of, recording
from tests.support.scripted.fake_server import FakeServer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def required(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed: pip install 'masklet[{module}]'")


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("supervision", "supervision", lambda: supervision.detections(recordings.frame_of(0))),
        ("pandas", "pandas", lambda: pandas.table(recording())),
        ("fiftyone", "fiftyone", lambda: fiftyone.detections(recording(), recordings.frame_of(0))),
        ("rerun", "rerun", lambda: rerun.log(recording())),
    ],
)
def test_a_missing_library_says_how_to_install_it(
    module: str, extra: str, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unavailable, match=rf"pip install 'masklet\[{extra}\]'"):
        use()


def test_supervision_gets_detections() -> None:
    sv = required("supervision")
    for index, detections in supervision.every_frame(recording()):
        seen = [1] if index in LOST else [1, 2]
        assert isinstance(detections, sv.Detections)
        assert detections.tracker_id is not None
        assert detections.tracker_id.tolist() == seen
        assert detections.data["class_name"].tolist() == ["toy", "boat"][: len(seen)]
        for object_id, mask, box in zip(seen, detections.mask, detections.xyxy, strict=True):
            np.testing.assert_array_equal(np.asarray(mask), mask_of(object_id, index))
            rows, columns = np.nonzero(mask_of(object_id, index))
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = sv.MaskAnnotator().annotate(picture.copy(), supervision.detections(recordings.frame_of(0)))
    assert drawn[mask_of(1, 0) | mask_of(2, 0)].any(axis=1).mean() > 0.95
    assert len(supervision.detections(masklet.FrameResult(0, 0.0, 0, 0, {}))) == 0


def test_pandas_gets_a_table() -> None:
    required("pandas")
    table = pandas.table(recording())
    assert tuple(table.columns) == pandas.COLUMNS
    assert len(table) == 2 * FRAMES
    assert table[table.object_id == 2].visible.tolist() == [i not in LOST for i in range(FRAMES)]
    row = table[(table.object_id == 2) & (table.frame_index == 6)].iloc[0]
    mask = masklet.decode_rle({"size": [row.height, row.width], "counts": row["counts"]})
    np.testing.assert_array_equal(mask, mask_of(2, 6))
    assert (row["name"], row.class_name) == ("sail", "boat")
    assert table[(table.object_id == 2) & (table.frame_index == 3)].x0.isna().all()
    assert table.groupby("object_id").area.max().loc[1] == max(mask_of(1, i).sum() for i in range(FRAMES))
    assert len(pandas.table(masklet.Recording())) == 0


def test_fiftyone_gets_labels_of_frames(tmp_path: Path) -> None:
    fo = required("fiftyone")
    sample = fo.Sample(filepath=str(recordings.clip(tmp_path / "clip.mp4")))
    fiftyone.add(sample, recording())
    fiftyone.add(sample, recording(), field="again")
    assert sorted(sample.frames.keys()) == list(range(1, FRAMES + 1))
    for number, frame in sample.frames.items():
        found = frame["again"].detections
        assert [detection.index for detection in found] == ([1] if number - 1 in LOST else [1, 2])
        for detection in found:
            mask = np.zeros((HEIGHT, WIDTH), np.bool_)
            x, y, w, h = np.array(detection.bounding_box) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
            rows, columns = slice(round(y), round(y + h)), slice(round(x), round(x + w))
            mask[rows, columns] = detection.mask
            np.testing.assert_array_equal(mask, mask_of(detection.index, number - 1))
            assert detection.label == {1: "toy", 2: "boat"}[detection.index]


def test_rerun_writes_a_file_that_its_viewer_opens(tmp_path: Path) -> None:
    required("rerun")
    clip = recordings.clip(tmp_path / "clip.mp4")
    rerun.save(recording(clip), tmp_path / "clip.rrd")
    program = [sys.executable, "-m", "rerun", "rrd"]
    checked = subprocess.run([*program, "verify", tmp_path / "clip.rrd"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    printed = subprocess.run(
        [*program, "print", "-v", tmp_path / "clip.rrd"], capture_output=True, text=True, check=True
    ).stdout
    for entity in ("video/masks", "video/boxes", "scores/1", "scores/2", "events", "video"):
        assert f"/masklet/{entity}" in printed, entity
    for archetype in ("SegmentationImage", "Boxes2D", "AssetVideo", "VideoFrameReference", "AnnotationContext"):
        assert archetype in printed, archetype


def tracked(clip: Path, *arguments: object) -> int:
    """Run `masklet track` against a scripted server; its exit status."""
    with FakeServer() as server, pytest.raises(SystemExit) as left:
        main([str(word) for word in ("track", clip, "--point", "1,1", "--server", server.address, *arguments)])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_track_writes_reruns_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    required("rerun")
    clip = recordings.clip(tmp_path / "clip.mp4")
    assert tracked(clip, "--rerun", tmp_path / "clip.rrd", "--name", "1=ring") == 0
    assert f"rerun    {tmp_path / 'clip.rrd'}" in capsys.readouterr().out
    program = [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(tmp_path / "clip.rrd")]
    printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    for entity in ("video/masks", "video/boxes", "scores/1", "video"):
        assert f"/masklet/{entity}" in printed, entity
    assert tracked(clip, "--rerun", tmp_path / "no" / "clip.rrd") == 2
    assert "--rerun" in capsys.readouterr().err


class FakeRerun(types.ModuleType):
    """What the viewer is told, in place of rerun-sdk: each call by name, with what it was told."""

    def __init__(self) -> None:
        super().__init__("rerun")
        self.calls: list[tuple[str, Any]] = []
        self.Box2DFormat = types.SimpleNamespace(XYXY="XYXY")
        self.spawns = True

    def RecordingStream(self, name: str) -> Any:  # noqa: N802 - the library's name
        def told(word: str) -> Any:
            return lambda *given: self.calls.append((word, given))

        def spawn() -> None:
            if not self.spawns:
                raise RuntimeError("no viewer in the PATH")
            self.calls.append(("spawn", ()))

        words = ("connect_grpc", "save", "flush", "disconnect")
        return types.SimpleNamespace(spawn=spawn, **{word: told(word) for word in words})

    def log(self, entity: str, what: Any, *, static: bool, recording: Any) -> None:
        self.calls.append((entity, what))

    def set_time(self, timeline: str, recording: Any, **place: float) -> None:
        self.calls.append((timeline, place))

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **named: (name, given, named)


@pytest.fixture
def fake_rerun(monkeypatch: pytest.MonkeyPatch) -> FakeRerun:
    fake = FakeRerun()
    monkeypatch.setitem(sys.modules, "rerun", fake)
    return fake


@pytest.mark.parametrize("target", ["view", "rerun+http://127.0.0.1:9876/proxy"])
def test_track_shows_results_in_a_viewer_as_they_come(
    target: str, fake_rerun: FakeRerun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    assert tracked(clip, "--rerun", target, "--name", "1=ring") == 0
    capsys.readouterr()
    words = [word for word, _ in fake_rerun.calls]
    assert words[0] == ("spawn" if target == "view" else "connect_grpc")
    assert words[-2:] == ["flush", "disconnect"]
    indices = [place["sequence"] for word, place in fake_rerun.calls if word == rerun.FRAMES]
    assert indices == list(range(len(indices)))
    assert len(indices) > 1
    assert words.count("masklet/video/masks") == words.count("masklet/scores/1") == len(indices)
    (classes,) = [what for word, what in fake_rerun.calls if word == "masklet"]
    assert classes[1][0][0][:2] == (1, "ring")


def test_what_rerun_cannot_do_is_told(
    fake_rerun: FakeRerun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    assert tracked(clip, "--rerun", "clip.txt") == 2
    assert "must be view, a file that ends in" in capsys.readouterr().err
    fake_rerun.spawns = False
    assert tracked(clip, "--rerun", "view") == 1
    assert "Rerun's viewer cannot be started: no viewer in the PATH" in capsys.readouterr().err


def test_without_rerun_track_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    clip = recordings.clip(tmp_path / "clip.mp4")
    assert tracked(clip, "--rerun", tmp_path / "clip.rrd") == 1
    assert "pip install 'masklet[rerun]'" in capsys.readouterr().err
