"""Packets of a codec as a source of frames."""

from __future__ import annotations

import asyncio
import functools
import io
import os
from collections.abc import Sequence
from typing import Any, get_args

import av
import numpy as np
import pytest

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted
from masklet_server.settings.settings import Settings
from masklet_server.video.formats import LATEST_DECODING
from masklet_server.video.limits import VideoLimits
from masklet_server.video.model_input import ModelInput
from masklet_server.video.packet import Packet
from masklet_server.video.sources import fed_packets
from masklet_server.video.sources.factory import SandboxedSourceFactory
from masklet_server.video.sources.packets import PacketSource
from tests.support.clips import Outcome, make_clip, resized, take_all

LIMITS = VideoLimits()
SIZE = 32
LIVE = {"tune": "zerolatency", "bf": "0"}
# Container, encoder, its options, codec.
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("mpegts", "libx264", LIVE),
    "hevc": ("mpegts", "libx265", {"x265-params": "log-level=none:bframes=0", "preset": "ultrafast"}),
    "vp9": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "av1": ("matroska", "libsvtav1", {"preset": "12"}),
}


@functools.cache
def clip(codec: str, size: tuple[int, int] = (64, 48), frames: int = 12) -> bytes:
    container, encoder, options = KINDS[codec]
    return make_clip(container, encoder, size=size, frames=frames, gop=5, codec_options=options)


@functools.cache
def units(codec: str, size: tuple[int, int] = (64, 48)) -> tuple[bytes, ...]:
    """Access units, as a demuxer gives them."""
    with av.open(io.BytesIO(clip(codec, size)), "r") as container:
        return tuple(bytes(packet) for packet in container.demux(video=0) if packet.size)


@functools.cache
def expected(codec: str) -> list[Any]:
    """What PyAV makes of the clip, at the model's size."""
    with av.open(io.BytesIO(clip(codec)), "r") as container:
        return [np.asarray(resized(frame, SIZE)) for frame in container.decode(video=0)]


def stream(codec: str, data: Sequence[bytes], **fields: Any) -> list[Packet]:
    return [Packet(one, codec if i == 0 else "", **fields) for i, one in enumerate(data)]


async def decode(given: Sequence[Packet], limits: VideoLimits = LIMITS) -> Outcome:
    async with PacketSource(SIZE, limits) as source:

        async def feed() -> None:
            for one in given:
                await source.feed(one)
            await source.end()

        _, outcome = await asyncio.wait_for(asyncio.gather(feed(), take_all(source)), 60)
        return outcome


@pytest.mark.parametrize("codec", KINDS)
async def test_access_units_give_the_clips_frames(codec: str) -> None:
    given = [
        Packet(data, codec, pts_seconds=100 + i / 8, capture_time_nanoseconds=i + 1)
        for i, data in enumerate(units(codec))
    ]
    outcome = await decode(given)
    assert outcome.error is None
    assert outcome.info is not None
    assert (outcome.info.width, outcome.info.height, outcome.info.codec) == (64, 48, codec)
    assert [frame.index for frame in outcome.frames] == list(range(12))
    for frame, pixels in zip(outcome.frames, expected(codec), strict=True):
        assert np.array_equal(frame.pixels, pixels)
        assert frame.arrived_seconds > 0
    if codec != "av1":  # whose encoder packs frames out of order
        assert [frame.pts_nanoseconds for frame in outcome.frames] == [(800 + i) * 125_000_000 for i in range(12)]
        assert [frame.capture_time_nanoseconds for frame in outcome.frames] == list(range(1, 13))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("cut", [1, 37, 1000, 10**6])
