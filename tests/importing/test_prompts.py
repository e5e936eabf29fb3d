"""Files of prompts: masklet's own, a detector's boxes, and masks of other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import masklet.export
from masklet import InvalidArgument, Unavailable
from masklet.importing.prompts import PromptFile, read_prompts
from tests.support.recordings import mask_of, recording

OWN = [
    {"object": 1, "name": "rabbit", "class": "animal", "points": [[345, 400], [600, 300, 0]]},
    {"object": 2, "time": 1.5, "box": [60, 260, 260, 620]},
    {"object": 3, "frame": 12, "mask": "dog.png"},
]


def read(path: Path, content: Any, **options: Any) -> PromptFile:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_prompts(path, **options)


@pytest.fixture(autouse=True)
def dog(tmp_path: Path) -> None:
    Image.fromarray(mask_of(2, 0)).save(tmp_path / "dog.png")
    three = np.zeros((8, 8), np.uint8)
    three[2:6, :3] = [1, 2, 3]
    Image.fromarray(three).save(tmp_path / "three.png")


@pytest.mark.parametrize("form", ["list", "object", "yaml"])
def test_own_prompts(form: str, tmp_path: Path) -> None:
    if form == "yaml":
        lines = "\n".join(f"- {json.dumps(entry)}" for entry in OWN)
        found = read(tmp_path / "prompts.yaml", f"prompts:\n{lines}\n")
    else:
        found = read(tmp_path / "prompts.json", OWN if form == "list" else {"prompts": OWN})
    one, two, three = found.prompts
    assert (one.object_id, one.frame_index) == (1, 0)
    assert one.point_coords is not None
    assert one.point_coords.tolist() == [[345, 400], [600, 300]]
    assert one.point_labels is not None
    assert one.point_labels.tolist() == [1, 0]
    assert two.pts_seconds == 1.5
    assert two.box is not None
    assert two.box.tolist() == [60, 260, 260, 620]
    assert three.frame_index == 12
    np.testing.assert_array_equal(three.mask, mask_of(2, 0))
    assert (found.objects[1].name, found.objects[1].class_name) == ("rabbit", "animal")


def test_masks_may_be_run_lengths(tmp_path: Path) -> None:
    (prompt,) = read(tmp_path / "p.json", [{"mask": masklet.encode_rle(mask_of(1, 3))}]).prompts
    np.testing.assert_array_equal(prompt.mask, mask_of(1, 3))


def test_boxes_of_a_detector_on_its_first_frame(tmp_path: Path) -> None:
    detections = [
        {"image_id": "clip_000007", "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9},
        {"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.8},
        {"image_id": 5, "category_id": 3, "category_name": "dog", "bbox": [5, 6, 7, 8], "score": 0.7},
        {"image_id": 5, "category_id": 1, "bbox": [9, 9, 9, 9], "score": 0.1},
    ]
    found = read(tmp_path / "boxes.json", detections, min_score=0.5)
    assert [(p.object_id, p.frame_index, None if p.box is None else p.box.tolist()) for p in found.prompts] == [
        (1, 5, [1, 2, 4, 6]),
        (2, 5, [5, 6, 12, 14]),
    ]
    assert found.objects[2].class_name == "dog"
    with pytest.raises(InvalidArgument, match=r"no box with a score of at least 0.95"):
        read_prompts(tmp_path / "boxes.json", min_score=0.95)


def test_boxes_as_ultralytics_writes_them(tmp_path: Path) -> None:
    entry = {"name": "dog", "class": 16, "confidence": 0.6, "box": {"x1": 1.5, "y1": 2, "x2": 30, "y2": 40}}
    found = read(tmp_path / "boxes.json", [entry])
    assert found.prompts[0].box is not None
    assert found.prompts[0].box.tolist() == [1.5, 2, 30, 40]
    assert found.objects[1].category == "dog"


def test_masks_of_other_tools_are_prompts(tmp_path: Path) -> None:
    masklet.export.write(recording(), "cvat", tmp_path / "a.xml")
    masklet.export.write(recording(), "davis", tmp_path / "davis")
    for path in (tmp_path / "a.xml", tmp_path / "davis"):
        found = read_prompts(path)
        assert [(prompt.object_id, prompt.frame_index) for prompt in found.prompts] == [(1, 0), (2, 0)]
        np.testing.assert_array_equal(found.prompts[1].mask, mask_of(2, 0))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([{"object": 0, "points": [[1, 2]]}], r"prompts\[0\]: .*object_id"),
        ([{"points": [[1, 2]]}, {"pionts": [[1, 2]]}], r"prompts\[1\] has the unknown key 'pionts'"),
        ([{"object": 1}], r"prompts\[0\]: .*empty"),
        ([{"object": 1, "box": "everything"}], r"prompts\[0\]"),
        ([{"object": 1, "points": [3, 4]}], r"prompts\[0\] has a value of the wrong kind"),
        ([{"object": 1, "points": [[3]]}], r"prompts\[0\]"),
        ([{"object": "one", "points": [[3, 4]]}], r"prompts\[0\]"),
        ([{"object": 1.5, "points": [[3, 4]]}], r"prompts\[0\]"),
        ([{"frame": -1, "points": [[3, 4]]}], r"prompts\[0\]: .*frame_index"),
        ([{"frame": 10**30, "points": [[3, 4]]}], r"prompts\[0\]: .*frame_index"),
        ([{"frame": "first", "points": [[3, 4]]}], r"prompts\[0\]"),
        ([{"time": "soon", "points": [[3, 4]]}], r"prompts\[0\]"),
        ([{"time": float("nan"), "points": [[3, 4]]}], r"prompts\[0\]: .*pts_seconds"),
        ([{"points": [[3, 4]], "keep_old_points": "no"}], r"prompts\[0\] .*keep_old_points is 'no'"),
        ([{"mask": {"counts": "a"}}], r"prompts\[0\]: the mask has no 'size'"),
        ([{"mask": ["dog.png"]}], r"prompts\[0\] has a value of the wrong kind: mask is"),
        ([{"points": [[3, 4]], "name": 5}], r"prompts\[0\]: name is 5, must be text"),
        ([{"object": 9, "mask": "three.png"}], "three.png has the objects 1, 2, 3, and not 9"),
        ('[{"bbox": [1, 2, 3, 4], "score": null}]', "not a detector's list of boxes"),
        ("[" * 100_000, "nested too deeply"),
        ([{"object": 1, "box": [1, 2, 3, 4], "frame": 1, "time": 2}], "excludes frame_index"),
        ([], "holds no prompt"),
        ([{"bbox": [1, 2, 3]}], "not a detector's list of boxes"),
        ([{"bbox": [1, 2, -3, 4]}], r"prompts\.json: box 1 of frame 0: .*empty or inverted"),
        ("clicks: 3", "neither JSON nor XML"),
    ],
)
def test_wrong_files_are_refused(content: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        read(tmp_path / "prompts.json", content)


def test_names_may_be_null(tmp_path: Path) -> None:
    found = read(tmp_path / "p.json", [{"points": [[3, 4]], "name": None, "class": None}])
    assert [(entry.name, entry.class_name) for entry in found.objects.values()] == [("", "")]


def test_a_picture_with_several_objects_gives_the_one_of_the_entry(tmp_path: Path) -> None:
    found = read(tmp_path / "p.json", [{"object": 2, "mask": "three.png"}, {"object": 3, "mask": "three.png"}])
    for prompt, column in zip(found.prompts, (1, 2), strict=True):
        assert prompt.mask is not None
        assert np.flatnonzero(prompt.mask.any(axis=0)).tolist() == [column]


def test_yaml_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(Unavailable, match=r"pip install 'masklet\[yaml\]'"):
        read(tmp_path / "p.yaml", "[]")
    monkeypatch.undo()
    with pytest.raises(InvalidArgument, match="is not YAML"):
        read(tmp_path / "p.yaml", "[: {")


def test_yaml_that_is_no_text_is_told(tmp_path: Path) -> None:
    for content in (b"\xff\xfe\xff", b"- {object: 1, time: 2026-13-41}"):
        (tmp_path / "p.yaml").write_bytes(content)
        with pytest.raises(InvalidArgument, match=r"p\.yaml is not YAML"):
            read_prompts(tmp_path / "p.yaml")
