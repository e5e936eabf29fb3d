"""A decoding process may say anything: the source ends in an error, and nothing of the process is left."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest

from masklet.errors import DataLoss
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import (
    EndOfFrames,
    FrameDecoded,
    FrameUndecoded,
    FromDecoder,
    PacketDecoded,
    VideoOpened,
    encode,
)
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.fork_server import Forked
from masklet_server.video.sandbox.picture_process import PictureProcess
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.sources.packets import PacketSource

OPENED = VideoOpened(VideoInfo(48, 64), Fraction(1, 25))
VIDEO_OF_GIGABYTES = VideoOpened(VideoInfo(30_000, 30_000), Fraction(1, 25))
FRAME = FrameDecoded(0, 7, 48, 64)


def lines(*messages: FromDecoder) -> bytes:
    return b"".join(encode(message)[0] for message in messages)


@pytest.fixture
def decoder_says(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], int]]:
    """Puts a process that only sleeps in the decoder's place, and says something in its name; gives its process id."""
    process = subprocess.Popen(["sleep", "300"])

    def say(said: bytes) -> int:
        (read_input, stdin), (stdout, write_output), (status, write_status) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
        inputs.append(read_input)
        fcntl.fcntl(write_output, fcntl.F_SETPIPE_SZ, 256 * 1024)  # all of it is written before anything is read
        os.write(write_output, said)
        os.write(write_status, f"{process.pid}\n".encode())
        os.close(write_output)
        os.close(write_status)
        forked = Forked(io.FileIO(stdin, "wb"), io.FileIO(stdout, "rb"), io.FileIO(status, "rb"))
        monkeypatch.setattr(fork_server, "fork", lambda *_: forked)
        return process.pid

    inputs: list[int] = []
    yield say
    assert process.wait(10) == -9, "it was killed"
    for descriptor in inputs:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"nonsense\n", "something that is no message"),
        (b"[" * 60_000 + b"\n", "something that is no message"),
        (b"[]\n", "something that is no message"),
        (b"x" * 65_600, "a line that is too long"),
        (lines(FRAME), "FrameDecoded with wrong values or at the wrong time"),
        (lines(EndOfFrames()), "EndOfFrames with wrong values or at the wrong time"),
        (lines(OPENED).replace(b'"height":48', b'"height":-48'), "something that is no message"),
        (lines(OPENED, OPENED), "VideoOpened with wrong values or at the wrong time"),
        (lines(VIDEO_OF_GIGABYTES), "VideoOpened with wrong values or at the wrong time"),
        (lines(OPENED, FrameDecoded(0, 7, 30_000, 30_000)), "FrameDecoded with wrong values or at the wrong time"),
        (lines(OPENED, FrameDecoded(0, 7, 64, 48)), "FrameDecoded with wrong values or at the wrong time"),
        (lines(OPENED, FrameDecoded(1, 7, 48, 64)), "FrameDecoded with wrong values or at the wrong time"),
        (lines(OPENED, PacketDecoded(1)), "PacketDecoded with wrong values or at the wrong time"),
        (lines(OPENED, FrameDecoded(4, 7, 48, 64)), "FrameDecoded with wrong values or at the wrong time"),
        (lines(OPENED, FRAME).replace(b'"pts":7', b'"pts":7e99'), "something that is no message"),
        (lines(OPENED, FRAME).replace(b'"slot":0', b'"slot":"0"'), "something that is no message"),
    ],
)
async def test_nonsense_ends_in_data_loss(decoder_says: Callable[[bytes], int], said: bytes, words: str) -> None:
    pid = decoder_says(said)
    async with ClipSource(16, VideoLimits(), frames_ahead=4) as source:
        assert source.pid == pid
        for _ in range(2):
            with pytest.raises(DataLoss, match=f"the decoding process sent {words}"):
                await asyncio.wait_for(source.next_frame(), 10)


async def test_frames_that_cannot_be_decoded_are_bounded(decoder_says: Callable[[bytes], int]) -> None:
    decoder_says(lines(OPENED, *[FrameUndecoded(one) for one in range(9)], FRAME, EndOfFrames()))
    async with ClipSource(32, VideoLimits(max_frames=9)) as source:
        frame = await source.next_frame()
        assert frame is not None
        assert frame.undecoded == tuple(range(9))
    decoder_says(lines(OPENED, *[FrameUndecoded(one) for one in range(10)], FRAME, EndOfFrames()))
    async with ClipSource(32, VideoLimits(max_frames=9)) as source:
        with pytest.raises(DataLoss, match="FrameUndecoded with wrong values"):
            await source.next_frame()


async def test_frames_before_the_nonsense_are_given(decoder_says: Callable[[bytes], int]) -> None:
    decoder_says(lines(OPENED, FRAME, FrameDecoded(1, 7, 48, 64)) + b"nonsense\n")
    async with ClipSource(16, VideoLimits()) as source:
        assert (await source.info()).width == 64
        frames = [await source.next_frame(), await source.next_frame()]
        assert [(frame.index, frame.pts, frame.pixels.shape) for frame in frames if frame is not None] == [
            (0, 7, (16, 16, 3)),
            (1, 7, (16, 16, 3)),
        ]
        with pytest.raises(DataLoss, match="no message"):
            await source.next_frame()


async def test_a_packet_that_was_never_fed_changes_nothing(decoder_says: Callable[[bytes], int]) -> None:
    decoder_says(lines(PacketDecoded(5), PacketDecoded(2**63 - 1), OPENED, FRAME, EndOfFrames()))
    async with PacketSource(16, VideoLimits()) as source:
        frame = await source.next_frame()
        assert frame is not None
        assert frame.pts == 0, "its packet is not known"
        assert await source.next_frame() is None
        assert (len(source.fed), source.fed.waiting_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"nonsense\n", "something that is no message"),
        (lines(OPENED), "VideoOpened with wrong values or at the wrong time"),
        (lines(EndOfFrames()), "EndOfFrames where it should have sent a picture"),
        (lines(FrameDecoded(1, 0, 4, 4)), "FrameDecoded with wrong values or at the wrong time"),
        (lines(FrameDecoded(0, 0, 20_000, 20_000)), "FrameDecoded with wrong values or at the wrong time"),
    ],
)
def test_nonsense_about_a_single_picture(decoder_says: Callable[[bytes], int], said: bytes, words: str) -> None:
    decoder_says(said)
    process = PictureProcess(VideoLimits())
    with pytest.raises(DataLoss, match=f"the decoding process sent {words}"):
        process.decode(Picture("gray8", b"0123", 2, 2))
    assert not process.is_usable, "its next answer could be that of another picture"
    process.close()
