"""Decoding by a GPU's video unit: what the setting does on a machine that has none, which is where tests run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import av
import pytest
from av.codec.hwaccel import HWAccel

from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import OpenCodec
from masklet_server.video.worker import hardware
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.clip_decoder import Clip
from masklet_server.video.worker.hardware import with_hardware
from masklet_server.video.worker.packet_decoder import PacketDecoder
from tests.support.clips import BUNNY

SOFTWARE = VideoLimits()
HARDWARE = replace(SOFTWARE, hwaccel="cuda")
FRAMES = 6


def first_frames(limits: VideoLimits) -> list[bytes]:
    with BUNNY.open("rb") as file:
        upload = ArrivingFile(file.fileno(), lambda: None)
        upload.arrived, upload.complete = BUNNY.stat().st_size, True
        clip = Clip(upload, limits, image_size=64, threads=1)
        return [frame.pixels for frame, _ in zip(clip.frames(), range(FRAMES), strict=False)]


def first_packets(limits: VideoLimits) -> list[bytes]:
    with av.open(str(BUNNY)) as container:
        stream = container.streams.video[0]
        codec = OpenCodec(
            stream.codec_context.codec.canonical_name, False, bytes(stream.codec_context.extradata or b"")
        )
        packets = [bytes(packet) for packet, _ in zip(container.demux(stream), range(FRAMES), strict=False)]
    decoder = PacketDecoder(codec, limits, image_size=64)
    found = [frame.pixels for index, data in enumerate(packets) for frame in decoder.decode(data, index)]
    return found + [frame.pixels for frame in decoder.drain()]


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA GPU")
def test_without_a_gpu_the_same_frames_come_out() -> None:
    assert not hardware.prepare()
    assert len(first_frames(HARDWARE)) == FRAMES
    assert first_frames(HARDWARE) == first_frames(SOFTWARE)
    assert len(first_packets(HARDWARE)) == FRAMES
    assert first_packets(HARDWARE) == first_packets(SOFTWARE)


class Opener:
    """Opens what FFmpeg's own decoders can; the GPU fails as told."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.tried: list[bool] = []

    def __call__(self, accelerated: HWAccel | None) -> str:
        self.tried.append(accelerated is not None)
        if accelerated is not None and self.failure is not None:
            raise self.failure
        return "opened"


@pytest.mark.parametrize(
    ("wanted", "failure", "tried"),
    [
        (False, None, [False]),
        (True, None, [True]),
        (True, av.PermissionError(1, "no device"), [True, False]),
        (True, NotImplementedError("not this codec"), [True, False]),
    ],
)
def test_what_the_gpu_does_not_open_ffmpeg_does(wanted: bool, failure: Exception | None, tried: list[bool]) -> None:
    opener, rewound = Opener(failure), io.BytesIO(b"clip")
    rewound.read()
    assert with_hardware(wanted, opener, again=lambda: rewound.seek(0)) == "opened"
    assert opener.tried == tried
    assert (rewound.tell() == 0) == (len(tried) == 2)


def test_missing_memory_is_no_reason_to_try_again() -> None:
    opener = Opener(MemoryError())
    with pytest.raises(MemoryError):
        with_hardware(True, opener, again=lambda: None)
    assert opener.tried == [True]
