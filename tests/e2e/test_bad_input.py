"""Whatever a client sends: the right status, a message that says what to do, and no harm to the stream beside it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import masklet
from masklet import Prompt
from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.embedded import EmbeddedServer
from tests.support import clips
from tests.support.e2e import NUM_FRAMES, WIDTH, engine_alone, h264, lossless, prompt
from tests.support.processes import decoders, settle

Requests = Callable[[], list[tracking_pb2.TrackRequest]]
END = tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo())


def config(**fields: Any) -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig(**fields))


def chunk(data: bytes) -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(video_chunk=data)


def point(
    x: float = 10, y: float = 10, label: int = 1, *, object_id: int = 1, frame: int = 0
) -> tracking_pb2.TrackRequest:
    clicks = [common_pb2.Point(x=x, y=y, label=label)]  # type: ignore[arg-type]  # labels that do not exist, too
    return tracking_pb2.TrackRequest(prompt=common_pb2.Prompt(object_id=object_id, frame_index=frame, points=clicks))


def box(*corners: float) -> tracking_pb2.TrackRequest:
    x0, y0, x1, y1 = corners
    where = common_pb2.Box(x0=x0, y0=y0, x1=x1, y1=y1)
    return tracking_pb2.TrackRequest(prompt=common_pb2.Prompt(object_id=1, box=where))


def mask(height: int, width: int) -> tracking_pb2.TrackRequest:
    rle = masklet.encode_rle(np.ones((height, width), bool))
    encoded = common_pb2.Mask(
        encoding=common_pb2.MASK_ENCODING_COCO_RLE, height=height, width=width, data=rle["counts"].encode()
    )
    return tracking_pb2.TrackRequest(prompt=common_pb2.Prompt(object_id=1, mask=encoded))


def clip(data: bytes) -> list[tracking_pb2.TrackRequest]:
    return [config(), point(), chunk(data), END]


def truncated() -> bytes:
    return h264()[: len(h264()) // 2]


def bit_flipped() -> bytes:
    data, dice = bytearray(h264()), random.Random(1)
    for _ in range(400):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def huge_claim() -> bytes:
    """An MP4 whose first box says that a gibibyte follows."""
    return struct.pack(">I4s", 2**30, b"ftyp") + b"isom" + struct.pack(">I4s", 2**30, b"moov") + os.urandom(512)


def playlist(path: Path) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n".encode()


def concat(path: Path) -> bytes:
    return f"ffconcat version 1.0\nfile '{path}'\n".encode()


def wide() -> bytes:
    return clips.make_clip("matroska", "ffv1", frames=1, size=(65536, 16), pixel_format="gray")


@functools.cache
def alone() -> list[dict[int, Any]]:
    """The neighbour's masks."""
    return engine_alone([prompt("box")], 6)


@contextlib.contextmanager
def neighbour(address: str) -> Iterator[None]:
    """A stream that behaves, running beside whatever the block does: it must get every mask, and the right ones."""

    def follow() -> list[masklet.FrameResult]:
        with masklet.Client(address) as client:
            return list(client.track(lossless(6), prompt("box"), deterministic=True))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(follow)
        time.sleep(0.3)
        yield
        results = running.result(timeout=120)
    expected = alone()
    assert len(results) == len(expected) == 6
    for frame, masks in zip(results, expected, strict=True):
        np.testing.assert_array_equal(frame.objects[1].mask, masks[1])


