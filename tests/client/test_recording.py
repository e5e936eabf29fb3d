"""`Recording`: what it holds, what corrections do to it, and its files."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import masklet
import masklet.importing
from masklet import InvalidArgument, Recording, Unavailable
from tests.support.recordings import FRAMES, HEIGHT, LOST, VIDEO, WIDTH, frame_of, mask_of, recording
from tests.support.scripted.fake_script import Script, square
from tests.support.scripted.fake_server import FakeServer


def test_it_gives_back_what_it_took() -> None:
    made = recording()
    assert len(made) == FRAMES
    assert [frame.frame_index for frame in made] == list(range(FRAMES))
    assert made.size == (HEIGHT, WIDTH)
    assert [(o.object_id, o.name, o.class_name) for o in made.objects.values()] == [
        (1, "ring", "toy"),
        (2, "sail", "boat"),
    ]
    for frame in made:
        for object_id, result in frame.objects.items():
            np.testing.assert_array_equal(result.mask, mask_of(object_id, frame.frame_index))
    assert {i: result.event for i, result in made.masklet(2) if result.event} == {3: "lost", 5: "reacquired"}
    assert [i for i, result in made.masklet(2) if not result.visible] == list(LOST)
    assert 3 in made
    assert 99 not in made


def test_corrections_replace_what_they_correct() -> None:
    made = recording()
    wrong = frame_of(6)
    right = masklet.FrameResult(2, 2 / 25, 99, 2, {1: wrong.objects[1]})
    made.add(right)
    made.add(masklet.FrameResult(2, 2 / 25, 98, 1, {1: frame_of(0).objects[1]}))  # an older revision changes nothing
    np.testing.assert_array_equal(made[2].objects[1].mask, mask_of(1, 6))
    np.testing.assert_array_equal(made[2].objects[2].mask, mask_of(2, 2))
    assert len(made) == FRAMES


def test_frames_come_in_order_though_they_were_tracked_backward() -> None:
    made = Recording(map(frame_of, reversed(range(FRAMES))))
    assert made.frame_indices == list(range(FRAMES))
    assert made.frame_rate == pytest.approx(25.0)
    assert made.size == (HEIGHT, WIDTH)


def test_a_recording_without_results_has_no_size() -> None:
    with pytest.raises(InvalidArgument, match="size is not known"):
        _ = Recording().size
    assert Recording(video=VIDEO).size == (HEIGHT, WIDTH)


def test_names_are_kept_where_they_are_not_given() -> None:
    made = recording()
    made.name(1, class_name="animal")
    assert (made.objects[1].name, made.objects[1].class_name) == ("ring", "animal")
    made.name(7, "ghost")
    assert made.objects[7].category == "ghost"
    assert Recording([frame_of(0)]).objects[1].label == "object 1"
    assert Recording([frame_of(0)]).class_names == ["object"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_files_round_trip(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'masklet[parquet]'")
    made = recording()
    made.add(masklet.FrameResult(FRAMES, 0.4, 1, 0, {}))  # a frame without objects
    made.save(tmp_path / f"result{suffix}")
    read = Recording.load(tmp_path / f"result{suffix}")
    assert read == made
    assert read.video == VIDEO
    assert read.source == "clip.mp4"
    assert read != recording()


def test_json_lines_are_a_header_and_a_line_for_each_frame(tmp_path: Path) -> None:
    recording().save(tmp_path / "result.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines()]
    assert (lines[0]["kind"], lines[0]["masklet"], lines[0]["height"]) == ("video", 1, HEIGHT)
    assert lines[0]["objects"][1] == {"object_id": 2, "name": "sail", "class": "boat"}
    assert [(line["kind"], line["frame_index"]) for line in lines[1:]] == [("frame", i) for i in range(FRAMES)]


def test_lines_may_come_without_a_header_and_be_corrected_later(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    recording().save(file)
    lines = file.read_text().splitlines()
    correction = {**json.loads(lines[7]), "frame_index": 1, "revision": 1}
    end = json.dumps({"kind": "end", "frames": FRAMES, "error": None})
    file.write_text("\n".join([*lines[1:], "", json.dumps(correction), end]) + "\n")
    read = Recording.load(file)
    assert read.video is None
    assert len(read) == FRAMES
    np.testing.assert_array_equal(read[1].objects[1].mask, mask_of(1, 6))


def test_files_of_older_versions_have_neither_source_nor_objects(tmp_path: Path) -> None:
    recording().save(tmp_path / "result.json")
    whole = json.loads((tmp_path / "result.json").read_text())
    old = {"video": whole["video"], "frames": whole["frames"]}
    (tmp_path / "old.json").write_text(json.dumps(old, indent=1))
    read = Recording.load(tmp_path / "old.json")
    assert read.video == VIDEO
    assert list(read.objects) == [1, 2]
    assert len(read) == FRAMES


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "neither JSON nor JSON Lines"),
        ('{"images": []}', "without a list 'frames'"),
        ("[1, 2]", "without a list 'frames'"),
        ('{"frame_index": 0, "objects": []}\n', "line 1 has no key 'pts_seconds'"),
        ('{"kind": "video"}\n{"frame_index": 0, "pts_seconds": 0.0, "objects": [', "line 2 is not JSON .* cut off"),
        ('{"kind": "video"}\n{"nothing": 0}\n', "line 2 does not say what it is"),
        ('{"kind": "video", "height": 3}\n', "'video' is not a video's description"),
        ('{"frame_index": -1, "pts_seconds": 0.0, "objects": []}', "line 1 .* -1 is not a whole number"),
        ('{"video": {"height": 3}, "frames": []}', "'video' is not a video's description"),
        ('{"video": null, "objects": [{"name": "x"}], "frames": []}', "'objects' must be a list"),
    ],
)
def test_wrong_files_are_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(InvalidArgument, match=complaint) as error:
        Recording.load(tmp_path / "wrong.json")
    assert error.value.violations[0].field == "path"


def test_run_lengths_of_another_size_are_refused(tmp_path: Path) -> None:
    recording().save(tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text().replace(f'"size": [{HEIGHT}, {WIDTH}]', f'"size": [{HEIGHT}, 7]')
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"frames\[0\].*another size"):
        Recording.load(tmp_path / "result.json")


def test_binary_files_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\x00\xff\xfe" * 99)
    with pytest.raises(InvalidArgument, match="is not text"):
        Recording.load(tmp_path / "clip.mp4")
    with pytest.raises(InvalidArgument, match=r"must end in \.jsonl"):
        recording().save(tmp_path / "result.csv")
    assert not (tmp_path / "result.csv").exists()


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(Unavailable, match=r"pip install 'masklet\[parquet\]'"):
        recording().save(tmp_path / "result.parquet")


def test_no_mask_is_kept() -> None:
    """A mask of 1080p takes 2 MB, its run-lengths some 100 bytes."""
    mask = np.zeros((1080, 1920), np.bool_)
    mask[100:900, 300:1500] = True
    rle = masklet.encode_rle(mask)
    result = masklet.ObjectResult(1, rle, (300.0, 100.0, 1500.0, 900.0), int(mask.sum()), 0.9, 5.0, True)
    made = Recording()
    tracemalloc.start()
    try:
        for index in range(50):
            frame = masklet.FrameResult(index, index / 30, index + 1, 0, {1: masklet.ObjectResult(**_fields(result))})
            assert frame.masks[1].any()  # the caller looks at it
            made.add(frame)
        del frame
        for found in made:
            assert found.masks[1].any()
        del found
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 400_000


def _fields(result: masklet.ObjectResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in type(result).__dataclass_fields__}  # fmt: skip


def test_masks_become_prompts() -> None:
    made = recording()
    first = made.prompts()
    assert [(p.object_id, p.frame_index) for p in first] == [(1, 0), (2, 0)]
    np.testing.assert_array_equal(first[1].mask, mask_of(2, 0))
    assert [(p.object_id, p.frame_index) for p in made.prompts([3, 6])] == [(1, 3), (1, 6), (2, 6)]


def test_track_gives_a_recording(tmp_path: Path) -> None:
    (tmp_path / "clip.bin").write_bytes(b"clip" * 100)
    with FakeServer(Script(frame_count=4)) as server, masklet.Client(server.address) as client:
        made = client.track(tmp_path / "clip.bin", masklet.Prompt(object_id=3, point_coords=[[1, 2]])).recording()
    assert made.source == str(tmp_path / "clip.bin")
    assert made.video is not None
    assert len(made) == 4
    np.testing.assert_array_equal(made[2].objects[3].mask, square(2))


async def test_the_asynchronous_client_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "clip.bin").write_bytes(b"clip" * 100)
    prompt = masklet.Prompt(object_id=3, point_coords=[[1, 2]])
    with FakeServer(Script(frame_count=4)) as server:
        async with masklet.AsyncClient(server.address) as client:
            awaited = await client.track(tmp_path / "clip.bin", prompt).recording()
        with masklet.Client(server.address) as blocking:
            assert awaited == blocking.track(tmp_path / "clip.bin", prompt).recording()


WRONG_HEADERS = [
    {"source": 5},
    {"objects": [{"object_id": 1, "name": 5}]},
    {"objects": [{"object_id": 0}]},
    {"objects": [{"object_id": True}]},
    {"objects": 5},
    {"objects": [{"object_id": 1, "name": "two\nlines"}]},
    {"video": {**dataclasses.asdict(VIDEO), "height": "90"}},
    {"video": {**dataclasses.asdict(VIDEO), "width": 0}},
    {"video": {**dataclasses.asdict(VIDEO), "frame_rate": None}},
    {"video": {**dataclasses.asdict(VIDEO), "frame_count": -1}},
]
WRONG_OBJECTS = [
    ({"box": [1, 2]}, r"box is \[1, 2\], must be \[x0, y0, x1, y1\]"),
    ({"box": None}, "box is None"),
    ({"box": [1, 2, float("nan"), 4]}, "nan is not a number"),
    ({"box": [0, 0, WIDTH + 1, 4]}, "must lie in the mask, which is 120x90 pixels"),
    ({"object_id": 0}, "object_id is 0, must be 1 or above"),
    ({"visible": "false"}, "'false' is neither true nor false"),
    ({"predicted_iou": None}, "None is not a number"),
    ({"rle": {"size": [HEIGHT, WIDTH], "counts": [1, 2]}}, "must be COCO's compressed string"),
]


@pytest.mark.parametrize("head", WRONG_HEADERS)
def test_values_of_the_wrong_kind_in_headers_are_refused(head: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({**recording().header(), **head, "frames": []}))
    with pytest.raises(InvalidArgument):
        Recording.load(tmp_path / "r.json")


@pytest.mark.parametrize(("values", "told"), WRONG_OBJECTS)
def test_values_of_the_wrong_kind_in_results_are_refused(values: dict[str, Any], told: str, tmp_path: Path) -> None:
    recording().save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    content["frames"][1]["objects"][0].update(values)
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(InvalidArgument, match=rf"frames\[1\] is not a frame's results: .*{told}"):
        Recording.load(tmp_path / "r.json")


def test_names_may_be_null(tmp_path: Path) -> None:
    head = {**recording().header(), "objects": [{"object_id": 1, "name": None, "class": None}], "frames": []}
    (tmp_path / "r.json").write_text(json.dumps(head))
    assert [(found.name, found.class_name) for found in Recording.load(tmp_path / "r.json").objects.values()] == [
        ("", "")
    ]


def test_files_that_are_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("[" * 100_000)
    for read in (Recording.load, masklet.importing.read):
        with pytest.raises(InvalidArgument, match="nested too deeply"):
            read(tmp_path / "r.json")
