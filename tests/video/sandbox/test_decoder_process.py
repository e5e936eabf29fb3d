"""The decoding process: what it gets, what it may not do, how it dies, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pytest

from masklet.errors import DataLoss, Internal, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import DecodingFailed, MessageError, decode_from_decoder
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox.picture_process import PictureProcess
from masklet_server.video.sandbox.process_errors import error_of, error_of_death
from masklet_server.video.sandbox.shared_pixels import SharedPixels
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.sources.pictures import PictureSource
from tests.support.clips import BUNNY, decode_clip, make_clip, take_all
from tests.support.processes import HEAVY_IMPORTS


def descriptors() -> set[str]:
    """The descriptors that this process has open: files, pipes, sockets and shared memory.

    What waits for events is left out: gRPC's threads make and drop such descriptors on their own, if other tests of
    this process have used it.
    """
    targets = set()
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            target = str(entry.readlink())
            if target not in ("anon_inode:[eventfd]", "anon_inode:[eventpoll]"):
                targets.add(f"{entry.name}:{target}")
    return targets


def is_gone(pid: int) -> bool:
    """Whether not even a zombie of the process is left."""
    return not Path(f"/proc/{pid}").exists()


async def gone_soon(pid: int) -> bool:
    for _ in range(200):
        if is_gone(pid):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_leaving_midway_frees_process_descriptors_and_memory() -> None:
    await decode_clip(make_clip(frames=1))  # what is opened once and kept, is open now
    before = descriptors()
    async with ClipSource(256, VideoLimits()) as source:
        await source.feed(BUNNY.read_bytes())
        assert await source.next_frame() is not None
        pid = source.pid
        assert len(descriptors()) > len(before)
    assert is_gone(pid)
    assert descriptors() <= before


async def test_files_are_decoded_with_less_priority_than_live_pictures() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with (
        ClipSource(256, VideoLimits()) as clip,
        PictureSource(256, VideoLimits(), live=True) as live,
    ):
        await clip.feed(BUNNY.read_bytes())
        await live.feed(Picture("rgb24", bytes(16 * 16 * 3), 16, 16))
        assert await clip.next_frame() is not None
        assert await live.next_frame() is not None
        assert os.getpriority(os.PRIO_PROCESS, clip.pid) == min(19, own + 15)
        assert os.getpriority(os.PRIO_PROCESS, live.pid) == min(19, own + 5)


@pytest.mark.parametrize("fed", [0, 1000, 10**9])
async def test_cancelling_a_task_frees_everything(fed: int) -> None:
    await decode_clip(make_clip(frames=1))
    before = descriptors()
    pids = []

    async def session() -> None:
        async with ClipSource(64, VideoLimits()) as source:
            pids.append(source.pid)
            await source.feed(BUNNY.read_bytes()[:fed])
            await source.next_frame()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(session())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_gone(pids[0])
    assert descriptors() <= before


async def test_cancelling_the_cleanup_itself_leaves_no_process() -> None:
    source = ClipSource(64, VideoLimits())
    await source.__aenter__()
    await source.feed(BUNNY.read_bytes())
    await source.next_frame()
    pid = source.pid
    leaving = asyncio.ensure_future(source.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await gone_soon(pid)
    await source.__aexit__(None, None, None)


async def test_cancelling_the_start_leaves_nothing() -> None:
    await decode_clip(make_clip(frames=1))
    before = descriptors()
    for yields in range(4):
        source = ClipSource(64, VideoLimits())
        entering = asyncio.ensure_future(source.__aenter__())
        for _ in range(yields):
            await asyncio.sleep(0)
        entering.cancel()
        try:
            await entering
        except asyncio.CancelledError:
            continue
        await source.__aexit__(None, None, None)
    gc.collect()
    await asyncio.sleep(0.1)
    assert descriptors() <= before


async def test_the_process_gets_no_secrets_and_gives_up_its_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_TEST_SECRET", "hunter2")
    inheritable = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(inheritable, True)
    try:
        async with ClipSource(32, VideoLimits()) as source:
            await source.feed(make_clip("mpegts", frames=60))
            await source.info()
            assert os.getsid(source.pid) == source.pid  # out of reach of the terminal's Ctrl-C
            process = Path(f"/proc/{source.pid}")
            assert b"hunter2" not in (process / "environ").read_bytes()
            status = dict(
                line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line
            )
            assert status["NoNewPrivs"].strip() == "1"
            limits = (process / "limits").read_text().splitlines()
            values = {line[:26].strip(): line[26:].split()[:2] for line in limits}
            assert values["Max open files"] == ["0", "0"]
            assert values["Max file size"] == ["0", "0"]
            assert values["Max core file size"] == ["0", "0"]
            assert values["Max address space"] == [str(VideoLimits().decoder_memory_bytes)] * 2
            assert values["Max cpu time"][0] == str(VideoLimits().decoder_cpu_seconds)
            targets = sorted(str(entry.readlink()) for entry in (process / "fd").iterdir())
    finally:
        os.close(inheritable)
    assert sum(target.startswith("pipe:") for target in targets) == 2
    assert sum(target == "/dev/null" for target in targets) == 4
    assert sum(target.startswith("/memfd:masklet-pixels") for target in targets) == 1
    assert len(targets) == 8  # and the upload


def test_the_process_needs_no_heavy_imports() -> None:
    program = f"import sys, masklet_server.video.worker.main; print(sorted({HEAVY_IMPORTS} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_the_process_dies_with_the_server() -> None:
    program = """
