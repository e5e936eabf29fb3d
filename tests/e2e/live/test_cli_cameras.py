"""`masklet track` on cameras and network streams as they are in the field: they break off, fall silent and log in."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import av
import pytest

from masklet import decode_rle
from masklet.cli import main
from masklet_server.embedded import EmbeddedServer
from tests.support import clips, streams
from tests.support.e2e import NUM_FRAMES, box, frames, truth
from tests.support.rtsp import Behaviour, RtspServer
from tests.support.synthetic import iou

# Ctrl-C's signal is as in a terminal, also where these tests run in the background, which ignores it.
PROGRAM = """
import signal
from masklet.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
BOX = ",".join(map(str, box(0)))
PICTURES = list(frames())
ROTATED = Path(__file__).parents[2] / "support" / "cases" / "rotated.mp4"


def start(folder: Path, server: str, *arguments: object, stdin: Any = None, prompt: str = BOX) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "track", *map(str, arguments), "--box", prompt, "--server", server]
    environment = {**os.environ, "COLUMNS": "300"}
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(folder: Path, server: str, *arguments: object, prompt: str = BOX) -> tuple[int, str, str]:
    """The same command line in this process, which is quicker; its exit status, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as left:
            main(["track", *map(str, arguments), "--box", prompt, "--server", server])
    assert isinstance(left.value.code, int)
    return left.value.code, out.getvalue(), err.getvalue()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def frames_of(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["kind"] == "frame"]


def wait_for_frames(file: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many results were written, while the program runs."""
    deadline = time.monotonic() + 90
    while not file.exists() or file.read_text().count('"kind": "frame"') < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_masks(entries: list[dict[str, Any]], count: int) -> None:
    """The object is where it is, in results of every frame."""
    found = frames_of(entries)
    assert [entry["frame_index"] for entry in found] == list(range(count))
    overlaps = [
        iou(decode_rle(entry["objects"][0]["rle"]), truth(0, index)) for index, entry in enumerate(found[:NUM_FRAMES])
    ]
    assert sum(overlaps) / len(overlaps) > 0.4, overlaps


def count_frames(file: Path) -> int:
    with av.open(str(file)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_camera_that_breaks_off_is_tracked_on_until_ctrl_c(nano_server: str, tmp_path: Path) -> None:
    behaviours = Behaviour(frames=NUM_FRAMES), Behaviour()
    with RtspServer(PICTURES, *behaviours, login="user:hidden") as camera:
        url = camera.url.replace("//", "//user:hidden@")
        outputs = ("--jsonl", "out.jsonl", "--overlay", "out.mp4", "--masks", "masks", "--json", "out.json")
        process = start(tmp_path, nano_server, url, *outputs)
        deadline = time.monotonic() + 90
        file = tmp_path / "out.jsonl"
        while not file.exists() or not any(entry["gap_seconds"] for entry in frames_of(lines(file.read_text()))):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        status, out, err = end(process)
    assert status == 130
    assert "Traceback" not in err
    entries = lines(file.read_text())
    assert (entries[-1]["frames"], entries[-1]["error"]) == (len(frames_of(entries)), "interrupted by Ctrl-C")
    assert {"video", "broken", "connected"} <= {entry["kind"] for entry in entries}
    results = frames_of(entries)
    assert [entry["gap_seconds"] > 0 for entry in results].count(True) == 1
    for before, entry in zip([None, *results], results, strict=False):
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])
        assert 0 < entry["latency_seconds"] < 60
        assert entry["revision"] == 0
        last = -1 if before is None else before["frame_index"]
        assert entry["skipped_frame_indices"] == list(range(last + 1, entry["frame_index"]))
    skipped = sum(len(entry["skipped_frame_indices"]) for entry in results)
    assert f"{len(results)} frames in" in out
    assert (f"{skipped} frames (" in out) == bool(skipped)
    assert "broke off and was connected again 1 time" in out
    assert count_frames(tmp_path / "out.mp4") == len(results)
    assert len(list((tmp_path / "masks").iterdir())) == len(results)
    document = json.loads((tmp_path / "out.json").read_text())
    assert [entry["frame_index"] for entry in document["frames"]] == [entry["frame_index"] for entry in results]
    assert document["error"] == "interrupted by Ctrl-C"
    told = out + err + file.read_text() + json.dumps(document)
    assert "hidden" not in told
    assert camera.url in err


