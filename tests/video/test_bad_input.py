"""Bad clips of all kinds end in the right error, and harm no other stream."""

from __future__ import annotations

import asyncio
import io
import random
import struct
import tempfile
from pathlib import Path
from typing import Any

import av
import pytest

from masklet.errors import DataLoss, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.clip_decoder import Clip
from masklet_server.video.worker.refusal import Refusal
from tests.support.clips import BUNNY, decode_clip, make_clip, make_sound, take_all


async def test_empty_upload() -> None:
    outcome = await decode_clip(b"")
    assert isinstance(outcome.error, InvalidArgument)
    assert outcome.error.violations[0].field == "video_chunk"
    assert "empty" in outcome.error.message


@pytest.mark.parametrize("data", [b"\0", b"not a video " * 1000, random.Random(0).randbytes(100_000)])
async def test_not_a_video(data: bytes) -> None:
    outcome = await decode_clip(data)
    assert isinstance(outcome.error, DataLoss)
    assert "no video" in outcome.error.message


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
async def test_sound_alone(container: str) -> None:
    outcome = await decode_clip(make_sound(container))
    assert isinstance(outcome.error, DataLoss)
    assert "no video stream (streams found: audio)" in outcome.error.message


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
async def test_no_frames(container: str) -> None:
    outcome = await decode_clip(make_clip(container, "mpeg4", frames=0))
    assert isinstance(outcome.error, DataLoss)


def playlists(video: Path) -> dict[str, bytes]:
    """Files that name another file."""
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{video}\n#EXT-X-ENDLIST\n".encode(),
        "m3u8 with a scheme": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{video}\n#EXT-X-ENDLIST\n".encode(),
        "concat": f"ffconcat version 1.0\nfile '{video}'\n".encode(),
        "dash": (
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1"><BaseURL>file://{video}</BaseURL></Representation></AdaptationSet></Period></MPD>'
        ).encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "path": str(video).encode(),
    }


@pytest.mark.parametrize("kind", playlists(BUNNY))
async def test_a_playlist_opens_no_local_file(kind: str) -> None:
    assert BUNNY.is_file()
    outcome = await decode_clip(playlists(BUNNY)[kind])
    assert isinstance(outcome.error, (InvalidArgument, DataLoss))
    assert outcome.frames == []
    assert outcome.info is None


@pytest.mark.parametrize("kind", playlists(BUNNY))
def test_a_playlist_is_refused_even_without_the_sandbox(kind: str) -> None:
    data = playlists(BUNNY)[kind]
    with tempfile.TemporaryFile() as spool:
        spool.write(data)
        spool.flush()
        file = ArrivingFile(spool.fileno(), lambda: None)
        file.arrived, file.complete = len(data), True
        with pytest.raises(Refusal):
            Clip(file, VideoLimits(), image_size=32, threads=1)


async def test_a_quicktime_reference_to_a_local_file_is_not_followed() -> None:
    """An MP4 whose data reference is the path of another file."""
    data = bytearray(make_clip("mov", frames=5))
    at = data.index(b"dref") - 4
    path = f"file://{BUNNY}".encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(path), b"url ", 0) + path
    box = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    old = struct.unpack(">I", data[at : at + 4])[0]
    grown = len(box) - old
    data[at : at + old] = box
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        start = data.index(parent) - 4
        data[start : start + 4] = struct.pack(">I", struct.unpack(">I", data[start : start + 4])[0] + grown)
    outcome = await decode_clip(bytes(data))
    assert all((frame.width, frame.height) == (64, 48) for frame in outcome.frames)


LIMITS: dict[str, tuple[VideoLimits, dict[str, Any], str]] = {
    "side": (VideoLimits(), {"container": "matroska", "codec": "ffv1", "size": (65536, 16), "frames": 1}, "max_side"),
    "pixels": (VideoLimits(max_frame_pixels=3000), {}, "max_frame_pixels"),
    "frames claimed": (VideoLimits(max_frames=9), {}, "max_frames"),
    "frames": (VideoLimits(max_frames=9), {"container": "mpegts"}, "max_frames"),
    "duration claimed": (VideoLimits(max_duration_seconds=0.3), {}, "max_duration_seconds"),
    "duration": (VideoLimits(max_duration_seconds=0.3), {"container": "mpegts"}, "max_duration_seconds"),
    "decoded pixels": (VideoLimits(max_decoded_pixels=64 * 48 * 9), {}, "max_decoded_pixels"),
}


