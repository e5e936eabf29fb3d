"""What importers read that masklet does not write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

import masklet.export
import masklet.importing
from masklet import FrameResult, InvalidArgument
from masklet.cli.outputs import MaskFolder
from tests.support.recordings import mask_of, recording, result_of

HEIGHT, WIDTH = 20, 30


def coco(tmp_path: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    content = {
        "images": [{"id": 7, "height": HEIGHT, "width": WIDTH}, {"id": 3, "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 5, "name": "dog"}],
        "annotations": annotations,
        **changes,
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return tmp_path / "coco.json"


def test_coco_of_others_has_no_tracks_and_three_kinds_of_masks(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[2:9, 4:11] = True
    encoded = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    kinds = [
        {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": masklet.rle.find_runs(mask).tolist()},
        [[4, 2, 11, 2, 11, 9, 4, 9]],
    ]
    annotations = [{"image_id": 7, "category_id": 5, "segmentation": kind} for kind in kinds]
    read = masklet.importing.read(coco(tmp_path, annotations))
    assert read.frame_indices == [0, 1], "images in the order of their ids"
    assert list(read[1].objects) == [1, 2, 3]
    assert read[0].objects == {}
    for result in read[1].objects.values():
        np.testing.assert_array_equal(result.mask, mask)
    assert read.objects[1].category == "dog"


@pytest.mark.parametrize(
    ("annotations", "changes", "complaint"),
    [
        ([{"image_id": 7, "category_id": 5}], {}, "no key 'segmentation'"),
        ([], {"images": []}, "has no images"),
        ([], {"images": [{"id": 1, "height": 2, "width": 3}, {"id": 2, "height": 3, "width": 3}]}, "different sizes"),
        (
            [],
            {"videos": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]},
            "must name one of the videos in the file: a, b",
        ),
        ([{"image_id": 7, "category_id": 5, "segmentation": {"size": [9, 9], "counts": "abc"}}], {}, "has the size"),
        ([{"image_id": 7, "category_id": 5, "segmentation": {"size": [20, 30], "counts": [5]}}], {}, "make 5 pixels"),
    ],
)
def test_wrong_coco_is_refused(annotations: Any, changes: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        masklet.importing.read(coco(tmp_path, annotations, **changes))


def test_images_of_cvat_have_shapes_that_belong_together(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        f'<annotations><image id="4" name="x" width="{WIDTH}" height="{HEIGHT}">'
        '<mask label="dog" group_id="3" rle="1, 3" left="2" top="5" width="2" height="2"/>'
        '<polygon label="dog" group_id="3" points="10,10;14,10;14,12;10,12"/>'
        '<box label="dog" xtl="1" ytl="1" xbr="3" ybr="3"/>'
        '<polygon label="cat" points="20,10;24,10;24,12;20,12"/></image></annotations>'
    )
    read = masklet.importing.read(tmp_path / "a.xml")
    assert {i: found.category for i, found in read.objects.items()} == {3: "dog", 4: "cat"}
    expected = np.zeros((HEIGHT, WIDTH), np.bool_)
    expected[5:7, 2:4] = [[False, True], [True, True]]
    expected[10:12, 10:14] = True
    np.testing.assert_array_equal(read[4].objects[3].mask, expected)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<annotations>", "is not XML"),
        ("<annotations></annotations>", "holds no masks"),
        ('<annotations><track id="0" label="x"><mask frame="0"/></track></annotations>', "no 'original_size'"),
        (
            '<annotations><image id="0" width="9" height="9"><mask label="x" rle="1, 2" left="0" top="0" width="9" '
            'height="9"/></image></annotations>',
            "make 3 pixels",
        ),
        (
            '<annotations><image id="0" width="9" height="9"><mask label="x" rle="0, 4" left="8" top="0" width="2" '
            'height="2"/></image></annotations>',
            "reaches to 10",
        ),
    ],
)
def test_wrong_xml_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InvalidArgument, match=complaint):
        masklet.importing.read(tmp_path / "a.xml")


def test_folders_of_black_and_white_pictures_are_one_object(tmp_path: Path) -> None:
    for number in (3, 10):
        Image.fromarray(mask_of(1, number % 8) * np.uint8(255)).save(tmp_path / f"{number}.png")
    read = masklet.importing.read(tmp_path)
    assert read.frame_indices == [3, 10]
    np.testing.assert_array_equal(read[3].objects[1].mask, mask_of(1, 3))


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="holds no PNGs"):
        masklet.importing.read(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "0.png")
    with pytest.raises(InvalidArgument, match=r"must name one of the videos in .*: a, b"):
        masklet.importing.read(tmp_path)
    with pytest.raises(InvalidArgument, match="must name one of the folders with PNGs: a, b"):
        masklet.importing.read(tmp_path, video="c")
    with pytest.raises(InvalidArgument, match="all pixels are 0"):
        masklet.importing.read(tmp_path, video="a")
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.png")
    with pytest.raises(InvalidArgument, match="has colours"):
        masklet.importing.read(tmp_path, video="a")


def test_one_of_several_videos(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made = recording(f"{name}.mp4")
        masklet.export.write(made if name == "two" else made.only([1]), "youtube-vos", tmp_path)
    read = masklet.importing.read(tmp_path, video="two")
    assert list(read.objects) == [1, 2]


def test_masks_that_track_wrote_one_by_one_are_read_whole(tmp_path: Path) -> None:
    folder = MaskFolder(tmp_path / "masks", lambda: (8, 8))
    truth = {}
    for index in range(2):
        masks = {object_id: np.zeros((8, 8), np.bool_) for object_id in (1, 2, 300)}
        masks[1][2:5, 2:5] = masks[2][4:7, 4 - index : 7] = masks[300][:2] = True
        truth[index] = masks
        folder(FrameResult(index, index / 25, 0, 0, {i: result_of(i, mask) for i, mask in masks.items()}))
    read = masklet.importing.read(tmp_path / "masks")
    assert list(read.objects) == [1, 2, 300]
    for index, masks in truth.items():
        for object_id, mask in masks.items():
            np.testing.assert_array_equal(read[index].objects[object_id].mask, mask)


@pytest.mark.parametrize("text", ["[]", "no", '{"videos": {"clip": {"objects": {"first": {}}}}}'])
def test_a_wrong_list_of_names_is_refused(text: str, tmp_path: Path) -> None:
    masklet.export.write(recording(), "youtube-vos", tmp_path)
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"meta\.json is not YouTube-VOS's"):
        masklet.importing.read(tmp_path)


ANNOTATION: dict[str, Any] = {"id": 1, "image_id": 3, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
IMAGE: dict[str, Any] = {"id": 3, "height": HEIGHT, "width": WIDTH}


@pytest.mark.parametrize(
    ("image", "annotation", "told"),
    [
        ({"frame_id": -3}, {}, "frame -3 is below 0"),
        ({}, {"track_id": -1}, "object -1 is below 1"),
        ({}, {"segmentation": [[1, 1, float("nan"), 1, 9, 9]]}, "a polygon must have x and y"),
        ({}, {"segmentation": [[1, 1, float("inf"), 1, 9, 9]]}, "a polygon must have x and y"),
        ({}, {"segmentation": [[1, 1, 9]]}, "a polygon must have x and y"),
        ({"height": 0}, {}, "a size of 30x0 pixels is no video's"),
        ({"height": 10**7, "width": 10**7}, {}, "a size of 10000000x10000000 pixels is no video's"),
    ],
)
def test_numbers_of_coco_that_cannot_be_are_refused(
    image: dict[str, Any], annotation: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = coco(tmp_path, [{**ANNOTATION, **annotation}], images=[{**IMAGE, **image}])
    with pytest.raises(InvalidArgument, match=f"is not COCO: {told}"):
        masklet.importing.read(path)


def test_annotations_of_one_track_on_one_image_are_parts(tmp_path: Path) -> None:
    parts = [[[1, 1, 9, 1, 9, 9, 1, 9]], [[11, 1, 19, 1, 19, 9, 11, 9]]]
    entries = [{**ANNOTATION, "id": i, "track_id": 3, "segmentation": part} for i, part in enumerate(parts, start=1)]
    (found,) = masklet.importing.read(coco(tmp_path, entries, images=[IMAGE]))
    expected = np.zeros((HEIGHT, WIDTH), np.bool_)
    expected[1:9, 1:9] = expected[1:9, 11:19] = True
    np.testing.assert_array_equal(found.objects[3].mask, expected)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"frame": "-1"}, "frame -1 is below 0"),
        ({"id": "-5"}, "object -4 is below 1"),
        ({"points": "1,1;nan,1;9,9"}, "a polygon must have x and y"),
        ({"points": "1,1;inf,1;9,9"}, "a polygon must have x and y"),
        ({"width": "9999999", "height": "9999999"}, "a size of 9999999x9999999 pixels is no video's"),
        ({"width": "-3"}, "a size of -3x20 pixels is no video's"),
    ],
)
def test_numbers_of_cvat_that_cannot_be_are_refused(values: dict[str, str], told: str, tmp_path: Path) -> None:
    usual = {"frame": "0", "id": "0", "points": "1,1;9,1;9,9", "width": str(WIDTH), "height": str(HEIGHT)}
    text = (
        "<annotations><meta><task><original_size><width>{width}</width><height>{height}</height></original_size></task>"
        '</meta><track id="{id}" label="a"><polygon frame="{frame}" points="{points}" outside="0"/></track>'
        "</annotations>"
    )
    (tmp_path / "a.xml").write_text(text.format(**{**usual, **values}))
    with pytest.raises(InvalidArgument, match=f"is not CVAT's XML 1.1: {told}"):
        masklet.importing.read(tmp_path / "a.xml")