def talk(address: str, requests: list[tracking_pb2.TrackRequest]) -> tuple[list[Any], list[Any], grpc.StatusCode, str]:
    """Say all requests; returns frame results, inline errors, the RPC's status code and its message."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        done = threading.Event()

        def speak() -> Iterator[tracking_pb2.TrackRequest]:
            yield from requests
            done.wait(60)  # half-closing early would cancel the session

        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(speak(), timeout=60)
        frames, errors = [], []
        try:
            for response in call:
                if response.HasField("frame_result"):
                    frames.append(response.frame_result)
                elif response.HasField("error"):
                    errors.append(response.error)
            return frames, errors, grpc.StatusCode.OK, ""
        except grpc.RpcError:
            return frames, errors, call.code(), call.details()
        finally:
            done.set()


INVALID, LOST, EXHAUSTED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
FAILED, MISSING = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND

FATAL: dict[str, tuple[Requests, set[grpc.StatusCode], str]] = {
    "not a video": (lambda: clip(b"Dear server, this is a letter. " * 100), {LOST, INVALID}, "video"),
    "noise": (lambda: clip(random.Random(0).randbytes(100_000)), {LOST, INVALID}, "video"),
    "truncated before its index": (lambda: clip(truncated()), {LOST}, ""),
    "zero frames": (lambda: clip(clips.make_clip(frames=1)[:200]), {LOST}, ""),
    "audio only": (lambda: clip(clips.make_sound()), {LOST, INVALID}, "video"),
    "65,536 x 16 pixels": (lambda: clip(wide()), {EXHAUSTED, INVALID}, "65536"),
    "a 1 GiB claim": (lambda: clip(huge_claim()), {LOST}, ""),
    "empty upload": (lambda: [config(), point(), chunk(b""), END], {INVALID, LOST}, ""),
    "no upload": (lambda: [config(), point(), END], {INVALID, LOST}, ""),
    "unknown model": (lambda: [config(model="huge")], {MISSING}, "'huge'"),
    "first message not config": (lambda: [chunk(b"x")], {FAILED}, "first message"),
    "two configs": (lambda: [config(), config()], {FAILED}, "config"),
    "message over the limit": (lambda: [config(), chunk(bytes(33 * 2**20))], {EXHAUSTED}, "larger than max"),
    "chunks and frames mixed": (
        lambda: [
            config(),
            chunk(h264()),
            tracking_pb2.TrackRequest(
                frame=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_RGB24, height=1, width=1, data=b"abc")
            ),
        ],
        {INVALID},
        "video_chunk",
    ),
}


@pytest.mark.parametrize("case", FATAL)
def test_the_session_ends_with_the_right_status(nano_server: str, case: str) -> None:
    requests, codes, words = FATAL[case]
    with neighbour(nano_server):
        _, _, code, message = talk(nano_server, requests())
    assert code in codes, (code, message)
    assert words in message
    assert message


@pytest.mark.parametrize("make", [playlist, concat])
def test_a_playlist_that_names_a_local_file_opens_nothing(
    nano_server: str, tmp_path: Path, make: Callable[[Path], bytes]
) -> None:
    (tmp_path / "secret.mp4").write_bytes(h264())
    os.utime(tmp_path / "secret.mp4", (1, 1))
    with neighbour(nano_server):
        frames, _, code, _ = talk(nano_server, clip(make(tmp_path / "secret.mp4")))
    assert not frames
    assert code in {LOST, INVALID}
    assert (tmp_path / "secret.mp4").stat().st_atime == 1, "the file was read"


def test_flipped_bits_cost_frames_or_the_session_and_nothing_else(nano_server: str) -> None:
    with neighbour(nano_server):
        frames, _, code, message = talk(nano_server, clip(bit_flipped()))
    assert code in {grpc.StatusCode.OK, LOST, INVALID, EXHAUSTED}, message
    assert [frame.frame_index for frame in frames] == list(range(len(frames)))


BAD_PROMPTS: dict[str, tuple[Requests, str]] = {
    "outside the picture": (lambda: [point(x=5000)], "prompt.points[0]"),
    "NaN": (lambda: [point(x=float("nan"))], "prompt.points[0]"),
    "frame beyond the end": (lambda: [point(frame=500)], "prompt.frame_index"),
    "no points": (lambda: [tracking_pb2.TrackRequest(prompt=common_pb2.Prompt(object_id=1))], "prompt.points"),
    "label 7": (lambda: [point(label=7)], "prompt.points[0].label"),
    "no label": (lambda: [point(label=0)], "prompt.points[0].label"),
    "box inverted": (lambda: [box(50, 50, 10, 10)], "prompt.box"),
    "box empty": (lambda: [box(50, 50, 50, 50)], "prompt.box"),
    "box outside": (lambda: [box(0, 0, WIDTH + 100, 10)], "prompt.box"),
    "mask of another size": (lambda: [mask(10, 10)], "prompt.mask"),
    "object_id 0": (lambda: [point(object_id=0)], "prompt.object_id"),
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_a_bad_prompt_is_answered_and_the_stream_goes_on(nano_server: str, case: str) -> None:
    requests, field = BAD_PROMPTS[case]
    with neighbour(nano_server):
        frames, errors, code, message = talk(nano_server, [config(), *requests(), chunk(h264()), END])
    assert code is grpc.StatusCode.OK, message
    assert len(frames) == NUM_FRAMES
    assert len(errors) == 1
    assert errors[0].code == INVALID.value[0]
    assert field in errors[0].message
    assert any(field.encode() in detail.value for detail in errors[0].details), "no BadRequest detail"


def test_the_client_raises_what_the_server_says_of_a_prompt(client: masklet.Client) -> None:
    with pytest.raises(masklet.InvalidArgument, match="outside the picture") as caught:
        list(client.track(h264(), Prompt(point_coords=[[5000, 10]])))
    assert caught.value.violations[0].field == "prompt.points[0]"


def test_ten_thousand_objects(nano_server: str) -> None:
    many = [point(object_id=i + 1) for i in range(10_000)]
    with neighbour(nano_server):
        frames, errors, code, _ = talk(nano_server, [config(), *many, chunk(clips.make_clip(frames=2)), END])
    assert code in {grpc.StatusCode.OK, EXHAUSTED}
    assert errors[0].code == EXHAUSTED.value[0]
    assert "max_objects is 8" in errors[0].message
    assert all(len(frame.objects) <= 8 for frame in frames)


async def test_a_client_that_vanishes_mid_upload_leaves_nothing(nano_server: str) -> None:
    before = len(decoders())
    with neighbour(nano_server):
        async with grpc.aio.insecure_channel(nano_server) as channel:
            call = tracking_pb2_grpc.TrackingServiceStub(channel).Track()
            for request in (config(), point(), chunk(h264()[:5000])):
                await call.write(request)
            opened = await call.read()
            assert isinstance(opened, tracking_pb2.TrackResponse)
            assert opened.HasField("session")
        await asyncio.to_thread(settle, before + 1)
    settle(before)


async def test_a_client_that_stops_reading_is_given_a_window_and_no_more(nano_server: str) -> None:
    before = len(decoders())
    with neighbour(nano_server):
        async with grpc.aio.insecure_channel(nano_server) as channel:
            call = tracking_pb2_grpc.TrackingServiceStub(channel).Track()
            for request in (config(window=3), prompt_message(), chunk(h264()), END):
                await call.write(request)
            results = 0
            deadline = time.monotonic() + 5
            with contextlib.suppress(asyncio.TimeoutError):
                while True:
                    response = await asyncio.wait_for(call.read(), max(0.1, deadline - time.monotonic()))
                    assert isinstance(response, tracking_pb2.TrackResponse)
                    results += response.HasField("frame_result")
            assert results == 3
            call.cancel()
        await asyncio.to_thread(settle, before + 1)
    settle(before)


def prompt_message() -> tracking_pb2.TrackRequest:
    return point(100, 100)


def test_an_idle_client_is_ended() -> None:
    with EmbeddedServer(device="cpu", dtype="float32", idle_timeout_seconds=1) as address:
        _, _, code, message = talk(address, [config(), point()])
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert message


def test_a_missing_checkpoint_names_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLET_CACHE", str(tmp_path))
    with pytest.raises(masklet.FailedPrecondition, match=r"masklet models download sam2\.1-tiny"):
        EmbeddedServer("sam2.1-tiny", device="cpu").__enter__()


def test_a_corrupt_checkpoint_is_said_to_be_corrupt(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(os.urandom(10_000))
    with pytest.raises(masklet.DataLoss, match=r"weights\.pt"):
        EmbeddedServer(f"mine={tmp_path / 'weights.pt'}:nano", device="cpu").__enter__()
