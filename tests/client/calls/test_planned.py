"""Marks and plans: which frames a range holds, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklet._sync.planned import Mark, Plan, frame_times
from masklet.errors import InvalidArgument
from tests.support import recordings


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("120", None), ("4.5s", 4.5), ("7s", 7.0), ("1:04.5", 64.5), ("1:02:03", 3723.0), (".5s", 0.5), ("0", None)],
)
def test_marks_are_frames_or_times(word: str, seconds: float | None) -> None:
    assert Mark(word, "start").seconds == seconds


@pytest.mark.parametrize("word", ["", "later", "-3", "4.5", "1:2:3:4", "5m"])
def test_other_marks_are_refused(word: str) -> None:
    with pytest.raises(InvalidArgument, match="neither a frame, such as 120, nor a time"):
        Mark(word, "start")


def test_plans_that_track_ordinarily_are_plain() -> None:
    assert Plan().is_plain
    assert not Plan(direction="both").is_plain
    assert not Plan(end=Mark("3", "end")).is_plain
    with pytest.raises(InvalidArgument, match="must be one of forward, backward, both"):
        Plan(direction="sideways")


def test_times_come_from_the_container(tmp_path: Path) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    np.testing.assert_allclose(frame_times(clip), np.arange(recordings.FRAMES) / recordings.FRAME_RATE, atol=1e-3)
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{number}.png")
    np.testing.assert_allclose(frame_times(tmp_path / "pictures"), [0, 1 / 30, 2 / 30])
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(InvalidArgument, match="cannot be read as a video"):
        frame_times(tmp_path / "no.mp4")
