"""Which frames a file gives, and which of them it lacks, whoever reads it."""

from __future__ import annotations

import io
import random
from typing import Any

import av
import pytest

from masklet_media.clip_reader import ClipReader, NoVideo
from tests.support.cases import case
from tests.support.clips import make_clip, make_sound

Read = tuple[list[float], list[float], str]
STEPS = [round(index * 0.04, 6) for index in range(32)]


def read(data: bytes, *, threads: int = 1) -> Read:
    """Times of the frames, times of those that could not be decoded, and what is missing at the end."""
    with av.open(io.BytesIO(data), "r", metadata_errors="replace") as container:
        reader = ClipReader(container, threads=threads)
        times, lost = [], []
        for frame in reader.frames():
            times.append(round(float(frame.pts * reader.time_base), 6))
            lost += [round(float(pts * reader.time_base), 6) for pts in frame.undecoded]
        lost += [round(float(pts * reader.time_base), 6) for pts in reader.undecoded]
        return times, lost, reader.check_end(len(data), lambda offset, count: data[offset : offset + count])


@pytest.mark.parametrize("name", ["disc.mp4", "trailing_newline.mp4", "trailing_camera_block.mp4", "animated.apng"])
def test_bytes_behind_the_end_are_none_of_the_video(name: str) -> None:
    assert read(case(name)) == (STEPS[:16], [], "")


def test_decoding_times_are_handed_out_in_order() -> None:
    assert read(case("bframes.avi")) == (STEPS[:16], [], "")


def test_times_go_on_where_a_transport_stream_starts_anew() -> None:
    times, lost, missing = read(case("joined.ts"))
    assert [round(time - times[0], 6) for time in times] == STEPS
    assert (lost, missing) == ([], "")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_frames_that_cannot_be_decoded_are_named(threads: int) -> None:
    times, lost, missing = read(case("damaged_av1.mp4"), threads=threads)
    assert times == [0.0, 0.16, 0.32, 0.4, 0.48]
    assert lost == [0.04, 0.08, 0.12, 0.2, 0.24, 0.28, 0.36, 0.44, 0.52, 0.56, 0.6]
    assert missing == ""


CODECS: dict[str, dict[str, Any]] = {
    "h264": {"codec_options": {"bf": "0"}},
    "h264 b frames": {"codec_options": {"bf": "3", "b_strategy": "0"}},
    "hevc": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
    "av1": {"codec": "libsvtav1"},
    "vp8": {"container": "webm", "codec": "libvpx"},
    "vp9": {"container": "webm", "codec": "libvpx-vp9"},
    "mpeg4 in avi": {"container": "avi", "codec": "mpeg4"},
    "ffv1": {"container": "matroska", "codec": "ffv1"},
}


@pytest.mark.parametrize("kind", CODECS)
def test_damage_costs_the_same_frames_with_any_number_of_threads(kind: str) -> None:
    good = make_clip(**{"frames": 24, "size": (128, 96), "gop": 8, **CODECS[kind]})
    promised = read(good)[0]
    assert len(promised) == 24
    with av.open(io.BytesIO(good), "r") as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    losses = 0
    for seed in range(4):
        dice, data = random.Random(seed), bytearray(good)
        for position, size in dice.sample(places, 6):
            assert position is not None
            for _ in range(8):
                data[position + dice.randrange(size)] ^= 1 << dice.randrange(8)
        one, several = read(bytes(data)), read(bytes(data), threads=4)
        assert one == several
        times, lost, _ = one
        assert not set(times) & set(lost)
        if lost and "container" not in CODECS[kind]:  # an MP4's packets are all found, whatever is in them
            assert sorted(times + lost) == promised
        losses += len(lost)
    assert losses or kind == "vp8"


def test_frames_that_were_never_meant_to_be_seen_are_not_missed() -> None:
    """VP8's hidden reference frames have packets of their own."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "4"}
    times, lost, _ = read(make_clip("webm", "libvpx", frames=60, codec_options=options, bit_rate=200_000))
    assert len(times) == 60
    assert lost == []


def test_a_file_with_sound_alone_has_no_video() -> None:
    with av.open(io.BytesIO(make_sound()), "r") as container, pytest.raises(NoVideo, match="streams found: audio"):
        ClipReader(container)
