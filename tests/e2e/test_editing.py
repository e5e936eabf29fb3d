"""`masklet track` for editors, as a user runs it, against a real server: ranges, directions, corrections, exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

import masklet
import masklet.export
import masklet.importing
from masklet import Recording
from masklet.cli import main
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, center, lossless, truth

Track = Callable[..., Recording]


def run(*arguments: object) -> int:
    """Run a command line; its exit status."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "clip.mkv").write_bytes(lossless())
    return tmp_path / "clip.mkv"


@pytest.fixture
def track(clip: Path, tmp_path: Path, nano_server: str) -> Track:
    """Runs `masklet track` on the clip, and gives its results."""

    def command(*arguments: object) -> Recording:
        assert run("track", clip, *arguments, "--json", tmp_path / "result.json", "--server", nano_server) == 0
        return Recording.load(tmp_path / "result.json")

    return command


def click(blob: int, frame_index: int = 0) -> str:
    x, y = center(blob, frame_index)
    return f"{blob + 1}:{x:.1f},{y:.1f}@{frame_index}"


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def assert_found(recording: Recording, frames: range, blob: int = 0) -> None:
    assert recording.frame_indices == list(frames)
    for index in frames:
        assert iou(recording[index].objects[blob + 1].mask, truth(blob, index)) > 0.45, index


def test_a_range_of_frames(track: Track) -> None:
    assert_found(track("--point", click(0, 4), "--start", 4, "--end", 9), range(4, 10))


def test_a_range_of_times_that_begins_after_the_prompt(track: Track) -> None:
    """The object is tracked up to the range, and results begin there."""
    whole = track("--point", click(0))
    times = [frame.pts_seconds for frame in whole]
    part = track("--point", click(0), "--start", f"{times[6]:.3f}s", "--end", f"0:{times[11]:06.3f}")
    assert_found(part, range(6, 12))
    for frame in part:
        assert frame.pts_seconds == pytest.approx(times[frame.frame_index])


def test_backward(track: Track) -> None:
    assert_found(track("--point", click(0, 10), "--direction", "backward"), range(11))
    # Nothing is before the first frame, but its own masks.
    assert_found(track("--point", click(0, 0), "--direction", "backward"), range(1))