@pytest.mark.parametrize("kind", LIMITS)
async def test_beyond_a_limit(kind: str) -> None:
    limits, properties, name = LIMITS[kind]
    outcome = await decode_clip(make_clip(**properties), limits=limits)
    assert isinstance(outcome.error, ResourceExhausted)
    assert name in outcome.error.message
    assert len(outcome.frames) <= 9


async def test_no_limit() -> None:
    limits = VideoLimits(max_frames=0, max_duration_seconds=0, max_decoded_pixels=0, decoder_cpu_seconds=0)
    outcome = await decode_clip(make_clip(), limits=limits)
    assert outcome.error is None
    assert len(outcome.frames) == 10


def claims() -> dict[str, bytes]:
    """Headers that announce a gigabyte that does not follow."""
    video = make_clip(options={"movflags": "faststart"})
    samples = bytearray(video)
    at = samples.index(b"stsz") + 12
    samples[at : at + 4] = struct.pack(">I", 2**30)
    configuration = bytearray(video)
    at = configuration.index(b"avcC") - 4
    configuration[at : at + 4] = struct.pack(">I", 2**30)
    return {
        "moov": struct.pack(">I4sI4sII", 16, b"ftyp", 0x69736F6D, b"isom", 2**30, 0x6D6F6F76) + bytes(1000),
        "samples": bytes(samples),
        "configuration": bytes(configuration),
        "matroska": b"\x1a\x45\xdf\xa3\x08\x40\x00\x00\x00" + bytes(1000),
    }


@pytest.mark.parametrize("kind", ["moov", "samples", "configuration", "matroska"])
async def test_a_claim_of_a_gigabyte_costs_no_memory(kind: str) -> None:
    data = claims()[kind]
    async with ClipSource(32, VideoLimits()) as source:
        await source.feed(data)
        await asyncio.sleep(0.6)
        peak = _peak_bytes(source.pid)
        await source.end()
        outcome = await asyncio.wait_for(take_all(source), 60)
    assert outcome.error is None or isinstance(outcome.error, (DataLoss, ResourceExhausted))
    assert peak < 200 * 1024**2


def _peak_bytes(pid: int) -> int:
    """The most memory that a process has had; 0 if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
async def test_flipped_bits_never_hang_or_crash_the_server(container: str) -> None:
    good = make_clip(container, frames=12)
    rng = random.Random(container)

    async def one(flips: int) -> None:
        data = bytearray(good)
        for _ in range(flips):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        outcome = await decode_clip(bytes(data))
        assert outcome.frames or isinstance(outcome.error, MaskletError)
        assert [frame.index for frame in outcome.frames] == list(range(len(outcome.frames)))

    for flips in (1, 3, 10, 40):
        await asyncio.gather(*(one(flips) for _ in range(3)))


async def test_a_good_stream_does_not_notice_bad_ones() -> None:
    good, *bad = await asyncio.gather(
        decode_clip(make_clip(frames=20)),
        decode_clip(b"rubbish" * 100),
        decode_clip(make_clip()[:700]),
        decode_clip(make_clip("matroska", "ffv1", size=(65536, 16), frames=1)),
    )
    assert good.error is None
    assert len(good.frames) == 20
    assert all(isinstance(one.error, MaskletError) for one in bad)


@pytest.mark.parametrize(("seconds", "is_told"), [(2**33, True), (2**34, False)])
async def test_time_stamps_that_no_result_can_carry(seconds: int, is_told: bool) -> None:
    outcome = await decode_clip(shifted(seconds))
    assert len(outcome.frames) == (3 if is_told else 0)
    if is_told:
        assert outcome.error is None
        assert outcome.frames[0].pts_nanoseconds == seconds * 10**9
    else:
        assert isinstance(outcome.error, DataLoss)
        assert "frame 0 has the time stamp 1.72e+10 s" in outcome.error.message


def shifted(seconds: int) -> bytes:
    """A clip in which the first frame has this time."""
    whole = io.BytesIO(make_clip(codec="mpeg4", frames=3, rate=1))
    late = io.BytesIO()
    with av.open(whole, "r") as source, av.open(late, "w", format="mp4") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue  # the end
            packet.pts, packet.dts = (round(at + seconds / packet.time_base) for at in (packet.pts, packet.dts))
            packet.stream = stream
            output.mux(packet)
    return late.getvalue()