async def test_a_raw_stream_may_be_cut_anywhere(codec: str, cut: int) -> None:
    data = b"".join(units(codec))
    outcome = await decode(stream(codec, [data[i : i + cut] for i in range(0, len(data), cut)], is_fragment=True))
    assert outcome.error is None
    assert len(outcome.frames) == 12
    for frame, pixels in zip(outcome.frames, expected(codec), strict=True):
        assert np.array_equal(frame.pixels, pixels)
    assert [frame.pts_nanoseconds for frame in outcome.frames] == [round(i * 1e9 / 30) for i in range(12)]


async def test_the_times_of_a_fragment_are_those_of_the_frame_that_begins_in_it() -> None:
    halves = [part for one in units("h264") for part in (one[: len(one) // 2], one[len(one) // 2 :])]
    given = [
        Packet(data, "h264", capture_time_nanoseconds=i, is_fragment=True) for i, data in enumerate(halves, start=1)
    ]
    outcome = await decode(given)
    assert [frame.capture_time_nanoseconds for frame in outcome.frames] == list(range(1, 25, 2))


async def test_packets_out_of_an_mp4_need_its_extradata() -> None:
    data = make_clip("mp4", "libx264", frames=4, codec_options=LIVE)
    with av.open(io.BytesIO(data), "r") as container:
        extradata = container.streams.video[0].codec_context.extradata
        given = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert extradata
    first, *others = given
    outcome = await decode([Packet(first, "h264", extradata), *(Packet(one) for one in others)])
    assert (outcome.error, len(outcome.frames)) == (None, 4)
    outcome = await decode(stream("h264", given))
    assert isinstance(outcome.error, DataLoss)


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
async def test_a_stream_that_begins_in_its_middle_gives_frames_from_a_key_frame_on(codec: str) -> None:
    outcome = await decode(stream(codec, units(codec)[2:]))
    assert outcome.error is None
    assert len(outcome.frames) == 7, "from frame 5, the next key frame"
    assert np.array_equal(outcome.frames[0].pixels, expected(codec)[5])
    assert outcome.frames[0].index == 0


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
@pytest.mark.parametrize(
    "damage", [lambda unit: bytes(50), lambda unit: unit[:20], lambda unit: b"\x00\x00\x01\xff" * 9]
)
async def test_a_corrupt_packet_costs_frames_and_not_the_stream(codec: str, damage: Any) -> None:
    data = list(units(codec))
    data[2] = damage(data[2])
    outcome = await decode(stream(codec, data))
    assert outcome.error is None
    assert 7 <= len(outcome.frames) <= 12
    for frame, pixels in zip(outcome.frames[-7:], expected(codec)[-7:], strict=True):
        assert np.array_equal(frame.pixels, pixels), "a key frame mends everything"


async def test_packets_of_noise() -> None:
    outcome = await decode(stream("h264", [b"\x00\x00\x01\x65" + bytes(range(200))] * 50))
    assert isinstance(outcome.error, DataLoss)
    assert "key frame" in outcome.error.message


async def test_no_packet_at_all() -> None:
    outcome = await decode([])
    assert isinstance(outcome.error, DataLoss)


async def test_the_size_may_change_at_a_key_frame() -> None:
    outcome = await decode(stream("h264", units("h264") + units("h264", (96, 32))))
    assert outcome.error is None
    assert [(frame.width, frame.height) for frame in outcome.frames] == [(64, 48)] * 12 + [(96, 32)] * 12


async def test_limits_on_single_frames_apply() -> None:
    outcome = await decode(stream("h264", units("h264")), VideoLimits(max_side=60))
    assert isinstance(outcome.error, ResourceExhausted)
    assert "max_side" in outcome.error.message


async def test_limits_on_clips_do_not_apply() -> None:
    limits = VideoLimits(max_frames=3, max_duration_seconds=0.1, max_decoded_pixels=10_000)
    outcome = await decode(stream("h264", units("h264")), limits)
    assert (outcome.error, len(outcome.frames)) == (None, 12)


async def test_a_frame_comes_before_the_next_packet() -> None:
    async with PacketSource(SIZE, LIMITS) as source:
        for index, data in enumerate(units("h264")):
            await source.feed(Packet(data, "h264"))
            frame = await asyncio.wait_for(source.next_frame(), 30)
            assert frame is not None
            assert frame.index == index


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"data": b""}, "data"),
        ({"data": b"x", "codec": "theora"}, "codec"),
        ({"data": b"x", "codec": "h264", "pts_seconds": float("inf")}, "pts_seconds"),
        ({"data": b"x", "codec": "h264", "extradata": bytes(2**20 + 1)}, "extradata"),
    ],
)
def test_packets_check_themselves(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Packet(**fields)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("second", "field"),
    [(Packet(b"x", "hevc"), "packet.codec"), (Packet(b"x", is_fragment=True), "packet.is_fragment")],
)
async def test_a_stream_keeps_its_codec_and_its_cut(second: Packet, field: str) -> None:
    async with PacketSource(SIZE, LIMITS) as source:
        with pytest.raises(InvalidArgument, match="the first packet must name its codec: h264"):
            await source.feed(Packet(b"x"))
        await source.feed(Packet(units("h264")[0], "h264"))
        with pytest.raises(InvalidArgument) as caught:
            await source.feed(second)
        assert [violation.field for violation in caught.value.violations] == [field]
        await source.end()
        with pytest.raises(FailedPrecondition):
            await source.feed(Packet(b"x"))