def test_exports_that_fail_leave_the_others(
    clip: Path, nano_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    options = ("--export", f"cvat={tmp_path / 'taken' / 'a.xml'}", "--export", f"coco={tmp_path / 'a.json'}")
    more = ("--export", f"coco={tmp_path / 'b.json'}", "--json", tmp_path / "r.json")
    assert run("track", clip, "--point", click(0), "--end", 2, *options, *more, "--server", nano_server) == 1
    out, err = capsys.readouterr()
    for name in ("a.json", "b.json", "r.json"):
        assert (tmp_path / name).exists()
        assert str(tmp_path / name) in out
    assert "taken" in err
    assert "[Errno" not in err
    assert len(Recording.load(tmp_path / "r.json")) == 3
    assert json.loads((tmp_path / "r.json").read_text())["objects"] == [{"object_id": 1, "name": "", "class": ""}]


def test_both_ways_with_a_start(track: Track, tmp_path: Path) -> None:
    outputs = ("--overlay", tmp_path / "overlay.mp4", "--overlay-style", "outline", "--masks", tmp_path / "masks")
    found = track("--point", click(0, 10), "--direction", "both", "--start", 3, *outputs)
    assert_found(found, range(3, NUM_FRAMES))
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == NUM_FRAMES - 3
    assert min(file.name for file in (tmp_path / "masks").iterdir()) == "00003.png"


def test_corrections_leave_what_was_before_and_the_other_objects(track: Track, tmp_path: Path) -> None:
    prompts = ("--point", click(0), "--point", click(1), "--deterministic")
    before = track(*prompts)
    x, y = center(0, 8)
    entry = {"object": 1, "frame": 8, "points": [[x, y, 0], [30, 30, 1]]}
    (tmp_path / "corrections.json").write_text(json.dumps([entry]))
    after = track(*prompts, "--correct", tmp_path / "corrections.json", "--start", 2)
    assert after.frame_indices == list(range(2, NUM_FRAMES))
    for index in after.frame_indices:
        np.testing.assert_array_equal(after[index].objects[2].mask, before[index].objects[2].mask)
        if index <= 8:  # later masks may be the same again
            corrected, first = after[index].objects[1], before[index].objects[1]
            same = np.array_equal(corrected.mask, first.mask) and corrected.predicted_iou == first.predicted_iou
            assert same == (index < 8), index


def test_prompts_names_and_exports(track: Track, clip: Path, tmp_path: Path) -> None:
    entries = [
        {"object": 1, "name": "ball", "points": [list(center(0))]},
        {"object": 2, "class": "toy", "frame": 3, "points": [list(center(1, 3))]},
    ]
    (tmp_path / "prompts.json").write_text(json.dumps({"prompts": entries}))
    coco, cvat = tmp_path / "coco.json", tmp_path / "tracks.xml"
    options = ("--prompts", tmp_path / "prompts.json", "--name", "2=cube:thing")
    found = track(*options, "--export", f"coco={coco}", "--export", f"cvat={cvat}")
    assert [(o.name, o.class_name) for o in found.objects.values()] == [("ball", ""), ("cube", "thing")]
    assert found.source == str(clip)
    for path in (coco, cvat):
        again = masklet.importing.read(path)
        assert {i: o.category for i, o in again.objects.items()} == {1: "ball", 2: "thing"}
        for frame in found:
            for object_id, result in frame.objects.items():
                other = again[frame.frame_index].objects.get(object_id)
                mask = np.zeros((HEIGHT, WIDTH), np.bool_) if other is None else other.mask
                np.testing.assert_array_equal(mask, result.mask & np.bool_(result.visible))


def test_masks_of_another_tool_are_gone_on_from(track: Track, tmp_path: Path) -> None:
    track("--point", click(0), "--export", f"davis={tmp_path / 'davis'}")
    again = track("--prompts", tmp_path / "davis")
    assert_found(again, range(NUM_FRAMES))


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        (("--start", "9999"), 2, "outside the video, whose last frame is frame 17"),
        (("--start", "9", "--end", "3"), 2, "frame 3 is before frame 9"),
        (("--start", "5", "--direction", "backward"), 2, "frame 5 is after the prompt on frame 0"),
        (("--start", "soon"), 2, "neither a frame"),
        (("--direction", "up"), 2, "must be one of forward, backward, both"),
        (("--end", "3", "--memory-policy", "motion-aware"), 2, "must be sam2"),
        (("--export", "coco"), 2, "is not FORMAT=PATH"),
        (("--export", "coco=a.xml"), 2, "ends in .json"),
        (("--name", "ball"), 2, "such as 1=rabbit"),
        (("--name", "7=ball"), 2, "object 7 has no prompt; the objects are 1"),
        (("--export", "matte=a.mp4"), 2, "transparent does not go with .mp4"),
        (("--export", "coco=a.json", "--export", "youtube-vis=a.json"), 2, "a.json is given twice"),
        (("--box", "300:1,2,3,4", "--export", "davis=a"), 2, "object 300 is above 255"),
        (("--overlay", "CLIP"), 2, "is the file that is read"),
        (("--masks", "CLIP"), 2, "is a file; give a folder"),
        (("--min-score", "0.5"), 2, "goes with the boxes of --prompts FILE"),
        (("--json", "CLIP"), 2, "is the file that is read"),
        (("--overlay-style", "neon"), 2, "must be one of both, fill, outline"),
        (("--prompts", "gone.json"), 1, "gone.json"),
        (("--correct", "CORRECTIONS"), 2, "object 3 has no prompt of its own"),
        (("--correct", "CORRECTIONS", "--direction", "both"), 2, "goes with --direction forward alone"),
    ],
)
def test_mistakes_are_named(
    options: tuple[str, ...],
    status: int,
    complaint: str,
    clip: Path,
    nano_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (clip.parent / "c.json").write_text(json.dumps([{"object": 3, "frame": 2, "points": [[1, 2]]}]))
    named = {"CORRECTIONS": str(clip.parent / "c.json"), "CLIP": str(clip)}
    words = [named.get(word, word) for word in options]
    before = clip.read_bytes()
    assert run("track", clip, "--point", click(0), *words, "--server", nano_server) == status
    assert complaint in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert clip.read_bytes() == before


def test_a_range_needs_a_prompt_inside(clip: Path, nano_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("track", clip, "--point", click(0, 9), "--end", 4, "--server", nano_server) == 2
    assert "frame 4 is before the prompt on frame 9" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_live_video_has_no_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("track", "rtsp://127.0.0.1:1/x", "--point", "1,2", "--start", "3", "--server", "127.0.0.1:1") == 2
    assert "a live video has no range" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_live_video_has_no_pictures_for_a_matte(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("track", "rtsp://127.0.0.1:1/x", "--point", "1,2", "--export", "matte=a.mov") == 2
    assert "matte needs the video's pictures" in " ".join(capsys.readouterr().err.replace("│", " ").split())
