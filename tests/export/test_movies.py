"""Videos of masks, and mattes: what is transparent, what is behind the objects, times and sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import masklet.export
from masklet import DataLoss, InvalidArgument, Recording
from tests.support import recordings
from tests.support.recordings import FRAME_RATE, FRAMES, HEIGHT, LOST, WIDTH, colour_of_frame, mask_of, recording


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return recordings.clip(tmp_path / "clip.mp4", sound=True)


def union(frame_index: int) -> npt.NDArray[np.bool_]:
    return mask_of(1, frame_index) | mask_of(2, frame_index)


def decoded(path: Path, pixel_format: str, *, decoder: str | None = None) -> list[tuple[float, npt.NDArray[Any]]]:
    """The frames of a file and their times; FFmpeg's own decoder of VP9 does not see alpha, libvpx does."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context: Any = stream.codec_context
        if decoder is not None:
            context = av.CodecContext.create(decoder, "r")
        for packet in container.demux(stream):
            for frame in context.decode(packet if packet.size else None):
                seconds = float(frame.pts * Fraction(stream.time_base or 1))
                found.append((seconds, frame.to_ndarray(format=pixel_format)))
    return found


def assert_times(frames: list[tuple[float, Any]]) -> None:
    assert [seconds for seconds, _ in frames] == pytest.approx([i / FRAME_RATE for i in range(FRAMES)], abs=0.002)


def sound_of(path: Path) -> npt.NDArray[np.float32]:
    with av.open(str(path)) as container:
        return np.concatenate(
            [frame.to_ndarray().astype(np.float32).ravel() for frame in container.decode(audio=0)]
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pixel_format", "decoder"), [("a.mov", "rgba", None), ("a.webm", "rgba", "libvpx-vp9")]
)
def test_mattes_are_transparent_round_the_objects(
    name: str, pixel_format: str, decoder: str | None, clip: Path, tmp_path: Path
) -> None:
    masklet.export.write(recording(clip), "matte", tmp_path / name)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.name in ("prores", "vp9", "libvpx-vp9")
    frames = decoded(tmp_path / name, pixel_format, decoder=decoder)
    assert len(frames) == FRAMES
    assert_times(frames)
    for index, (_, wide) in enumerate(frames):
        mask = union(index)
        width = mask.shape[1]
        assert wide.shape[1] == (-(-width // 16) * 16 if name == "a.mov" else width)
        assert not wide[:, width + 1 :, 3].any(), "what is added is transparent"
        pixels = wide[:, :width]
        alpha = pixels[..., 3].astype(int)
        inner, outer = ~_grown(~mask, 3), ~_grown(mask, 3)
        assert inner.any()
        assert alpha[inner].min() > 245
        assert alpha[outer].max() < 10
        edge = ~inner & ~outer
        assert ((alpha[edge] > 30) & (alpha[edge] < 225)).sum() > 20, "edges are soft"
        np.testing.assert_allclose(np.median(pixels[inner][:, :3], axis=0), colour_of_frame(index), atol=10)
        far = ~_grown(mask, 30)
        assert pixels[far][:, :3].max() < 12, "nothing of the background is left"


def _grown(mask: npt.NDArray[np.bool_], times: int) -> npt.NDArray[np.bool_]:
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


@pytest.mark.parametrize("name", ["a.mov", "a.webm", "a.mp4"])
@pytest.mark.parametrize(
    ("background", "colour"), [("green", (0, 255, 0)), ("black", (0, 0, 0)), ("#1020f0", (16, 32, 240))]
)
def test_backgrounds(name: str, background: str, colour: tuple[int, int, int], clip: Path, tmp_path: Path) -> None:
    masklet.export.write(recording(clip), "matte", tmp_path / name, background=background)
    frames = decoded(tmp_path / name, "rgb24")
    assert_times(frames)
    for index in (0, LOST[0]):
        pixels, mask = frames[index][1], union(index)
        np.testing.assert_allclose(np.median(pixels[~_grown(mask, 6)], axis=0), colour, atol=12)
        np.testing.assert_allclose(np.median(pixels[~_grown(~mask, 3)], axis=0), colour_of_frame(index), atol=12)


def test_a_blurred_background_keeps_the_objects_sharp(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    made = Recording([recordings.frame_of(0)], video=recordings.VIDEO)
    masklet.export.write(made, "matte", tmp_path / "blur", background="blur", video=[noise])
    with Image.open(tmp_path / "blur" / "00000.png") as picture:
        assert picture.mode == "RGB"
        pixels = np.asarray(picture).astype(float)
    inner, outer = ~_grown(~union(0), 3), ~_grown(union(0), 3)
    np.testing.assert_array_equal(pixels[inner], noise[inner])
    assert pixels[outer].std() < noise[outer].std() / 3


def test_cut_outs_are_pictures_with_alpha(clip: Path, tmp_path: Path) -> None:
    masklet.export.write(recording(clip), "matte", tmp_path / "cut", feather=0, objects=[2])
    files = sorted((tmp_path / "cut").iterdir())
    assert [file.name for file in files] == [f"{i:05d}.png" for i in range(FRAMES)]
    for index, file in enumerate(files):
        with Image.open(file) as picture:
            assert picture.mode == "RGBA"
            alpha = np.asarray(picture)[..., 3]
        np.testing.assert_array_equal(alpha, mask_of(2, index) * np.uint8(255))


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "aac"), ("a.webm", "opus"), ("a.mp4", "aac")])
def test_sound_is_kept(name: str, codec: str, clip: Path, tmp_path: Path) -> None:
    masklet.export.write(recording(clip), "matte", tmp_path / name, background="green")
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.audio[0].codec_context.name.endswith(codec)
    sound, original = sound_of(tmp_path / name), sound_of(clip)
    assert len(sound) == pytest.approx(len(original), abs=4096)
    middle = slice(4000, 12000)
    assert np.abs(sound[middle]).max() == pytest.approx(np.abs(original[middle]).max(), rel=0.2)
    spectrum = np.abs(np.fft.rfft(sound[middle]))
    assert abs(int(spectrum.argmax()) * 48_000 / 8000 - 440) < 15


