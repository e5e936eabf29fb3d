"""Bars that show how far tracking is, in notebooks (with IPython's display replaced) and on terminals."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

import masklet
from masklet import _progress
from masklet._progress import bar_html
from tests.support.scripted.fake_server import FakeServer


class Notebook:
    """What a notebook shows: the states of each output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, kernel: bool = True) -> None:
        self.shown: list[str] = []
        package, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        shell = types.SimpleNamespace(kernel=object()) if kernel else types.SimpleNamespace()
        vars(package).update(get_ipython=lambda: shell, display=display)
        vars(display).update(HTML=str, display=self.display)
        monkeypatch.setitem(sys.modules, "IPython", package)
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        monkeypatch.setattr(_progress, "_EVERY_SECONDS", 0.0)

    def display(self, what: str, *, display_id: bool) -> Any:
        assert display_id
        self.shown.append(what)
        return types.SimpleNamespace(update=self.shown.append)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"video")
    return path


def test_a_recording_in_a_notebook_shows_a_bar(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    notebook = Notebook(monkeypatch)
    with FakeServer() as server, masklet.Client(server.address) as client:
        recording = client.track(clip, masklet.Prompt(point_coords=[[1, 1]])).recording()
        count, total = len(recording), recording.video.frame_count  # type: ignore[union-attr]
        assert len(notebook.shown) == count + 2, "at the start, for each frame, and at the end"
        assert "0" in notebook.shown[0]
        assert f"{count} of {total} frames" in notebook.shown[-1]
        assert f'value="{count}" max="{total}"' in notebook.shown[-1]
        shown = len(notebook.shown)
        client.track(clip, masklet.Prompt(point_coords=[[1, 1]])).recording(progress=False)
        assert len(notebook.shown) == shown


async def test_also_where_a_loop_runs(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    notebook = Notebook(monkeypatch)
    with FakeServer() as server:
        async with masklet.AsyncClient(server.address) as client:
            recording = await client.track(clip, masklet.Prompt(point_coords=[[1, 1]])).recording()
    assert f"{len(recording)} of " in notebook.shown[-1]


def test_a_loop_has_a_bar_if_it_asks_for_one(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    notebook = Notebook(monkeypatch)
    with FakeServer() as server, masklet.Client(server.address) as client:
        frames = list(masklet.progress(client.track(clip, masklet.Prompt(point_coords=[[1, 1]])), "the <clip>"))
    assert "the &lt;clip&gt;" in notebook.shown[0]
    assert f"{len(frames)} of " in notebook.shown[-1]


@pytest.mark.parametrize("kernel", [True, False])
def test_a_bar_stays_where_it_broke_off(monkeypatch: pytest.MonkeyPatch, clip: Path, kernel: bool) -> None:
    notebook = Notebook(monkeypatch, kernel=kernel)
    with FakeServer() as server, masklet.Client(server.address) as client:
        tracking = client.track(clip, masklet.Prompt(point_coords=[[1, 1]]))
        for frame in masklet.progress(tracking):
            assert frame.frame_index == 0
            break
        tracking.close()
    if kernel:
        assert "1 of " in notebook.shown[-1]
    else:
        assert notebook.shown == [], "IPython on a terminal is no notebook"


def test_a_terminal_has_a_bar_and_a_file_has_none(
    monkeypatch: pytest.MonkeyPatch, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server, masklet.Client(server.address) as client:
        client.track(clip, masklet.Prompt(point_coords=[[1, 1]])).recording(progress=True)
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("FORCE_COLOR", "1")
        client.track(clip, masklet.Prompt(point_coords=[[1, 1]])).recording(progress=True)
        out, err = capsys.readouterr()
        assert out == ""
        assert "tracking" in err
        client.track(clip, masklet.Prompt(point_coords=[[1, 1]])).recording()
        assert capsys.readouterr() == ("", ""), "unasked, only notebooks have one"


def test_more_frames_than_the_header_says() -> None:
    assert 'value="8" max="8"' in bar_html("tracking", 11, 8, 1.0)
    assert "11 of 8 frames, 11.0 frames/s" in bar_html("tracking", 11, 8, 1.0)
    assert "<progress></progress> 11 frames, " in bar_html("tracking", 11, 0, 1.0)