def test_a_stream_that_breaks_off_for_good_is_no_success(nano_server: str, tmp_path: Path) -> None:
    with RtspServer(PICTURES, Behaviour(frames=NUM_FRAMES), login="user:hidden") as camera:
        url = camera.url.replace("//", "//user:hidden@")
        options = ("--no-reconnect", "--delivery", "lossless", "--jsonl", "-", "--overlay", "out.mkv")
        status, out, err = run(tmp_path, nano_server, url, *options)
    assert status == 1
    last = err.splitlines()[-1]
    assert re.fullmatch(rf"error: {camera.url} broke off after 0\.\d s of video: ended, and .*", last), err
    entries = lines(out)
    assert len(entries) == len(out.splitlines()), "there is nothing but JSON on stdout"
    check_masks(entries, NUM_FRAMES)
    assert entries[-1]["error"] == last.removeprefix("error: ")
    assert f"{NUM_FRAMES} frames in" in err
    assert count_frames(tmp_path / "out.mkv") == NUM_FRAMES
    assert "hidden" not in out + err


def test_sigterm_keeps_what_was_written(nano_server: str, tmp_path: Path) -> None:
    with RtspServer(PICTURES) as camera:
        process = start(tmp_path, nano_server, camera.url, "--json", "out.jsonl", "--overlay", "out.mp4")
        wait_for_frames(tmp_path / "out.jsonl", 3, process)
        process.terminate()
        status, out, err = end(process)
    assert status == 143, err
    entries = lines((tmp_path / "out.jsonl").read_text())
    assert entries[-1]["error"] == "ended by SIGTERM"
    assert count_frames(tmp_path / "out.mp4") == len(frames_of(entries)) >= 3
    assert "jsonl    out.jsonl" in out


def test_a_program_that_is_killed_leaves_what_it_wrote(nano_server: str, tmp_path: Path) -> None:
    with RtspServer(PICTURES) as camera:
        process = start(tmp_path, nano_server, camera.url, "--jsonl", "out.jsonl")
        wait_for_frames(tmp_path / "out.jsonl", 3, process)
        process.kill()
        end(process)
    assert len(frames_of(lines((tmp_path / "out.jsonl").read_text()))) >= 3


def test_a_server_that_stops_is_no_success_and_leaves_what_came(tmp_path: Path) -> None:
    with RtspServer(PICTURES) as camera:
        with EmbeddedServer(device="cpu", dtype="float32") as server:
            outputs = ("--json", "out.json", "--jsonl", "out.jsonl", "--overlay", "out.mp4")
            process = start(tmp_path, server, camera.url, *outputs, "--no-resume")
            wait_for_frames(tmp_path / "out.jsonl", 3, process)
        status, _, err = end(process)
    assert status == 1
    assert err.splitlines()[-1].startswith("error: the server shut down"), err
    results = frames_of(lines((tmp_path / "out.jsonl").read_text()))
    document = json.loads((tmp_path / "out.json").read_text())
    assert len(document["frames"]) == len(results) == count_frames(tmp_path / "out.mp4")
    assert document["error"].startswith("the server shut down")


def test_when_every_prompt_is_refused_it_fails(nano_server: str, tmp_path: Path) -> None:
    with RtspServer(PICTURES) as camera:
        status, _, err = run(tmp_path, nano_server, camera.url, prompt="5000,5000,6000,6000")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: prompt"), err


