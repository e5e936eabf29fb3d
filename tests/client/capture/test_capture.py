"""`masklet.capture`, against a camera that breaks off, falls silent, and asks for a password."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import masklet
from tests.support import clips
from tests.support.rtsp import Behaviour, RtspServer

PICTURES = [clips.picture(index, 64, 48) for index in range(12)]
CASES = Path(__file__).parents[2] / "support" / "cases"


def taken(source: masklet.Capture, count: int) -> list[masklet.Captured]:
    """The first parts of a source, which is closed then."""
    with source:
        return [part for part, _ in zip(source, range(count), strict=False)]


def test_a_camera_gives_packets_with_their_times() -> None:
    with RtspServer(PICTURES) as camera, masklet.capture(camera.url) as source:
        assert repr(source) == f"Capture({camera.url!r}, packets)"
        assert not source.can_wait
        parts = taken(source, 30)
    assert all(isinstance(part.video, masklet.VideoPacket) and part.video.codec == "h264" for part in parts)
    stamps = [part.pts_seconds for part in parts]
    assert stamps[0] == 0.0
    assert stamps[-1] == pytest.approx(29 / 25, abs=0.05)
    read = [part.capture_time_nanoseconds for part in parts]
    assert read == sorted(set(read))
    assert "h264" in repr(parts[0])


def test_a_camera_that_breaks_off_is_connected_again() -> None:
    events: list[masklet.CaptureEvent] = []
    with RtspServer(PICTURES, Behaviour(frames=6), Behaviour()) as camera:
        parts = taken(masklet.capture(camera.url, on_event=events.append), 12)
        assert camera.connections == 2
    assert [event.kind for event in events] == ["broken", "connected"]
    assert "ended, and a camera's stream has no end" in events[0].message
    (after,) = [index for index, part in enumerate(parts) if part.gap_seconds]
    assert after == 6
    before, first = parts[5].pts_seconds, parts[6].pts_seconds
    assert before is not None
    assert first == pytest.approx(before + parts[6].gap_seconds, abs=0.1)
    packet = parts[6].video
    assert isinstance(packet, masklet.VideoPacket)
    assert packet.extradata == b""
    assert packet.data.startswith(b"\0\0\0\1g") or packet.data.startswith(b"\0\0\1g")  # all that decoding needs


def test_without_reconnect_a_break_is_an_error() -> None:
    with RtspServer(PICTURES, Behaviour(frames=6)) as camera:
        source = masklet.capture(camera.url, reconnect=False)
        for _ in range(6):
            next(source)
        with pytest.raises(masklet.DataLoss, match=r"broke off after 0\.2 s of video: ended") as caught:
            next(source)
    assert caught.value.__context__ is None
    assert list(source) == []


@pytest.mark.slow
def test_silence_is_noticed() -> None:
    events: list[masklet.CaptureEvent] = []
    with RtspServer(PICTURES, Behaviour(frames=40, silent=True), Behaviour()) as camera:
        source = masklet.capture(camera.url, silence_seconds=1.0, on_event=events.append)
        begun = time.monotonic()
        parts = taken(source, 42)
        assert time.monotonic() - begun < 20
    assert [event.kind for event in events] == ["broken", "connected"]
    assert "has sent nothing for 1 s" in events[0].message
    assert [part.gap_seconds > 0.9 for part in parts if part.gap_seconds] == [True]
    with RtspServer(PICTURES, Behaviour(frames=40, silent=True)) as camera:
        source = masklet.capture(camera.url, silence_seconds=1.0, reconnect=False)
        with pytest.raises(masklet.DataLoss, match="has sent nothing for 1 s; reconnect would connect it again"):
            list(source)


def test_a_video_of_known_length_ends() -> None:
    with RtspServer(PICTURES, Behaviour(frames=12, seconds=0.48)) as camera:
        assert len(list(masklet.capture(camera.url))) == 12
    short = pytest.raises(masklet.DataLoss, match=r"after 0\.4 s of video: ended, and should be 60\.0 s long$")
    with RtspServer(PICTURES, Behaviour(frames=12, seconds=60)) as camera, short:
        list(masklet.capture(camera.url))


@pytest.mark.slow
def test_while_it_is_away_it_is_tried_again_and_again() -> None:
    events: list[masklet.CaptureEvent] = []
    with RtspServer(PICTURES, Behaviour(frames=6)) as camera:
        source = masklet.capture(camera.url, on_event=events.append)
        for _ in range(6):
            next(source)
    back = threading.Event()

    def come_back() -> None:
        deadline = time.monotonic() + 30
        while not any(event.kind == "waiting" for event in events) and time.monotonic() < deadline:
            time.sleep(0.05)
        with RtspServer(PICTURES, port=camera.port):
            back.wait(30)

    thread = threading.Thread(target=come_back)
    thread.start()
    part = next(source)
    source.close()
    back.set()
    thread.join(10)
    assert part.gap_seconds > 0.5
    assert [event.kind for event in events][:2] == ["broken", "waiting"]
    assert events[-1].kind == "connected"
    assert "Connection refused; next try in" in events[1].message


@pytest.mark.slow
def test_close_ends_a_loop_that_waits() -> None:
    with RtspServer(PICTURES, Behaviour(frames=40, silent=True)) as camera:
        source = masklet.capture(camera.url)
        threading.Timer(1.0, source.close).start()
        assert len(list(source)) <= 40


def test_no_password_is_told() -> None:
    events: list[masklet.CaptureEvent] = []
    with RtspServer(PICTURES, Behaviour(frames=6), Behaviour(frames=6), login="user:hidden") as camera:
        login = camera.url.replace("//", "//user:hidden@")
        source = masklet.capture(login, on_event=events.append)
        parts = taken(source, 7)
        with pytest.raises(masklet.Unavailable, match="401 Unauthorized") as caught:
            masklet.capture(camera.url.replace("//", "//user:hidden-too@"))
    told = [repr(source), str(events), repr(parts), str(caught.value), repr(caught.value)]
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert len(events) == 2
    assert "hidden" not in "".join(told)


@contextmanager
def piped(data: bytes, path: Path) -> Iterator[str]:
    """A named pipe into which the data go."""
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(data))
    writer.start()
    yield str(path)
    writer.join(10)


def test_a_pipe_turns_pictures_as_its_container_says(tmp_path: Path) -> None:
    turned = clips.make_clip("mov", "libx264", size=(64, 48), rotation=90, options={"movflags": "frag_keyframe"})
    with piped(turned, tmp_path / "pipe") as pipe:
        parts = list(masklet.capture(pipe))
    assert len(parts) == 10
    first = parts[0].video
    assert isinstance(first, np.ndarray)
    assert first.shape == (64, 48, 3)
    expected = np.rot90(clips.picture(0, 64, 48))
    assert clips.difference(first, expected) < 12


def test_a_pipe_that_turns_nothing_gives_its_packets(tmp_path: Path) -> None:
    data = clips.make_clip("mov", "libx264", size=(64, 48), options={"movflags": "frag_keyframe"})
    with piped(data, tmp_path / "pipe") as pipe:
        source = masklet.capture(pipe)
        assert source.can_wait
        parts = list(source)
    packets = [part.video for part in parts if isinstance(part.video, masklet.VideoPacket)]
    assert len(packets) == len(parts) == 10
    assert packets[0].extradata[:1] == b"\x01"


def test_a_pipe_may_pause(tmp_path: Path) -> None:
    data = clips.make_clip("mpegts", "libx264", size=(64, 48), frames=60)
    path, events = tmp_path / "pipe", list[masklet.CaptureEvent]()
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb") as pipe:
            time.sleep(1.0)
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    assert len(list(masklet.capture(str(path), silence_seconds=0.4, on_event=events.append))) == 60
    writer.join(10)
    assert {event.kind for event in events} == {"silent"}
    assert "has sent nothing for 0 s" in events[0].message or "for 1 s" in events[0].message


def test_a_playlist_in_a_pipe_opens_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(clips.make_clip("mpegts", "libx264"))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path / 'secret.ts'}\n#EXT-X-ENDLIST\n"
    refused = pytest.raises(masklet.Unavailable, match="cannot be opened")
    with piped(playlist.encode(), tmp_path / "pipe.m3u8") as pipe, refused:
        list(masklet.capture(pipe))


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("examples/bunny.mp4", {}, "source: examples/bunny.mp4 is no live video; give - for stdin"),
        ("-", {"reconnect": True}, "reconnect: stdin cannot be connected again"),
        ("rtsp://127.0.0.1:9/x", {"silence_seconds": 0.0}, "silence_seconds: is 0.0, must be a number"),
    ],
)
def test_wrong_arguments_are_named(source: str, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(masklet.InvalidArgument) as caught:
        masklet.capture(source, **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_what_this_ffmpeg_does_not_speak_has_another_way() -> None:
    with pytest.raises(
        masklet.Unavailable, match=r"this PyAV has no SRT; let ffmpeg read it|cannot be opened"
    ) as caught:
        masklet.capture("srt://user:hidden@127.0.0.1:9/x")
    assert "hidden" not in str(caught.value)


def test_video_without_video_is_named(tmp_path: Path) -> None:
    sound = io.BytesIO(clips.make_sound("matroska")).getvalue()
    with piped(sound, tmp_path / "pipe") as pipe, pytest.raises(masklet.DataLoss, match="holds no video"):
        list(masklet.capture(pipe))