import asyncio, os, sys
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.sources.pictures import PictureSource
from masklet_server.video.limits import VideoLimits
async def main():
    source = ClipSource(32, VideoLimits())
    await source.__aenter__()
    await source.feed(open(sys.argv[1], "rb").read())
    await source.info()
    print(source.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(BUNNY)], capture_output=True, text=True, check=False, timeout=60
    )
    pid = int(result.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            break  # dead; whether someone reaps orphans is up to the machine
        time.sleep(0.02)
    assert time.monotonic() < deadline


@pytest.mark.parametrize(("number", "error"), [
    (signal.SIGSEGV, DataLoss),
    (signal.SIGABRT, DataLoss),
    (signal.SIGKILL, ResourceExhausted),
    (signal.SIGXCPU, ResourceExhausted),
])  # fmt: skip
async def test_the_death_of_the_process_is_an_error_and_nothing_hangs(number: int, error: type[MaskletError]) -> None:
    async with ClipSource(32, VideoLimits()) as source:
        data = make_clip("mpegts", frames=60)
        await source.feed(data)
        await source.info()
        os.kill(source.pid, number)
        await source.feed(data)
        outcome = await asyncio.wait_for(take_all(source), 20)
        assert isinstance(outcome.error, error)
        await source.feed(data)
        await source.end()


@pytest.mark.slow
async def test_memory_limit() -> None:
    flat = [np.zeros((4000, 8000, 4), np.uint8)] * 2
    data = make_clip("matroska", "ffv1", pictures=flat, size=(8000, 4000), pixel_format="bgra")
    outcome = await decode_clip(data, limits=VideoLimits(decoder_memory_bytes=512 * 1024**2))
    assert isinstance(outcome.error, (ResourceExhausted, DataLoss))
    assert "decoder_memory_bytes" in outcome.error.message
    assert (await decode_clip(data)).error is None


def repeated(path: Path, times: int) -> bytes:
    """The clip's packets so many times in a row, not encoded anew."""
    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format="matroska") as output:
        with av.open(str(path)) as clip:
            video = clip.streams.video[0]
            stream = output.add_stream_from_template(video)
            packets = [packet for packet in clip.demux(video) if packet.size]
        length = max(packet.pts or 0 for packet in packets) + (packets[0].duration or 0)
        for turn in range(times):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                copy.pts = (packet.pts or 0) + turn * length
                copy.dts = (packet.dts or 0) + turn * length
                output.mux(copy)
        output.close()
        return Path(file.name).read_bytes()


