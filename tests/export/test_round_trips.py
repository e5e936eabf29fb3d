"""Each format is written, and read back: by `masklet.importing` where it can, else here, as the format's page says."""

from __future__ import annotations

import base64
import configparser
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

import masklet.export
import masklet.export.polygons
import masklet.importing
from masklet import InvalidArgument, NotFound, Recording
from masklet.export import FORMATS
from tests.support import recordings
from tests.support.recordings import FRAME_RATE, FRAMES, HEIGHT, LOST, WIDTH, mask_of, recording

# pycocotools' own decoder asks NumPy in a way that newer ones warn of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Writes the recording in a format, into a file of that name; its path."""

    def write(to: str, name: str, **options: Any) -> Path:
        masklet.export.write(options.pop("recording", recording()), to, tmp_path / name, **options)
        return tmp_path / name

    return write


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def assert_masks(read: Recording, *, at_least: float = 1.0, overlaps: bool = True) -> None:
    """Every mask of every frame is the one that was written; where they do not overlap, object 2 is on top."""
    for frame_index in range(FRAMES):
        for object_id in (1, 2):
            expected = mask_of(object_id, frame_index)
            if object_id == 1 and not overlaps:
                expected = expected & ~mask_of(2, frame_index)
            found = read[frame_index].objects.get(object_id)
            mask = np.zeros((HEIGHT, WIDTH), np.bool_) if found is None else found.mask
            assert iou(mask, expected) >= at_least, (frame_index, object_id)


@pytest.mark.parametrize(
    ("to", "name", "options", "at_least"),
    [
        ("coco", "coco.json", {}, 1.0),
        ("coco", "coco.json", {"shape": "polygon", "tolerance": 0.0}, 0.999),
        ("coco", "coco.json", {"shape": "polygon"}, 0.9),
        ("youtube-vis", "vis.json", {}, 1.0),
        ("cvat", "cvat.xml", {}, 1.0),
        ("cvat", "cvat.xml", {"shape": "polygon", "tolerance": 0}, 1.0),
        ("cvat", "cvat.xml", {"shape": "polygon", "tolerance": 1}, 0.9),
        ("davis", "davis", {}, 1.0),
        ("youtube-vos", "vos", {}, 1.0),
    ],
)
def test_what_is_imported_is_what_was_exported(
    to: str, name: str, options: dict[str, Any], at_least: float, export: Export
) -> None:
    read = masklet.importing.read(export(to, name, **options))
    assert_masks(read, at_least=at_least, overlaps=to not in ("davis", "youtube-vos"))
    assert len(read) == FRAMES
    assert read.size == (HEIGHT, WIDTH)
    assert [frame for frame, result in read.masklet(2) if not result.visible] in ([], [LOST[0]])
    if to != "davis":
        assert {i: found.category for i, found in read.objects.items()} == {1: "toy", 2: "boat"}


def test_masks_of_one_tool_become_prompts_and_go_to_another(export: Export, tmp_path: Path) -> None:
    read = masklet.importing.read(export("cvat", "cvat.xml"))
    masklet.export.write(read, "coco", tmp_path / "coco.json")
    again = masklet.importing.read(tmp_path / "coco.json")
    assert_masks(again)
    prompts = again.prompts()
    assert [(prompt.object_id, prompt.frame_index) for prompt in prompts] == [(1, 0), (2, 0)]
    np.testing.assert_array_equal(prompts[1].mask, mask_of(2, 0))


def test_coco_is_what_pycocotools_reads(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(export("coco", "coco.json")))
    capsys.readouterr()
    assert len(coco.getImgIds()) == FRAMES
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["toy", "boat"]
    for annotation in coco.loadAnns(coco.getAnnIds()):
        frame_index, object_id = annotation["image_id"] - 1, annotation["track_id"]
        expected = mask_of(object_id, frame_index)
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(np.bool_), expected)
        assert annotation["area"] == expected.sum()
        encoded = coco_masks.encode(np.asfortranarray(expected.astype(np.uint8)))
        assert annotation["bbox"] == coco_masks.toBbox(encoded).tolist()
        assert coco.loadCats(annotation["category_id"])[0]["name"] == {1: "toy", 2: "boat"}[object_id]
    lost = coco.loadAnns(coco.getAnnIds(imgIds=[LOST[0] + 1]))
    assert [annotation["track_id"] for annotation in lost] == [1]


