"""`masklet.show`: a film inside the page, which needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import av
import numpy as np
import pytest

import masklet
from masklet.drawing import colour_of
from tests.support import recordings
from tests.support.recordings import FRAMES, HEIGHT, WIDTH, frame_of, mask_of, recording


def pictures(film: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(film), "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def film_of(html: str) -> bytes:
    (data,) = re.findall(r'<video [^>]*src="data:video/mp4;base64,([^"]*)"', html)
    return base64.b64decode(data)


def distance(colour: np.ndarray, expected: tuple[float, ...]) -> float:
    return float(np.abs(colour.astype(float) - expected).max())


def test_the_page_has_the_video_with_its_masks_and_the_table(tmp_path: Path) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    player = masklet.show(recording(clip))
    html = player._repr_html_()
    assert film_of(html) == player.film
    assert "ring" in html
    assert "sail" in html
    assert not re.search(r"https?://|<script|<iframe|<link", html), "no other host, no script"
    shown = pictures(player.film)
    assert len(shown) == FRAMES
    for index, picture in enumerate(shown):
        assert picture.shape == (HEIGHT, WIDTH, 3)
        inside = mask_of(1, index)
        expected = tuple(
            0.55 * a + 0.45 * b for a, b in zip(recordings.colour_of_frame(index), colour_of(1), strict=True)
        )
        assert distance(np.median(picture[inside], axis=0), expected) < 25
        outside = ~inside & ~mask_of(2, index)
        assert distance(np.median(picture[outside], axis=0), recordings.colour_of_frame(index)) < 12
    with av.open(io.BytesIO(player.film), "r") as container:
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(FRAMES / recordings.FRAME_RATE, abs=0.02)


def test_without_a_video_there_are_the_masks_alone() -> None:
    player = masklet.show(recording(""))
    picture = pictures(player.film)[0]
    assert distance(np.median(picture[~mask_of(1, 0) & ~mask_of(2, 0)], axis=0), (20, 20, 20)) < 12


def test_a_range_and_a_size(tmp_path: Path) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    player = masklet.show(recording("elsewhere.mp4"), clip, first=2, last=4, width=64)
    shown = pictures(player.film)
    assert len(shown) == 3
    assert shown[0].shape == (48, 64, 3)
    assert distance(np.median(shown[0][:4], axis=(0, 1)), recordings.colour_of_frame(2)) < 12
    player.save(tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes() == player.film
    assert "Player(" in repr(player)


def test_what_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recording("")
    with pytest.raises(masklet.InvalidArgument, match="first: there is no result from frame 90 to frame None"):
        masklet.show(made, first=90)
    with pytest.raises(masklet.InvalidArgument, match="first: there is no result"):
        masklet.show(masklet.Recording())
    with pytest.raises(masklet.InvalidArgument, match="width: is 8, must be at least 64"):
        masklet.show(made, width=8)
    with pytest.raises(masklet.InvalidArgument, match=r"video: has 2x2 pixels on frame 0, .* 120x90; is it the one"):
        masklet.show(masklet.Recording([frame_of(0)]), [np.zeros((2, 2, 3), np.uint8)])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        masklet.show(recording("nowhere.mp4"))
    monkeypatch.setattr("masklet.player._MOST_BYTES", 100)
    with pytest.raises(masklet.InvalidArgument, match="too large for a notebook; choose a part"):
        masklet.show(made)


async def test_it_works_while_a_loop_runs() -> None:
    assert len(pictures(masklet.show(recording("")).film)) == FRAMES