def test_a_pipe_turns_pictures_as_a_file_does(nano_server: str, tmp_path: Path) -> None:
    # The disc lies here in the picture as it is shown, which is 240 wide and 320 high.
    prompt = "60,260,190,319"
    status, _, err = run(tmp_path, nano_server, ROTATED, "--json", "file.json", prompt=prompt)
    assert status == 0, err
    with ROTATED.open() as video:
        status, _, err = end(start(tmp_path, nano_server, "-", "--json", "pipe.json", stdin=video, prompt=prompt))
    assert status == 0, err
    file, pipe = (json.loads((tmp_path / name).read_text()) for name in ("file.json", "pipe.json"))
    assert (file["video"]["width"], file["video"]["height"]) == (pipe["video"]["width"], pipe["video"]["height"])
    assert len(file["frames"]) == len(pipe["frames"])
    for one, other in zip(file["frames"], pipe["frames"], strict=True):
        assert iou(*(decode_rle(frame["objects"][0]["rle"]) for frame in (one, other))) > 0.9


def test_mjpeg_over_http(nano_server: str, tmp_path: Path) -> None:
    with streams.mjpeg(PICTURES) as url:
        options = ("--delivery", "lossless", "--jsonl", "-", "--overlay", "out.mp4")
        status, out, err = run(tmp_path, nano_server, url, *options)
    assert status == 1, "a camera has no end"
    assert "broke off after" in err.splitlines()[-1]
    check_masks(lines(out), NUM_FRAMES)
    assert count_frames(tmp_path / "out.mp4") == NUM_FRAMES


def test_hls(nano_server: str, tmp_path: Path) -> None:
    with streams.hls(tmp_path, PICTURES) as url:
        status, out, err = run(tmp_path, nano_server, url, "--jsonl", "-", "--overlay", "out.mp4")
    assert status == 0, err
    check_masks(lines(out), NUM_FRAMES)
    assert count_frames(tmp_path / "out.mp4") == NUM_FRAMES


def test_a_live_playlist_that_is_gone_is_no_success(nano_server: str, tmp_path: Path) -> None:
    endless = {"hls_playlist_type": "event", "hls_flags": "omit_endlist"}
    with streams.hls(tmp_path, PICTURES, **endless) as url:
        process = start(tmp_path, nano_server, url, "--jsonl", "out.jsonl")
        wait_for_frames(tmp_path / "out.jsonl", 1, process)
    status, _, err = end(process)
    assert status == 1
    assert f"{url} broke off after" in err.splitlines()[-1]


def test_a_file_over_http(nano_server: str, tmp_path: Path) -> None:
    data = clips.make_clip("mp4", "libx264", size=(320, 240), pictures=PICTURES, options={"movflags": "faststart"})
    (tmp_path / "clip.mp4").write_bytes(data)
    with streams.files(tmp_path) as address:
        status, out, err = run(tmp_path, nano_server, f"{address}/clip.mp4", "--jsonl", "-")
    assert status == 0, err
    check_masks(lines(out), NUM_FRAMES)


@pytest.mark.parametrize("address", ["127.0.0.1", "239.255.0.1"])
def test_udp(nano_server: str, tmp_path: Path, address: str) -> None:
    port = streams.free_port()
    local = "localaddr=127.0.0.1"
    process = start(
        tmp_path, nano_server, f"udp://{address}:{port}?{local}", "--jsonl", "-", "--silence", "3", "--no-reconnect"
    )
    sending = threading.Thread(
        target=streams.write,
        args=(f"udp://{address}:{port}?pkt_size=1316&{local}", "mpegts", PICTURES * 12, {}, 0.04),
    )
    sending.start()
    status, out, err = end(process)
    sending.join(60)
    assert status == 1, err
    assert "has sent nothing for 3 s" in err.splitlines()[-1]
    assert len(frames_of(lines(out))) > 3
