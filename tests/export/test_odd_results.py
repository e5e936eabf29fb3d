"""Results that are odd: empty ones, names and paths of all kinds, and results that contradict one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

import masklet.export
import masklet.importing
from masklet import DataLoss, FrameResult, InvalidArgument, Recording
from masklet.export import FORMATS
from tests.support import recordings
from tests.support.recordings import FRAMES, HEIGHT, VIDEO, WIDTH, frame_of, mask_of, recording, result_of

PATHS = {
    "coco": "a.json", "youtube-vis": "b.json", "yolo": "yolo", "davis": "davis", "youtube-vos": "vos", "cvat": "c.xml",
    "mot": "mot", "mots": "mots", "label-studio": "d.json", "labelme": "labelme", "masks-video": "e.mp4",
    "matte": "f.webm",
}  # fmt: skip


def no_mask() -> Recording:
    hidden = result_of(7, np.zeros((HEIGHT, WIDTH), np.bool_))
    made = Recording([FrameResult(i, i / 25, 0, 0, {7: hidden}) for i in range(FRAMES)], video=VIDEO)
    made.name(9, "never found")
    return made


def with_a_mask_of_another_size() -> Recording:
    made = recording()
    made.add(FrameResult(FRAMES, FRAMES / 25, 0, 0, {1: result_of(1, np.ones((10, 10), np.bool_))}))
    return made


def with_another_header() -> Recording:
    made = recording()
    made.video = replace(VIDEO, height=HEIGHT // 2, width=WIDTH // 2)
    return made


def with_a_visible_object_without_mask() -> Recording:
    made = recording()
    empty = replace(result_of(1, np.zeros((HEIGHT, WIDTH), np.bool_)), visible=True)
    made.add(FrameResult(2, 2 / 25, 0, 1, {1: empty}))
    return made


def with_a_time_that_is_no_number() -> Recording:
    made = recording()
    made.add(FrameResult(FRAMES, float("nan"), 0, 0, {}))
    return made


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    "make",
    [
        no_mask,
        lambda: Recording([frame_of(0)], video=replace(VIDEO, frame_count=1)),
        lambda: Recording(video=VIDEO),
    ],
    ids=["no mask", "one frame", "no frame"],
)
def test_there_may_be_little_to_write(make: Callable[[], Recording], to: str, tmp_path: Path) -> None:
    made = make()
    made.source = str(recordings.clip(tmp_path / "clip.mp4"))
    if not len(made) and Path(PATHS[to]).suffix in (".mp4", ".webm"):
        with pytest.raises(InvalidArgument, match="has no frame, so there is no video to write"):
            masklet.export.write(made, to, tmp_path / "out" / PATHS[to])
        assert not list((tmp_path / "out").iterdir())
        return
    masklet.export.write(made, to, tmp_path / "out" / PATHS[to])
    assert (tmp_path / "out" / PATHS[to]).exists()


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (with_a_mask_of_another_size, f"object 1 on frame {FRAMES} has a mask of 10x10 pixels, the video is 120x90"),
        (with_another_header, "object 1 on frame 0 has a mask of 120x90 pixels, the video is 60x45"),
        (with_a_visible_object_without_mask, "object 1 on frame 2 is visible, but has no box or an empty mask"),
        (with_a_time_that_is_no_number, f"frame {FRAMES} has the time nan"),
    ],
)
def test_results_that_contradict_one_another_are_refused(
    make: Callable[[], Recording], told: str, to: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=told):
        masklet.export.write(make(), to, tmp_path / PATHS[to])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["matte", "davis"])
def test_pictures_of_a_video_of_another_size_are_refused(to: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "other.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    options = masklet.export.ExportOptions() if to == "matte" else masklet.export.ExportOptions(pictures=True)
    with pytest.raises(DataLoss, match=r"64x48 pixels, the results are 120x90; is it the one that was tracked\?"):
        masklet.export.write(recording(tmp_path / "other.mp4"), to, tmp_path / "out", **options)


def test_the_video_itself_is_never_written_over(tmp_path: Path) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    before = clip.read_bytes()
    (tmp_path / "link.mp4").symlink_to(clip)
    for name in ("clip.mp4", "link.mp4"):
        with pytest.raises(InvalidArgument, match=f"{name} is the file that is read"):
            masklet.export.write(recording(clip), "matte", tmp_path / name, background="green")
    assert clip.read_bytes() == before


@pytest.mark.parametrize("name", ['a, "b" <x>&\u00fc/', "T\u00fcr; 'x'%\\", "\u732b \U0001f407"])
@pytest.mark.parametrize("to", ["coco", "youtube-vis", "cvat", "youtube-vos"])
def test_names_may_have_all_characters_of_a_line(name: str, to: str, tmp_path: Path) -> None:
    made = recording()
    made.name(1, name, name)
    masklet.export.write(made, to, tmp_path / PATHS[to])
    read = masklet.importing.read(tmp_path / PATHS[to])
    assert name in read.class_names
    for index in range(FRAMES):
        mask = read[index].objects[1].mask
        overlapped = mask_of(1, index) & ~(mask_of(2, index) if to == "youtube-vos" else False)
        np.testing.assert_array_equal(mask, overlapped)


@pytest.mark.parametrize("name", ["two\nlines", "\x01", "\udcff", "a\u2028b"])
def test_control_characters_in_names_are_refused(name: str) -> None:
    made = recording()
    with pytest.raises(InvalidArgument, match="must be a single line without control characters"):
        made.name(1, name)
    with pytest.raises(InvalidArgument, match="must be a single line without control characters"):
        made.name(1, class_name=name)
    assert made.objects == recording().objects


@pytest.mark.parametrize("to", ["davis", "youtube-vos", "yolo"])
@pytest.mark.parametrize(
    "source", ["/a/b/..", "..", ".", "a\x01\nb.mp4", "\udcff.mp4", "x" * 251 + ".mp4", "\u00fc" * 120]
)
def test_odd_names_of_videos_stay_inside_the_folder(source: str, to: str, tmp_path: Path) -> None:
    masklet.export.write(recording(source), to, tmp_path / "out" / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["here"]
    files = [path for path in (tmp_path / "out" / "here").rglob("*0000*") if path.is_file()]
    assert len(files) == FRAMES
    depth = {"davis": 4, "youtube-vos": 3, "yolo": 3}[to]
    assert {len(path.relative_to(tmp_path / "out" / "here").parts) for path in files} == {depth}


def test_transparent_mp4_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"transparent does not go with \.mp4"):
        FORMATS["matte"].check(tmp_path / "a.mp4", masklet.export.Settings())
