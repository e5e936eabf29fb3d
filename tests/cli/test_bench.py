"""`masklet bench`, against a server that follows a script, and against a real one inside the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import masklet
from masklet import Timings
from masklet.cli.bench import StreamRun, curve_point, summary
from tests.cli.test_commands import run
from tests.support.scripted.fake_script import Script
from tests.support.scripted.fake_server import FakeServer


def timings(milliseconds: float) -> Timings:
    return Timings(*[milliseconds / 1000] * 6)


def test_figures() -> None:
    runs = [
        StreamRun(2.0, [timings(i) for i in range(1, 100)]),
        StreamRun(4.0, [timings(i) for i in range(101, 200)]),
    ]
    found = summary(runs)
    assert (found["streams"], found["frames"]) == (2, 200)
    assert found["frames_per_second"] == 50
    assert (found["slowest_stream"], found["quickest_stream"]) == (25, 50)
    assert found["frames_per_second_of_a_stream"] == 37.5
    assert found["milliseconds"]["step"] == {"median": pytest.approx(100), "p95": pytest.approx(190)}


def test_a_server_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, figures = tmp_path / "clip.mp4", tmp_path / "bench.json"
    video.write_bytes(b"whatever; the server reads it")
    with FakeServer(Script(frame_count=12, tuning="float16, with CUDA graphs")) as server:
        assert run("bench", video, "--streams", 3, "--server", server.address, "--json", figures) == 0
        measured = [session for session in server.sessions if session.config.timings]
    assert len(measured) == 3
    assert all((s.prompts[0].points[0].x, s.prompts[0].points[0].y) == (32, 24) for s in measured)
    found = json.loads(figures.read_text())
    assert (found["streams"], found["frames"], found["objects"], found["model"]) == (3, 36, 1, "nano")
    assert found["server_version"] == "9.9.9"
    assert found["tuning"] == "float16, with CUDA graphs"
    assert 0 < found["slowest_stream"] <= found["quickest_stream"] <= found["frames_per_second"]
    assert found["milliseconds"]["decode"] == {"median": pytest.approx(6), "p95": pytest.approx(11)}
    printed = capsys.readouterr().out
    assert "nano on Fake CPU" in printed
    assert "measured on this device: float16, with CUDA graphs" in printed
    assert "streams: 3, objects in each: 1, frames of all: 36" in printed
    for stage in ("decode", "queue", "encode", "step", "mask", "send"):
        assert [line.split()[1:] for line in printed.splitlines() if line.split()[:1] == [stage]] == [["6.00", "11.00"]]


def test_a_point_of_the_curve_leaves_out_the_start() -> None:
    late = StreamRun(9.0, (), [5.0, 5.5, 6.0, 6.5, 7.0])
    early = StreamRun(6.0, (), [3.0, 4.0, 5.0, 6.0])
    assert curve_point([late, early]) == {"streams": 2, "frames_per_second": 3.0, "round_seconds": 2 / 3}
    with pytest.raises(masklet.InvalidArgument, match="video: is too short: 2 streams were hardly at work"):
        curve_point([late, StreamRun(1.0, (), [1.0, 2.0])])


def test_a_curve_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "curve.json"
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with FakeServer(Script(frame_count=12, seconds_per_frame=0.02)) as server:
        words = ("bench", tmp_path / "clip.mp4", "--server", server.address, "--json", figures)
        assert run(*words, "--curve", "4,1") == 0
        measured = [session for session in server.sessions if session.config.timings]
        assert len(measured) == 5
        assert run(*words, "--curve", "1,many") == 2
    found = json.loads(figures.read_text())
    assert [point["streams"] for point in found["curve"]] == [1, 4]
    for point in found["curve"]:
        assert point["round_seconds"] == pytest.approx(point["streams"] / point["frames_per_second"])
    assert found["overhead_seconds"] == pytest.approx(0.018)
    assert "4 streams: " in capsys.readouterr().out


def test_prompts_can_be_given(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"x")
    with FakeServer() as server:
        assert run("bench", video, "--point", "1,2", "--box", "2:1,1,9,9", "--server", server.address) == 0
        assert {p.object_id for session in server.sessions for p in session.prompts} == {1, 2}


@pytest.mark.parametrize(
    ("script", "says"),
    [(Script(knows_timings=False), "older than this client"), (Script(frame_count=1), "at least 2 are needed")],
)
def test_what_cannot_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str], script: Script, says: str) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"x")
    with FakeServer(script) as server:
        assert run("bench", video, "--streams", 2, "--server", server.address) == 1
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "nowhere.mp4", "--server", "127.0.0.1:1") == 1
    assert "nowhere.mp4: No such file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_made_up_clip_on_a_real_server(nano_server: str, tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    assert run("bench", "--streams", 2, "--server", nano_server, "--json", figures) == 0
    found = json.loads(figures.read_text())
    assert (found["streams"], found["frames"]) == (2, 2 * 30)
    for stage in ("decode", "queue", "encode", "step", "mask", "send"):
        assert 0 < found["milliseconds"][stage]["median"] <= found["milliseconds"][stage]["p95"]
    with masklet.Client(nano_server) as client:
        assert found["device"] == client.info().device_name
