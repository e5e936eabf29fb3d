"""Frame n is frame n: by its number each frame is the one that the server counts, whatever the file."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklet._media.frames import shown_frames
from masklet.errors import DataLoss, FailedPrecondition
from masklet_media.confinement import CAPABILITIES, NAMESPACES, SECCOMP
from masklet_server.video.sandbox import layers
from masklet_studio.frames.clip_frames import ClipFrames
from masklet_studio.frames.decoder import Decoder
from masklet_studio.frames.frame_cache import FrameCache
from tests.support import clips

CLIPS = {
    "mp4 with B-frames": {"container": "mp4", "codec": "libx264", "gop": 12, "codec_options": {"bf": "3"}},
    "open groups": {"container": "mp4", "codec": "libx264", "gop": 9, "codec_options": {"x264-params": "open-gop=1"}},
    "every frame a key frame": {"container": "matroska", "codec": "ffv1", "pixel_format": "bgr0"},
    "webm": {"container": "webm", "codec": "libvpx-vp9", "gop": 8},
    "vp8, whose packets may show nothing": {"container": "webm", "codec": "libvpx", "gop": 8},
    "transport stream": {"container": "mpegts", "codec": "libx264", "gop": 10},
    "avi, which has no times": {"container": "avi", "codec": "mpeg4", "gop": 10},
    "turned": {"container": "mp4", "codec": "libx264", "rotation": 90.0, "gop": 10},
    "uneven times": {
        "container": "matroska", "codec": "libx264", "time_base": Fraction(1, 1000), "gop": 7,
        "pts": [n * 40 + (n * 7919) % 23 for n in range(40)],
    },
    "gif": {"container": "gif", "codec": "gif", "pixel_format": "rgb8"},
}  # fmt: skip


@pytest.mark.parametrize("kind", CLIPS)
def test_a_frame_is_the_same_in_whatever_order_it_is_asked_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(clips.make_clip(frames=40, size=(96, 64), **CLIPS[kind]))  # type: ignore[arg-type]
    expected = list(shown_frames(path))
    reader = ClipFrames(path.open("rb"))
    assert reader.facts.frame_count == len(expected)
    assert (reader.facts.height, reader.facts.width) == expected[0].shape[:2]
    assert list(reader.facts.times) == sorted(reader.facts.times)
    order = [*range(len(expected)), *reversed(range(len(expected)))]
    order += random.Random(1).choices(range(len(expected)), k=60)
    for index in order:
        assert (np.asarray(reader.picture(index)) == expected[index]).all(), f"frame {index}"
    reader.close()


def test_frames_that_cannot_be_decoded_are_not_counted(tmp_path: Path) -> None:
    whole = bytearray(clips.make_clip("mp4", "libx264", frames=60, size=(96, 64), gop=10))
    start = whole.index(b"mdat") + len(whole) // 3
    whole[start : start + 400] = bytes(400)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(whole)
    expected = list(shown_frames(path))
    reader = ClipFrames(path.open("rb"))
    for index in (len(expected) - 1, 3, len(expected) // 2):
        assert (np.asarray(reader.picture(index)) == expected[index]).all()
    assert reader.facts.frame_count == len(expected)
    reader.close()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clips.make_clip(frames=30, size=(640, 360)))
    return path


async def test_a_process_decodes(clip: Path) -> None:
    decoder = Decoder(clip)
    facts = await decoder.facts()
    assert (facts.width, facts.height, facts.frame_count, facts.frame_rate) == (640, 360, 30, 25.0)
    assert facts.duration == pytest.approx(30 / 25)
    pictures = await asyncio.gather(*(decoder.frame(index, 320) for index in (7, 3, 3)))
    assert [Image.open(io.BytesIO(one)).size for one in pictures] == [(320, 180)] * 3
    assert pictures[1] == pictures[2] != pictures[0]
    assert Image.open(io.BytesIO(await decoder.frame(0, 0))).size == (640, 360)
    await decoder.close()


async def test_a_folder_of_pictures_is_a_video(tmp_path: Path) -> None:
    for index in (1, 2, 10):
        Image.new("RGB", (40, 30), (index * 20, 0, 0)).save(tmp_path / f"{index}.png")
    decoder = Decoder(tmp_path)
    facts = await decoder.facts()
    assert (facts.frame_count, facts.width, facts.height) == (3, 40, 30)
    shown = [np.asarray(Image.open(io.BytesIO(await decoder.frame(n, 0))))[0, 0, 0] for n in range(3)]
    assert [round(int(red) / 20) for red in shown] == [1, 2, 10]
    await decoder.close()


async def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(b"#EXTM3U\n/etc/passwd\n")
    decoder = Decoder(path)
    with pytest.raises(DataLoss, match="cannot be decoded"):
        await decoder.facts()
    await decoder.close()


def _decoding() -> list[int]:
    """The decoding processes that this one has started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"decoder_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    assert found
    return found