def test_polygons_of_coco_are_drawn_alike_by_pycocotools(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    """Holes stay holes, and parts are separate polygons."""
    from pycocotools.coco import COCO

    coco = COCO(str(export("coco", "coco.json", shape="polygon", tolerance=0)))
    capsys.readouterr()
    for annotation in coco.loadAnns(coco.getAnnIds()):
        expected = mask_of(annotation["track_id"], annotation["image_id"] - 1)
        assert iou(coco.annToMask(annotation).astype(np.bool_), expected) > 0.95
    assert {len(a["segmentation"]) for a in coco.loadAnns(coco.getAnnIds(imgIds=[6]))} == {1, 2}


def test_youtube_vis_has_null_where_an_object_is_lost(export: Export) -> None:
    content = json.loads(export("youtube-vis", "vis.json").read_text())
    (video,) = content["videos"]
    assert video["length"] == len(video["file_names"]) == FRAMES
    assert video["file_names"][0] == "clip/00000.jpg"
    for annotation in content["annotations"]:
        places = [i for i, mask in enumerate(annotation["segmentations"]) if mask is None]
        assert places == (list(LOST) if annotation["id"] == 2 else [])
        assert [i for i, box in enumerate(annotation["bboxes"]) if box is None] == places
        first = annotation["segmentations"][0]
        encoded = coco_masks.frPyObjects(first, *first["size"])
        np.testing.assert_array_equal(coco_masks.decode(encoded).astype(np.bool_), mask_of(annotation["id"], 0))
        assert annotation["areas"][0] == mask_of(annotation["id"], 0).sum()


def test_yolo_has_a_line_for_each_object(export: Export) -> None:
    folder = export("yolo", "yolo", tolerance=0)
    files = sorted((folder / "labels" / "train").iterdir())
    assert [file.name for file in files] == [f"clip_{i:05d}.txt" for i in range(FRAMES)]
    for frame_index, file in enumerate(files):
        lines = [line.split() for line in file.read_text().splitlines()]
        seen = [1] if frame_index in LOST else [1, 2]
        assert [int(line[0]) for line in lines] == [object_id - 1 for object_id in seen]
        for object_id, line in zip(seen, lines, strict=True):
            corners = np.array(line[1:], np.float64).reshape(-1, 2)
            assert corners.min() >= 0
            assert corners.max() <= 1
            drawn = masklet.export.polygons.fill([corners * (WIDTH, HEIGHT)], (HEIGHT, WIDTH))
            assert iou(drawn, mask_of(object_id, frame_index)) > 0.99
    import yaml

    described = yaml.safe_load((folder / "data.yaml").read_text())
    assert described["names"] == {0: "toy", 1: "boat"}
    assert described["train"] == "images/train"


def test_youtube_vos_names_frames_and_classes(export: Export) -> None:
    content = json.loads((export("youtube-vos", "vos") / "meta.json").read_text())
    objects = content["videos"]["clip"]["objects"]
    assert objects["2"]["category"] == "boat"
    assert objects["2"]["frames"] == [f"{i:05d}" for i in range(FRAMES) if i not in LOST]


def test_davis_has_its_own_palette_and_list(export: Export) -> None:
    folder = export("davis", "davis")
    assert (folder / "ImageSets" / "2017" / "val.txt").read_text() == "clip\n"
    with Image.open(folder / "Annotations" / "Full-Resolution" / "clip" / "00000.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # type: ignore[index]


def test_cvat_closes_a_track_where_its_object_is_lost(export: Export) -> None:
    root = ElementTree.parse(export("cvat", "cvat.xml")).getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == str(FRAMES)
    assert root.findtext("meta/task/original_size/width") == str(WIDTH)
    assert [label.findtext("name") for label in root.iter("label")] == ["toy", "boat"]
    boat = root.findall("track")[1]
    assert boat.attrib["label"] == "boat"
    outside = [(int(shape.attrib["frame"]), shape.attrib["outside"]) for shape in boat]
    assert outside == [(0, "0"), (1, "0"), (2, "0"), (3, "1"), (5, "0"), (6, "0"), (7, "0")]
    shape = boat[0].attrib
    box = tuple(int(shape[name]) for name in ("left", "top", "width", "height"))
    rows, columns = np.nonzero(mask_of(2, 0))
    assert list(box) == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert sum(map(int, shape["rle"].split(","))) == box[2] * box[3]


def test_cvat_closes_tracks_before_frames_that_were_not_tracked(tmp_path: Path) -> None:
    part = Recording([frame for frame in recording() if frame.frame_index in (1, 2)], video=recordings.VIDEO)
    masklet.export.write(part, "cvat", tmp_path / "part.xml")
    track = ElementTree.parse(tmp_path / "part.xml").getroot().findall("track")[0]
    assert [(s.attrib["frame"], s.attrib["outside"]) for s in track] == [("1", "0"), ("2", "0"), ("3", "1")]


def test_mot_counts_from_one(export: Export) -> None:
    folder = export("mot", "mot")
    lines = [line.split(",") for line in (folder / "gt" / "gt.txt").read_text().splitlines()]
    assert lines[0][:2] == ["1", "1"]
    rows, columns = np.nonzero(mask_of(1, 0))
    assert list(map(float, lines[0][2:6])) == [columns.min() + 1, rows.min() + 1, np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert {line[0] for line in lines if line[1] == "2"} == {str(i + 1) for i in range(FRAMES) if i not in LOST}
    ini = configparser.ConfigParser()
    ini.read(folder / "seqinfo.ini")
    assert int(ini["Sequence"]["seqLength"]) == FRAMES
    assert float(ini["Sequence"]["frameRate"]) == FRAME_RATE
    output = export("mot", "output.txt").read_text().splitlines()
    assert output[0].split(",")[6:] == ["0.8750", "-1", "-1", "-1"]
    assert len(output) == len(lines)


def test_mots_agrees_with_its_pictures(export: Export) -> None:
    folder = export("mots", "mots")
    for line in (folder / "gt" / "gt.txt").read_text().splitlines():
        frame, number, class_id, height, width, counts = line.split(" ")
        assert int(number) // 1000 == int(class_id)
        with Image.open(folder / "instances" / f"{int(frame):06d}.png") as picture:
            pixels = np.asarray(picture)
        mask = coco_masks.decode({"size": [int(height), int(width)], "counts": counts}).astype(np.bool_)
        np.testing.assert_array_equal(pixels == int(number), mask)
        object_id = int(number) % 1000
        assert not (mask & ~mask_of(object_id, int(frame) - 1)).any()
    assert export("mots", "mots.txt").read_text() == (folder / "gt" / "gt.txt").read_text()


def test_label_studio_counts_from_one_and_in_per_cent(export: Export) -> None:
    (task,) = json.loads(export("label-studio", "tasks.json").read_text())
    assert task["data"] == {"video": "clip.mp4"}
    ring, boat = task["predictions"][0]["result"]
    assert (ring["type"], ring["value"]["labels"]) == ("videorectangle", ["toy"])
    assert ring["value"]["framesCount"] == FRAMES
    assert ring["value"]["duration"] == pytest.approx(FRAMES / FRAME_RATE)
    first = ring["value"]["sequence"][0]
    rows, columns = np.nonzero(mask_of(1, 0))
    assert (first["frame"], first["time"]) == (1, 0.0)
    assert first["x"] == pytest.approx(100 * columns.min() / WIDTH)
    assert first["height"] == pytest.approx(100 * (np.ptp(rows) + 1) / HEIGHT)
    keys = [(key["frame"], key["enabled"]) for key in boat["value"]["sequence"]]
    assert keys == [(1, True), (2, True), (3, False), (6, True), (7, True), (8, True)]


@pytest.mark.parametrize("shape", ["polygon", "mask"])
def test_labelme_has_a_file_for_each_frame(shape: str, export: Export) -> None:
    folder = export("labelme", "labelme", shape=shape, tolerance=0)
    assert len(list(folder.glob("*.json"))) == FRAMES
    for frame_index in range(FRAMES):
        content = json.loads((folder / f"{frame_index:05d}.json").read_text())
        assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (HEIGHT, WIDTH, None)
        found = {1: np.zeros((HEIGHT, WIDTH), np.bool_), 2: np.zeros((HEIGHT, WIDTH), np.bool_)}
        for entry in content["shapes"]:
            assert entry["shape_type"] == shape
            assert entry["label"] == {1: "toy", 2: "boat"}[entry["group_id"]]
            mask = found[entry["group_id"]]
            points = np.array(entry["points"])
            if shape == "polygon":
                mask |= masklet.export.polygons.fill([points], mask.shape)
            else:
                (x0, y0), (x1, y1) = points.astype(int)
                with Image.open(io.BytesIO(base64.b64decode(entry["mask"]))) as picture:
                    mask[y0 : y1 + 1, x0 : x1 + 1] |= np.asarray(picture).astype(np.bool_)
        for object_id, mask in found.items():
            np.testing.assert_array_equal(mask, mask_of(object_id, frame_index))


@pytest.mark.parametrize(
    ("to", "name", "folder", "first"),
    [
        ("coco", "coco.json", "images", "00000.jpg"),
        ("yolo", "yolo", "yolo/images/train", "clip_00000.jpg"),
        ("davis", "davis", "davis/JPEGImages/Full-Resolution/clip", "00000.jpg"),
        ("youtube-vos", "vos", "vos/JPEGImages/clip", "00000.jpg"),
        ("mot", "mot", "mot/img1", "000001.jpg"),
        ("labelme", "labelme", "labelme", "00000.jpg"),
    ],
)
def test_frames_are_written_where_the_format_has_them(
    to: str, name: str, folder: str, first: str, export: Export, tmp_path: Path
) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    export(to, name, pictures=True, recording=recording(clip))
    files = sorted((tmp_path / folder).glob("*.jpg"))
    assert len(files) == FRAMES
    assert files[0].name == first
    with Image.open(files[5]) as picture:
        np.testing.assert_allclose(np.asarray(picture)[5, 5], recordings.colour_of_frame(5), atol=6)


def test_chosen_objects_alone_are_written(export: Export, tmp_path: Path) -> None:
    content = json.loads(export("coco", "coco.json", objects=[2]).read_text())
    assert {annotation["track_id"] for annotation in content["annotations"]} == {2}
    assert [c["name"] for c in content["categories"]] == ["boat"]
    with pytest.raises(NotFound, match="no object 9; its objects are: 1, 2"):
        export("coco", "coco.json", objects=[9])


@pytest.mark.parametrize(
    ("to", "name", "options", "complaint"),
    [
        ("cocoa", "x.json", {}, "must be one of coco, youtube-vis"),
        ("coco", "x.xml", {}, "does not go with coco, which is a file that ends in .json"),
        ("yolo", "x.txt/y.txt", {}, "does not go with yolo, which is a folder"),
        ("yolo", "x.txt/y", {}, None),
        ("matte", "x.avi.mp4", {}, "H.264 knows no alpha"),
        ("coco", "x.json", {"shape": "box"}, "must be one of mask, polygon"),
        ("coco", "x.json", {"tolerance": -1}, "from 0 to 100"),
        ("cvat", "x.xml", {"pictures": True}, "means nothing to cvat"),
        ("davis", "x", {"shape": "polygon"}, "means nothing to davis"),
        ("coco", "x.json", {"background": "green"}, "means nothing to coco"),
        ("matte", "x.mov", {"background": "pink"}, "or a colour such as #00ff00"),
        ("yolo", "x", {"pictures": True}, "give its path"),
    ],
)
def test_wrong_arguments_are_refused(
    to: str, name: str, options: dict[str, Any], complaint: str | None, export: Export
) -> None:
    if complaint is None:
        export(to, name, **options)
        return
    with pytest.raises(InvalidArgument, match=complaint.replace("(", r"\(")):
        export(to, name, recording=recording(""), **options)


def test_ids_that_a_format_has_no_room_for_are_refused(tmp_path: Path) -> None:
    high = Recording([recordings.frame_of(0, (1,))])
    high.add(masklet.FrameResult(0, 0.0, 0, 0, {300: recordings.result_of(300, mask_of(2, 0))}))
    for to, name in (("davis", "davis"), ("masks-video", "masks.mkv")):
        with pytest.raises(InvalidArgument, match="300"):
            masklet.export.write(high, to, tmp_path / name)
    masklet.export.write(high, "mots", tmp_path / "mots")


def test_every_format_writes_a_recording_without_objects(tmp_path: Path) -> None:
    clip = recordings.clip(tmp_path / "clip.mp4")
    empty = Recording([masklet.FrameResult(0, 0.0, 0, 0, {})], video=recordings.VIDEO, source=clip)
    for to, known in FORMATS.items():
        path = tmp_path / ("out" + (known.suffixes[0] if known.suffixes else ""))
        masklet.export.write(empty, to, path)
        assert path.exists()