def test_sound_and_times_of_a_part_begin_with_it(clip: Path, tmp_path: Path) -> None:
    part = Recording([frame for frame in recording() if frame.frame_index >= 4], video=recordings.VIDEO, source=clip)
    masklet.export.write(part, "matte", tmp_path / "part.mov", background="green")
    frames = decoded(tmp_path / "part.mov", "rgb24")
    assert [seconds for seconds, _ in frames] == pytest.approx([0, 0.04, 0.08, 0.12], abs=0.002)
    assert len(sound_of(tmp_path / "part.mov")) == pytest.approx(4 * 48_000 / FRAME_RATE, abs=2200)


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.05, 0.3, 0.31]
    made = Recording(
        masklet.FrameResult(i, seconds, 0, 0, recordings.frame_of(i).objects) for i, seconds in enumerate(times)
    )
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    masklet.export.write(made, "matte", tmp_path / "a.mov", video=[picture] * 4)
    assert [s for s, _ in decoded(tmp_path / "a.mov", "rgba")] == pytest.approx(times, abs=0.002)


def test_masks_as_a_video_lose_nothing(tmp_path: Path) -> None:
    masklet.export.write(recording(), "masks-video", tmp_path / "masks.mkv")
    frames = decoded(tmp_path / "masks.mkv", "gray")
    assert_times(frames)
    for index, (_, pixels) in enumerate(frames):
        expected = np.where(mask_of(2, index), 2, mask_of(1, index))
        np.testing.assert_array_equal(pixels, expected)


def test_masks_as_a_luma_matte(tmp_path: Path) -> None:
    masklet.export.write(recording(), "masks-video", tmp_path / "masks.mp4")
    frames = decoded(tmp_path / "masks.mp4", "gray")
    assert_times(frames)
    for index, (_, pixels) in enumerate(frames):
        np.testing.assert_array_equal(pixels[~_grown(~union(index), 2)] > 230, True)
        np.testing.assert_array_equal(pixels[~_grown(union(index), 2)] < 25, True)


def test_odd_sides_grow_by_a_pixel(tmp_path: Path) -> None:
    mask = np.zeros((31, 45), np.bool_)
    mask[5:20, 10:30] = True
    made = Recording([masklet.FrameResult(0, 0.0, 0, 0, {1: recordings.result_of(1, mask)})])
    masklet.export.write(made, "matte", tmp_path / "a.webm", video=[np.full((31, 45, 3), 90, np.uint8)])
    with av.open(str(tmp_path / "a.webm")) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (32, 46)


def test_no_file_is_left_where_the_video_is_another(clip: Path, tmp_path: Path) -> None:
    longer = recording(clip)
    longer.add(recordings.frame_of(FRAMES + 3))
    with pytest.raises(DataLoss, match=f"no frame {FRAMES + 3}"):
        masklet.export.write(longer, "matte", tmp_path / "a.mov")
    assert not (tmp_path / "a.mov").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_video_that_only_the_server_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="read by the server alone"):
        masklet.export.write(
            recording(), "matte", tmp_path / "a.mov", video=masklet.SourceUrl("https://example.org/a.mp4")
        )
