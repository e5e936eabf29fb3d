from __future__ import annotations

from pathlib import Path

import av

from benchmarks import studio
from benchmarks.sides import EXAMPLE


def test_the_example_is_made_as_large_and_as_long_as_wanted(tmp_path: Path) -> None:
    studio.at_720p(EXAMPLE, tmp_path / "large.mp4", 5)
    with av.open(str(tmp_path / "large.mp4")) as opened:
        assert [(frame.width, frame.height) for frame in opened.decode(video=0)] == [studio.SIZE] * 5


def test_the_table_has_every_figure_with_its_bar() -> None:
    seconds = {what: [0.1 * n for n in range(1, 22)] for what in studio.BARS if what != "masks drawn"}
    lines = studio.rows(studio.Found("clip", seconds, masks=120, masks_seconds=1.5))
    assert [line[1] for line in lines] == list(studio.BARS)
    assert lines[0] == ["clip", "first picture", "21", "1100 ms", "2000 ms", "2100 ms", "3000 ms"]
    assert lines[-1] == ["clip", "masks drawn", "120", "80/s", "", "", "60/s"]
