"""The folder for temporary files goes away while a server runs, and comes back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

import masklet
from masklet import Prompt
from tests.support import e2e


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the server, which is in this process, takes for TMPDIR."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def test_streams_that_need_it_are_refused_and_the_others_go_on(
    client: masklet.Client, folder: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(e2e.h264())
    prompt = Prompt(point_coords=[e2e.center(0)])
    assert len(list(client.track(clip, prompt))) == e2e.NUM_FRAMES
    folder.rmdir()
    with pytest.raises(masklet.Unavailable, match="its folder for temporary files is missing") as caught:
        list(client.track(clip, prompt, resume=False))
    assert caught.value.retry_after_seconds == 30
    found = client.segment(e2e.frames()[0], point_coords=[e2e.center(0)], point_labels=[1])
    assert found
    folder.mkdir()
    assert len(list(client.track(clip, prompt))) == e2e.NUM_FRAMES
