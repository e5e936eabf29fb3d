"""Overlay videos, decoded again."""

from __future__ import annotations

import gc
import io
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import masklet
from masklet._media.frames import shown_frames, turned
from masklet._protocol.results import ObjectResult
from tests.support.clips import frames_alive

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def result(index: int, seconds: float, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> masklet.FrameResult:
    found = ObjectResult(1, masklet.encode_rle(mask), None, int(mask.sum()), 0.5, 1.0, bool(mask.any()))
    return masklet.FrameResult(index, seconds, index + 1, 0, {1: found})


def results(times: Sequence[float], height: int, width: int) -> Iterator[masklet.FrameResult]:
    for index, seconds in enumerate(times):
        mask = np.zeros((height, width), np.bool_)
        mask[: height // 2] = True
        yield result(index, seconds, mask)


def grays(count: int, height: int, width: int) -> list[Picture]:
    return [np.full((height, width, 3), 40 + 10 * i, np.uint8) for i in range(count)]


def write_clip(path: Path, pictures: Sequence[Picture], pts: Sequence[int] | None = None, base: int = 30) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, base)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (index if pts is None else pts[index]), Fraction(1, base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_clip(path: Path) -> tuple[list[float], list[Picture], Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times, pictures = [], []
        for frame in container.decode(stream):
            assert frame.time is not None
            times.append(frame.time)
            pictures.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
        return times, pictures, (stream.codec_context.name, stream.codec_context.pix_fmt, container.duration)


def test_every_frame_is_drawn_on_with_the_videos_own_timing(tmp_path: Path) -> None:
    pts = [0, 3, 4, 10, 11]
    write_clip(tmp_path / "in.mp4", grays(5, 64, 96), pts)
    seconds = [p / 30 for p in pts]
    drawn = masklet.write_overlay_video(tmp_path / "in.mp4", results(seconds, 64, 96), tmp_path / "out.mp4")
    assert drawn == 5
    times, pictures, (codec, pixels, duration) = read_clip(tmp_path / "out.mp4")
    assert times == pytest.approx(seconds, abs=1e-4)
    assert (codec, pixels) == ("h264", "yuv420p")
    assert duration / 1e6 == pytest.approx(12 / 30, abs=0.002)
    for index, picture in enumerate(pictures):
        gray = 40 + 10 * index
        np.testing.assert_allclose(picture[50, 50], [gray] * 3, atol=6)
        expected = masklet.overlay(grays(5, 64, 96)[index], next(results([0], 64, 96)).masks)
        np.testing.assert_allclose(picture[15, 50], expected[15, 50], atol=12)


def test_odd_sides_grow_by_one(tmp_path: Path) -> None:
    pictures = grays(3, 33, 47)
    masklet.write_overlay_video(pictures, results([0, 1, 2], 33, 47), tmp_path / "out.mkv")
    _, decoded, _ = read_clip(tmp_path / "out.mkv")
    assert [p.shape for p in decoded] == [(34, 48, 3)] * 3


def test_bytes_files_folders_and_arrays(tmp_path: Path) -> None:
    pictures = grays(3, 32, 48)
    write_clip(tmp_path / "in.mp4", pictures)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i + 8}.png")
    data = (tmp_path / "in.mp4").read_bytes()
    read_before = io.BytesIO(data)
    read_before.read()
    for video in (str(tmp_path / "in.mp4"), data, read_before, folder, pictures, np.stack(pictures)):
        masklet.write_overlay_video(video, results([0, 1 / 30, 2 / 30], 32, 48), tmp_path / "out.mp4")
        times, decoded, _ = read_clip(tmp_path / "out.mp4")
        assert times == pytest.approx([0, 1 / 30, 2 / 30], abs=1e-4)
        np.testing.assert_allclose([p[28, 10, 0] for p in decoded], [40, 50, 60], atol=6)


def test_results_may_begin_late_and_end_early(tmp_path: Path) -> None:
    late = [r for r in results([0, 1, 2, 3, 4], 32, 48) if r.frame_index in (1, 3)]
    masklet.write_overlay_video(grays(5, 32, 48), late, tmp_path / "out.mp4")
    times, decoded, _ = read_clip(tmp_path / "out.mp4")
    assert times == pytest.approx([0, 2])
    np.testing.assert_allclose([p[28, 10, 0] for p in decoded], [50, 70], atol=6)


def test_no_results_no_file(tmp_path: Path) -> None:
    assert masklet.write_overlay_video("/none/such.mp4", [], tmp_path / "out.mp4") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tracked", [0, 3])
def test_what_comes_before_an_error_is_kept_and_replaces_the_old_file(tmp_path: Path, tracked: int) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")

    def breaking() -> Iterator[masklet.FrameResult]:
        yield from results(list(range(tracked)), 32, 48)
        raise masklet.Unavailable("gone")

    with pytest.raises(masklet.Unavailable, match="gone"):
        masklet.write_overlay_video(grays(5, 32, 48), breaking(), tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    if tracked:
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert len(list(container.decode(video=0))) == tracked
    else:
        assert (tmp_path / "out.mp4").read_bytes() == b"old"


def test_an_error_in_drawing_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    with pytest.raises(masklet.DataLoss, match="no frame 1"):
        masklet.write_overlay_video(grays(1, 32, 48), results([0, 1], 32, 48), tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


def test_results_of_another_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"masks\[1\] *.*48x32 pixels, the picture 20x10"):
        masklet.write_overlay_video(grays(2, 10, 20), results([0], 32, 48), tmp_path / "out.mp4")
    with pytest.raises(masklet.DataLoss, match="no frame 2"):
        masklet.write_overlay_video(grays(2, 32, 48), results([0, 1, 2], 32, 48), tmp_path / "out.mp4")
    with pytest.raises(masklet.DataLoss, match="cannot be decoded"):
        masklet.write_overlay_video(b"no video", results([0], 32, 48), tmp_path / "out.mp4")


def test_other_suffixes_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"must end in \.mp4"):
        masklet.write_overlay_video(grays(1, 8, 8), [], tmp_path / "out.webm")
    with pytest.raises(FileNotFoundError):
        masklet.write_overlay_video(grays(1, 8, 8), results([0], 8, 8), tmp_path / "none" / "out.mp4")


def test_sound_only_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(masklet.DataLoss, match="no video stream"):
        next(shown_frames(tmp_path / "sound.mkv"))


def matrix(a: int, b: int, c: int, d: int) -> bytes:
    one = 1 << 16
    return struct.pack("=9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize(
    ("numbers", "transpose"),
    [
        ((1, 0, 0, 1), None),
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
        ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
    ],
)
def test_frames_are_turned_as_the_display_matrix_says(
    numbers: tuple[int, int, int, int], transpose: Image.Transpose | None
) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    image = Image.fromarray(pixels)
    expected = np.asarray(image if transpose is None else image.transpose(transpose))
    np.testing.assert_array_equal(turned(pixels, matrix(*numbers)), expected)


def test_frames_are_let_go_without_the_garbage_collector(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", grays(20, 32, 48))
    gc.collect()
    before = frames_alive()
    gc.disable()
    try:
        count = sum(1 for _ in shown_frames(tmp_path / "in.mp4"))
        left = frames_alive() - before
    finally:
        gc.enable()
    assert count == 20
    assert left < 5


def test_the_video_is_not_written_over(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", grays(3, 32, 48))
    before = (tmp_path / "in.mp4").read_bytes()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "in.mp4")
    for name in ("in.mp4", "link.mp4"):
        with pytest.raises(masklet.InvalidArgument, match=f"out_path: .*{name} is the file that is read"):
            masklet.write_overlay_video(tmp_path / "in.mp4", results([0, 1, 2], 32, 48), str(tmp_path / name))
    assert (tmp_path / "in.mp4").read_bytes() == before