def _network(process: str) -> Path:
    """The namespace that a process is in."""
    return Path(f"/proc/{process}/ns/net").readlink()


async def test_a_decoder_that_dies_is_started_again(clip: Path) -> None:
    decoder = Decoder(clip)
    await decoder.facts()
    before = await decoder.frame(4, 320)
    for process in _decoding():
        os.kill(process, 9)
    with pytest.raises(DataLoss, match="the decoding process ended while it worked on frame 5"):
        await decoder.frame(5, 320)
    assert await decoder.frame(4, 320) == before
    await decoder.close()


async def test_the_process_has_given_up_its_rights_before_it_reads(clip: Path) -> None:
    decoder = Decoder(clip)
    await decoder.facts()
    (process,) = (Path(f"/proc/{one}") for one in _decoding())
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    missing = layers.missing_layers()
    assert SECCOMP in missing or status["Seccomp"].strip() == "2"
    assert CAPABILITIES in missing or int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    if NAMESPACES not in missing:
        assert _network(process.name) != _network("self")
    limits = {line[:26].strip(): line[26:].split() for line in (process / "limits").read_text().splitlines()}
    for name in ("Max open files", "Max file size", "Max core file size"):
        assert limits[name][:2] == ["0", "0"]
    assert (process / "environ").read_bytes().count(b"=") < 10, "nothing of the studio's own"
    await decoder.close()
    assert not process.exists()


async def test_layers_that_are_missing_are_told_once(
    clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = "import masklet_studio.frames.decoder_main as m; m.confine = lambda **_: ['landlock']; m.main()"
    monkeypatch.setattr("masklet_studio.frames.decoder.python", lambda _, fd: [sys.executable, "-c", program, fd])
    for _ in range(2):
        decoder = Decoder(clip)
        await decoder.facts()
        await decoder.close()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("the sandbox of the decoding processes lacks landlock (no file can be opened")


@pytest.mark.parametrize("kind", ["lzw.tif", "deflate.tif", "animated.webp"])
async def test_files_of_several_pictures_are_decoded_without_the_right_to_open_any(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    pages = [Image.new("RGB", (40, 30), (60 * index, 0, 0)) for index in range(4)]
    options: dict[str, object] = {"lossless": True} if kind.endswith("webp") else {}
    if kind.endswith("tif"):
        options["compression"] = {"lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate"}[kind[:-4]]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)  # type: ignore[arg-type]
    assert await _reds(path, 4) == [0, 60, 120, 180]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif", "avif"])
async def test_a_folder_of_any_kind_of_pictures(suffix: str, tmp_path: Path) -> None:
    for index in range(3):
        Image.new("RGB", (40, 30), (60 * index, 0, 0)).save(tmp_path / f"{index}.{suffix}")
    assert [60 * round(red / 60) for red in await _reds(tmp_path, 3)] == [0, 60, 120]


async def _reds(path: Path, count: int) -> list[int]:
    """The red of each frame's first pixel."""
    decoder = Decoder(path)
    assert (await decoder.facts()).frame_count == count
    order = [*range(1, count), 0]
    seen = {n: np.asarray(Image.open(io.BytesIO(await decoder.frame(n, 0))))[0, 0, 0] for n in order}
    await decoder.close()
    return [int(seen[n]) for n in range(count)]


async def test_pictures_of_a_folder_that_are_damaged_or_gone_are_named(tmp_path: Path) -> None:
    for index in range(4):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "2.png").unlink()
    Image.new("RGB", (40, 30)).save(tmp_path / "2.png")
    decoder = Decoder(tmp_path)
    assert (await decoder.facts()).frame_count == 4
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataLoss, match="is not a picture that can be read"):
        await decoder.frame(1, 0)
    with pytest.raises(DataLoss, match=r"2\.png cannot be read: No such file"):
        await decoder.frame(2, 0)
    assert await decoder.frame(3, 0)
    await decoder.close()