async def test_bad_extradata() -> None:
    outcome = await decode([Packet(b"x", "h264", b"\x01\x64\x00\x1f\xff\xe1\xff\xff")])
    assert isinstance(outcome.error, InvalidArgument | DataLoss)


async def test_packets_that_wait_are_bounded_and_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    data = units("h264")
    monkeypatch.setattr(fed_packets, "MAX_WAITING_BYTES", 3 * (max(map(len, data)) + 512))
    async with PacketSource(SIZE, LIMITS, frames_ahead=1) as source:
        fed = 0

        async def feed() -> None:
            nonlocal fed
            for _ in range(10):
                for one in data:
                    await source.wait_for_room(Packet(one, "h264"))
                    await source.feed(Packet(one, "h264"))
                    fed += 1
            await source.end()

        feeding = asyncio.create_task(feed())
        assert await source.next_frame() is not None
        await asyncio.sleep(0.5)
        assert fed < 60, "it waits until frames are taken"
        assert source.fed.waiting_bytes <= fed_packets.MAX_WAITING_BYTES
        outcome = await asyncio.wait_for(take_all(source), 60)
        await feeding
        assert (outcome.error, len(outcome.frames)) == (None, 119)


async def test_packets_without_room_wait_on_disk_and_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fed_packets, "MAX_WAITING_BYTES", 1)
    given = [Packet(data, "h264", pts_seconds=i / 8) for i, data in enumerate(units("h264"))]
    async with PacketSource(SIZE, LIMITS, frames_ahead=1) as source:
        for packet in given:
            await asyncio.wait_for(source.feed(packet), 10)
        await source.end()
        outcome = await asyncio.wait_for(take_all(source), 60)
    assert outcome.error is None
    assert [frame.pts_nanoseconds for frame in outcome.frames] == [i * 125_000_000 for i in range(12)]
    for frame, pixels in zip(outcome.frames, expected("h264"), strict=True):
        assert np.array_equal(frame.pixels, pixels)


async def test_packets_on_disk_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fed_packets, "MAX_WAITING_BYTES", 1)
    async with PacketSource(SIZE, VideoLimits(max_upload_bytes=10)) as source:
        await source.feed(Packet(units("h264")[0], "h264"))
        with pytest.raises(ResourceExhausted, match=r"packet: results wait .* max_upload_bytes = 10"):
            await source.feed(Packet(units("h264")[1]))


