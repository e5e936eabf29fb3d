"""Files that break off, lack frames or have more than frames: what a client gets of them."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

import masklet
from masklet.cli import main
from tests.support.cases import FOLDER, case
from tests.support.clips import make_clip

CLICK = masklet.Prompt(point_coords=[[80, 70]])


def cut() -> bytes:
    """The first half of a file; its frames are read from the front."""
    data = make_clip("matroska", "ffv1", frames=8, size=(160, 120))
    return data[: len(data) // 2]


def resized() -> bytes:
    """Two clips of different sizes in one transport stream."""
    return make_clip("mpegts", frames=6) + make_clip("mpegts", frames=6, size=(96, 80))


@pytest.mark.parametrize("name", ["trailing_newline.mp4", "trailing_camera_block.mp4"])
def test_bytes_behind_the_end_change_nothing(client: masklet.Client, name: str) -> None:
    whole = list(client.track(case("disc.mp4"), CLICK))
    frames = list(client.track(case(name), CLICK))
    assert len(frames) == len(whole) == 16
    for one, other in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(one.masks[1], other.masks[1])
    with client.annotate(case(name)) as annotation:
        assert annotation.frame_count == 16
        assert annotation.video.broken_off == ""


@pytest.mark.parametrize(("make", "error", "message"), [
    (cut, masklet.DataLoss, "breaks off after"),
    (resized, masklet.InvalidArgument, "96x80"),
])  # fmt: skip
def test_all_frames_before_a_break_are_tracked(client: masklet.Client, make: object, error: type, message: str) -> None:
    assert callable(make)
    data = make()
    frames: list[masklet.FrameResult] = []
    tracking = client.track(data, masklet.Prompt(point_coords=[[20, 20]]))
    with pytest.raises(error, match=message):
        frames.extend(frame for frame in tracking)
    assert 2 <= len(frames) <= 7, "fewer than the frames that tell how long a clip is"
    assert all(frame.objects[1].visible for frame in frames[:1])
    with client.annotate(data) as annotation:
        annotation.prompt(masklet.Prompt(point_coords=[[20, 20]]))
        assert annotation.frame_count == len(frames)
        assert message in annotation.video.broken_off
        assert [frame.frame_index for frame in annotation.propagate()] == list(range(len(frames)))


def test_frames_that_cannot_be_decoded_are_named(client: masklet.Client) -> None:
    tracking = client.track(case("damaged_av1.mp4"), CLICK)
    named = [[round(time, 3) for time in frame.undecoded_pts_seconds] for frame in tracking]
    assert named == [[], [0.04, 0.08, 0.12], [0.2, 0.24, 0.28], [0.36], [0.44]]
    assert [round(time, 3) for time in tracking.undecoded_pts_seconds] == [
        *(0.04, 0.08, 0.12, 0.2, 0.24, 0.28, 0.36, 0.44, 0.52, 0.56, 0.6),
    ]
    with client.annotate(case("damaged_av1.mp4")) as annotation:
        assert annotation.frame_count == 5
        assert annotation.video.undecoded_pts_seconds == tracking.undecoded_pts_seconds


def test_the_command_keeps_what_it_has_and_says_so(
    nano_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.mkv").write_bytes(cut())
    outputs = ["--overlay", "o.mp4", "--json", "r.json", "--masks", "m"]
    outputs = [word if word.startswith("--") else str(tmp_path / word) for word in outputs]
    with pytest.raises(SystemExit) as left:
        main(["track", str(tmp_path / "cut.mkv"), "--point", "20,20", "--server", nano_server, *outputs])
    assert left.value.code == 1
    out, err = capsys.readouterr()
    result = json.loads((tmp_path / "r.json").read_text())
    count = len(result["frames"])
    assert count >= 2
    assert err.splitlines()[-1].startswith(f"error: the video breaks off after {count} frames")
    assert f"{count} frames in" in out
    assert f"the video breaks off after {count} frames" in result["error"]
    assert len(list((tmp_path / "m").iterdir())) == count
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(list(container.decode(video=0))) == count


def test_the_command_draws_on_the_frames_that_were_tracked(
    nano_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "o.mp4"
    arguments = ["--point", "80,70", "--server", nano_server, "--overlay", str(overlay)]
    with pytest.raises(SystemExit) as left:
        main(["track", str(FOLDER / "damaged_av1.mp4"), *arguments])
    assert left.value.code == 0
    assert "11 frames of the file could not be decoded, at 0.040, 0.080, 0.120," in capsys.readouterr().out
    with av.open(str(overlay)) as container:
        times = [round(float(frame.time or 0), 2) for frame in container.decode(video=0)]
    assert times == [0.0, 0.16, 0.32, 0.4, 0.48]