async def test_a_video_that_is_gone_is_an_error(tmp_path: Path) -> None:
    decoder = Decoder(tmp_path / "gone.mp4")
    with pytest.raises(DataLoss, match="the video cannot be read: No such file"):
        await decoder.facts()
    await decoder.close()


async def test_frames_that_nobody_waits_for_are_not_decoded(clip: Path) -> None:
    decoder = Decoder(clip)
    await decoder.facts()
    asked: list[int] = []
    cache = FrameCache(1 << 20)

    async def make(index: int) -> bytes:
        picture = await decoder.frame(index, 320)
        asked.append(index)
        return picture

    def get(index: int) -> asyncio.Task[bytes]:
        return asyncio.ensure_future(cache.get(("v", index, 320), lambda: make(index)))

    waiting = {index: get(index) for index in range(20)}
    again = get(7)  # two wait for this one
    await asyncio.sleep(0)
    for index in range(19):
        waiting[index].cancel()
    begun = time.perf_counter()
    assert await waiting[19]
    assert await again
    await asyncio.gather(*waiting.values(), return_exceptions=True)
    assert set(asked) == {7, 19}
    assert time.perf_counter() - begun < 30
    assert await get(3), "it can be asked for again"
    await decoder.close()


async def test_who_gives_up_while_frames_are_counted_does_not_end_counting(clip: Path) -> None:
    decoder = Decoder(clip)
    impatient = asyncio.ensure_future(decoder.facts())
    await asyncio.sleep(0.01)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    (process,) = _decoding()
    assert (await decoder.facts()).frame_count == 30
    assert _decoding() == [process]
    await decoder.close()


async def test_closing_waits_for_no_counting(clip: Path) -> None:
    decoder = Decoder(clip)
    counting = asyncio.ensure_future(decoder.facts())
    await asyncio.sleep(0.01)
    await asyncio.wait_for(decoder.close(), 10)
    with pytest.raises((DataLoss, FailedPrecondition)):
        await counting
    with pytest.raises(FailedPrecondition):
        await decoder.frame(0, 0)


async def test_the_cache_is_bounded_and_makes_nothing_twice() -> None:
    made: list[int] = []

    async def make(index: int) -> bytes:
        made.append(index)
        await asyncio.sleep(0)
        if index == 13:
            raise DataLoss("broken")
        return bytes(100)

    cache = FrameCache(1000)
    await asyncio.gather(*(cache.get(("v", 1, 0), lambda: make(1)) for _ in range(5)))
    assert made == [1]
    for index in range(20, 40):
        await cache.get(("v", index, 0), lambda index=index: make(index))  # type: ignore[misc]
    assert cache.held_bytes <= 1000
    for _ in range(2):
        with pytest.raises(DataLoss):
            await cache.get(("v", 13, 0), lambda: make(13))
    assert made.count(13) == 2