async def test_what_is_known_of_old_packets_is_forgotten() -> None:
    async with PacketSource(SIZE, LIMITS) as source:
        for index in range(1000):
            await source.feed(Packet(units("h264")[index % 12], "h264"))
            await source.next_frame()
        assert len(source.fed) < 300


async def test_leaving_frees_who_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fed_packets, "MAX_WAITING_BYTES", 1)
    async with PacketSource(SIZE, LIMITS) as source:
        pid = source.pid
        await source.feed(Packet(units("h264")[0], "h264"))
        feeding = asyncio.create_task(source.wait_for_room(Packet(units("h264")[1])))
        await asyncio.sleep(0)
    await asyncio.wait_for(feeding, 10)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_progress_is_reported_after_enough_data() -> None:
    async with PacketSource(SIZE, LIMITS) as source:
        first, *_ = units("h264")
        count = fed_packets.PROGRESS_BYTES // (len(first) + fed_packets.PACKET_COST) + 1
        telling = asyncio.create_task(source.packets_taken())
        for index in range(count + 1):
            await source.feed(Packet(first, "h264"))
            assert await source.next_frame() is not None
            assert not telling.done() or index + 1 >= count
        assert count <= await asyncio.wait_for(telling, 30) <= count + 1


def test_a_decoder_that_repeats_itself_makes_no_room() -> None:
    fed = fed_packets.FedPackets()
    packet = fed_packets.FedPacket.of(Packet(data=bytes(1000), codec="h264"), 0.0)
    for _ in range(3):
        fed.add(packet)
    for index in (0, 0, 0, 1, 0):
        fed.on_decoded(index)
    assert fed.waiting_bytes == packet.cost


@functools.cache
def units_with_b_frames() -> tuple[bytes, ...]:
    pictures = [np.random.default_rng(i // 3).integers(0, 255, (96, 128, 3), np.uint8) for i in range(24)]
    options = {"bf": "2", "b_strategy": "0", "b-pyramid": "none", "crf": "38"}
    data = make_clip("mpegts", "libx264", size=(128, 96), gop=12, codec_options=options, pictures=pictures)
    with av.open(io.BytesIO(data), "r") as container:
        return tuple(bytes(packet) for packet in container.demux(video=0) if packet.size)


async def decoded_as(decoding: str) -> Outcome:
    given = stream("h264", units_with_b_frames())
    async with PacketSource(SIZE, LIMITS, decoding=decoding) as source:

        async def feed() -> None:
            for one in given:
                await source.feed(one)
            await source.end()

        _, outcome = await asyncio.wait_for(asyncio.gather(feed(), take_all(source)), 60)
    assert outcome.error is None
    return outcome


async def test_decoding_leaves_out_what_it_is_told_to() -> None:
    full, filtered = await decoded_as("full"), await decoded_as("no-loop-filter")
    assert len(full.frames) == len(filtered.frames) == 24
    differences = [
        float(np.abs(a.pixels.astype(int) - b.pixels).mean()) for a, b in zip(full.frames, filtered.frames, strict=True)
    ]
    assert 0 < max(differences) < 30, "unsmoothed, and the same picture all the same"
    referred, least = await decoded_as("reference-frames"), await decoded_as("least")
    assert len(referred.frames) == len(least.frames) < 24
    whole = [frame.pixels.tobytes() for frame in full.frames]
    assert all(frame.pixels.tobytes() in whole for frame in referred.frames), "those that are decoded are exact"


def test_only_the_latest_frames_are_decoded_with_less_work() -> None:
    factory = SandboxedSourceFactory(LIMITS, latest_decoding="least")
    assert factory.packets(ModelInput(SIZE), latest=True).decoding == "least"
    assert factory.packets(ModelInput(SIZE), latest=False).decoding == "full"
    for name in get_args(Settings.model_fields["latest_decoding"].annotation):
        assert name in LATEST_DECODING
    assert len(get_args(Settings.model_fields["latest_decoding"].annotation)) == len(LATEST_DECODING)