async def test_processor_limit() -> None:
    clip = repeated(BUNNY, 20)  # many times what a second is enough for
    outcome = await decode_clip(clip, image_size=512, limits=VideoLimits(decoder_cpu_seconds=1))
    assert isinstance(outcome.error, ResourceExhausted)
    assert "decoder_cpu_seconds" in outcome.error.message
    assert len(outcome.frames) > 0


async def test_first_frame_timeout() -> None:
    async with ClipSource(32, VideoLimits(first_frame_timeout_seconds=0.3)) as source:
        await source.feed(make_clip())
        os.kill(source.pid, signal.SIGSTOP)
        await source.end()
        with pytest.raises(ResourceExhausted, match="first_frame_timeout_seconds"):
            await asyncio.wait_for(source.info(), 20)


async def test_a_first_frame_that_nobody_takes_is_not_late() -> None:
    async with ClipSource(32, VideoLimits(first_frame_timeout_seconds=0.5)) as source:
        await source.feed(make_clip("mpegts", frames=60))
        await source.end()
        await asyncio.sleep(1.2)
        outcome = await take_all(source)
    assert outcome.error is None
    assert len(outcome.frames) == 60


async def test_a_memory_limit_that_is_too_low_is_refused() -> None:
    with pytest.raises(ValueError, match="decoder_memory_bytes"):
        async with ClipSource(32, VideoLimits(decoder_memory_bytes=1024)):
            pass


async def test_many_streams_at_once() -> None:
    data = make_clip(frames=8)
    outcomes = await asyncio.gather(*(decode_clip(data) for _ in range(8)))
    assert all(len(outcome.frames) == 8 and outcome.error is None for outcome in outcomes)


def test_shared_pixels_check_what_they_are_told() -> None:
    pixels = SharedPixels(2, 48)
    assert pixels.copy(1, 4, 4).shape == (4, 4, 3)
    for slot, height, width in ((2, 4, 4), (-1, 4, 4), (0, 5, 4), (0, 0, 4), (0, -4, -4)):
        with pytest.raises(ValueError, match="slot"):
            pixels.copy(slot, height, width)
    pixels.close()
    pixels.close()


def test_errors_from_the_process() -> None:
    assert isinstance(error_of(DecodingFailed("Internal", "x")), Internal)
    with pytest.raises(MessageError, match="kind: must be one of InvalidArgument, DataLoss"):
        decode_from_decoder(b'{"type": "DecodingFailed", "kind": "BaseException", "message": "x", "field": ""}\n')
    refused = error_of(DecodingFailed("InvalidArgument", "is bad", "frame.data"))
    assert isinstance(refused, InvalidArgument)
    assert refused.violations[0].field == "frame.data"
    assert isinstance(error_of_death(1, VideoLimits()), DataLoss)
    assert "signal 40" in error_of_death(-40, VideoLimits()).message


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBADF, errno.EBUSY])
async def test_a_pipe_that_cannot_be_widened_is_only_slower(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fcntl.fcntl

    def refusing(file: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise OSError(number, os.strerror(number))
        return plain(file, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    outcome = await decode_clip(make_clip(frames=2))
    assert outcome.error is None
    assert len(outcome.frames) == 2


@pytest.mark.parametrize("call", ["memfd_create", "pipe2"])
async def test_too_many_open_files_are_named(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(ResourceExhausted, match="cannot start a decoding process: Too many open files"):
            async with ClipSource(32, VideoLimits()):
                pass
        with pytest.raises(ResourceExhausted, match="cannot start a decoding process: Too many open files"):
            PictureProcess(VideoLimits())
    assert descriptors() == before
