"""`masklet track` on stdin and named pipes. Cameras and RTSP servers are not to be had where tests run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import clips
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, box, frames, truth
from tests.support.synthetic import iou

PROGRAM = [sys.executable, "-c", "from masklet.cli import main; main()"]
BOX = ",".join(map(str, box(0)))


def clip(container: str, codec: str, pixel_format: str = "yuv420p") -> bytes:
    return clips.make_clip(
        container,
        codec,
        size=(WIDTH, HEIGHT),
        pictures=list(frames()),
        gop=6,
        pixel_format=pixel_format,
        bit_rate=10**6,
    )


def check(path: Path, count: int = NUM_FRAMES) -> None:
    """All frames are there in order, with the object where it is."""
    result = json.loads(path.read_text())
    assert [frame["frame_index"] for frame in result["frames"]] == list(range(count))
    from masklet import decode_rle

    overlaps = [
        iou(decode_rle(frame["objects"][0]["rle"]), truth(0, index)) for index, frame in enumerate(result["frames"])
    ]
    assert sum(overlaps) / count > 0.4, overlaps


@pytest.mark.parametrize(
    ("container", "codec", "pixel_format", "seen"),
    [
        ("mpegts", "libx264", "yuv420p", "packets"),
        ("matroska", "libvpx-vp9", "yuv420p", "packets"),
        ("matroska", "mjpeg", "yuvj420p", "pictures"),
    ],
)
def test_stdin(nano_server: str, tmp_path: Path, container: str, codec: str, pixel_format: str, seen: str) -> None:
    out = tmp_path / "out.json"
    command = [*PROGRAM, "track", "-", "--box", BOX, "--server", nano_server, "--json", str(out)]
    done = subprocess.run(
        command, input=clip(container, codec, pixel_format), capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    check(out)
    assert json.loads(out.read_text())["video"]["container"] == seen


def test_a_named_pipe_with_the_latest_frames(nano_server: str, tmp_path: Path) -> None:
    pipe, out = tmp_path / "pipe", tmp_path / "out.json"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(clip("mpegts", "libx264")))
    writer.start()
    command = [*PROGRAM, "track", str(pipe), "--box", BOX, "--server", nano_server, "--json", str(out)]
    done = subprocess.run([*command, "--delivery", "latest"], capture_output=True, timeout=120, check=False)
    writer.join(10)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    indices = [i for frame in result["frames"] for i in (*frame["skipped_frame_indices"], frame["frame_index"])]
    assert indices == list(range(NUM_FRAMES)), "each frame is a result or skipped by name, in order"
    assert result["frames"][-1]["frame_index"] == NUM_FRAMES - 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["rtsp://user:secret@127.0.0.1:9/none"], 1, "rtsp://127.0.0.1:9/none cannot be opened"),
        (["/dev/null"], 1, "/dev/null cannot be opened"),
        (["-"], 1, "stdin cannot be opened"),
        (["-", "--overlay", "out.gif"], 2, "must end in"),
        (["-", "--reconnect"], 2, "stdin cannot be connected again"),
        (["-", "--silence", "0"], 2, "must be a number of seconds above 0"),
        (["-", "--delivery", "newest"], 2, "is newest, must be one of latest, lossless"),
        (["examples/bunny.mp4", "--delivery", "latest"], 2, "is not a live video"),
    ],
)
def test_what_cannot_be_read(nano_server: str, arguments: list[str], status: int, message: str) -> None:
    command = [*PROGRAM, "track", *arguments, "--box", BOX, "--server", nano_server]
    done = subprocess.run(
        command,
        input="no video",
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "secret" not in done.stderr
