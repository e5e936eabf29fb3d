"""Each format is opened by a program of others that reads it. A test is skipped where that program is not installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import masklet.export
import masklet.export.polygons
from tests.support import recordings
from tests.support.recordings import FRAMES, HEIGHT, LOST, WIDTH, mask_of, recording

# These programs use what newer versions of their own libraries call out of date.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def required(module: str, package: str) -> Any:
    return pytest.importorskip(module, reason=f"{package} is not installed, so nothing opens what it reads")


def assert_mask(mask: npt.NDArray[Any], object_id: int, frame_index: int, *, at_least: float = 1.0) -> None:
    found, expected = np.asarray(mask).astype(np.bool_), mask_of(object_id, frame_index)
    assert found.shape == expected.shape
    assert (found & expected).sum() / (found | expected).sum() >= at_least, (object_id, frame_index)


def seen(frame_index: int) -> list[int]:
    return [1] if frame_index in LOST else [1, 2]


def write(to: str, path: Path, **options: Any) -> Path:
    masklet.export.write(recording(), to, path, **options)
    return path


def datumaro_items(path: Path, name: str) -> tuple[list[Any], list[str]]:
    """The items of a data set as datumaro reads it, in order, and the names of the classes."""
    datumaro = required("datumaro", "datumaro")
    dataset = datumaro.Dataset.import_from(str(path), name)
    labels = dataset.categories().get(datumaro.AnnotationType.label)
    return sorted(dataset, key=lambda item: str(item.id)), [label.name for label in labels] if labels else []


def test_datumaro_reads_coco(tmp_path: Path) -> None:
    write("coco", tmp_path / "annotations" / "instances_train.json")
    (tmp_path / "images").mkdir()  # it looks for one
    items, labels = datumaro_items(tmp_path, "coco_instances")
    assert [item.id for item in items] == [f"{i:05d}" for i in range(FRAMES)]
    for index, item in enumerate(items):
        masks = [annotation for annotation in item.annotations if annotation.type.name == "mask"]
        assert sorted(annotation.attributes["track_id"] for annotation in masks) == seen(index)
        for annotation in masks:
            object_id = annotation.attributes["track_id"]
            assert_mask(annotation.image, object_id, index)
            assert labels[annotation.label] == {1: "toy", 2: "boat"}[object_id]


def test_datumaro_reads_polygons_of_cvat(tmp_path: Path) -> None:
    path = write("cvat", tmp_path / "cvat.xml", shape="polygon", tolerance=0)
    items, labels = datumaro_items(path, "cvat")
    assert set(labels) >= {"toy", "boat"}
    assert [item.id for item in items] == [f"frame_{i:06d}" for i in range(FRAMES)]
    for index, item in enumerate(items):
        shown = [annotation for annotation in item.annotations if not annotation.attributes["outside"]]
        assert sorted(annotation.attributes["track_id"] + 1 for annotation in shown) == seen(index)
        for annotation in shown:
            ring = np.array(annotation.points).reshape(-1, 2)
            mask = masklet.export.polygons.fill([ring], (HEIGHT, WIDTH))
            assert_mask(mask, annotation.attributes["track_id"] + 1, index)


def test_datumaro_reads_masks_of_cvat(tmp_path: Path) -> None:
    """Datumaro knows masks of images alone, so the tracks' masks are given to it as those of images."""
    root = ElementTree.parse(write("cvat", tmp_path / "tracks.xml")).getroot()
    (tmp_path / "images").mkdir()
    images: dict[int, ElementTree.Element] = {}
    for track in root.findall("track"):
        for shape in track:
            if shape.attrib["outside"] == "0":
                frame = int(shape.attrib["frame"])
                size = {"width": str(WIDTH), "height": str(HEIGHT)}
                image = images.setdefault(
                    frame, ElementTree.Element("image", {"id": str(frame), "name": f"{frame}.jpg", **size})
                )
                ElementTree.SubElement(image, "mask", {"label": track.attrib["label"], **shape.attrib})
        root.remove(track)
    for frame in sorted(images):
        root.append(images[frame])
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{frame}.jpg")
    ElementTree.ElementTree(root).write(tmp_path / "images.xml")
    items, labels = datumaro_items(tmp_path / "images.xml", "cvat")
    assert len(items) == FRAMES
    for index, item in enumerate(items):
        assert len(item.annotations) == len(seen(index))
        for annotation in item.annotations:
            assert_mask(annotation.image, {"toy": 1, "boat": 2}[labels[annotation.label]], index)


def test_datumaro_reads_mots(tmp_path: Path) -> None:
    folder = write("mots", tmp_path / "mots")
    (folder / "images").mkdir()
    items, _ = datumaro_items(folder, "mots")
    assert [item.id for item in items] == [f"{i + 1:06d}" for i in range(FRAMES)]
    for index, item in enumerate(items):
        assert sorted(int(a.attributes["track_id"]) for a in item.annotations) == seen(index)
        for annotation in item.annotations:
            if annotation.attributes["track_id"] == 2:  # which is on top
                assert_mask(annotation.image, 2, index)


def test_supervision_reads_yolo(tmp_path: Path) -> None:
    supervision = required("supervision", "supervision")
    clip = recordings.clip(tmp_path / "clip.mp4")
    folder = tmp_path / "yolo"
    masklet.export.write(recording(clip), "yolo", folder, pictures=True, tolerance=0)
    dataset = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(folder / "images" / "train"),
        annotations_directory_path=str(folder / "labels" / "train"),
        data_yaml_path=str(folder / "data.yaml"),
        force_masks=True,
    )
    assert dataset.classes == ["toy", "boat"]
    assert len(dataset) == FRAMES
    for path, _, detections in dataset:
        index = int(Path(path).stem.removeprefix("clip_"))
        assert [class_id + 1 for class_id in detections.class_id] == seen(index)
        for object_id, mask in zip(seen(index), detections.mask, strict=True):
            assert_mask(
                mask, object_id, index, at_least=0.75
            )  # it draws the outline's pixels, too, and cuts of no width


def test_supervision_reads_coco(tmp_path: Path) -> None:
    supervision = required("supervision", "supervision")
    clip = recordings.clip(tmp_path / "clip.mp4")
    masklet.export.write(recording(clip), "coco", tmp_path / "coco.json", pictures=True)
    dataset = supervision.DetectionDataset.from_coco(
        images_directory_path=str(tmp_path / "images"), annotations_path=str(tmp_path / "coco.json"), force_masks=True
    )
    assert len(dataset) == FRAMES
    for path, _, detections in dataset:
        index = int(Path(path).stem)
        for object_id, mask in zip(seen(index), detections.mask, strict=True):
            assert_mask(mask, object_id, index)


def test_datumaro_reads_mot(tmp_path: Path) -> None:
    folder = write("mot", tmp_path / "mot")
    items, _ = datumaro_items(folder, "mot_seq")
    by_frame = {int(item.id): item for item in items if item.annotations}
    for index in range(FRAMES):
        boxes = {annotation.attributes["track_id"]: annotation for annotation in by_frame[index + 1].annotations}
        assert sorted(boxes) == seen(index)
        for object_id, box in boxes.items():
            rows, columns = np.nonzero(mask_of(object_id, index))
            expected = [columns.min() + 1, rows.min() + 1, np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert list(box.get_bbox()) == expected  # datumaro leaves MATLAB's 1-based pixels as they are


def test_motmetrics_reads_mot(tmp_path: Path) -> None:
    """It takes 1 from the pixels, as MOTChallenge counts them."""
    motmetrics = required("motmetrics", "motmetrics")
    folder = write("mot", tmp_path / "mot")
    table = motmetrics.io.loadtxt(str(folder / "gt" / "gt.txt"), fmt="mot16", min_confidence=1)
    assert len(table) == sum(len(seen(i)) for i in range(FRAMES))
    for (frame, object_id), row in table.iterrows():
        rows, columns = np.nonzero(mask_of(int(object_id), int(frame) - 1))
        assert (row["X"], row["Y"]) == (columns.min(), rows.min())
        assert (row["Width"], row["Height"]) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


def evaluated(name: str, to: str, tmp_path: Path, suffix: str) -> dict[str, Any]:
    """TrackEval's verdict on a tracker's output that equals the truth: both are exports of one recording."""
    trackeval = required("trackeval", "trackeval")
    made = recording()
    for object_id in made.objects:
        made.name(object_id, class_name="pedestrian")
    split = tmp_path / "gt" / f"{suffix}-train"
    masklet.export.write(made, to, split / "clip")
    masklet.export.write(made, to, tmp_path / "trackers" / f"{suffix}-train" / "ours" / "data" / "clip.txt")
    (tmp_path / "gt" / "seqmaps").mkdir()
    (tmp_path / "gt" / "seqmaps" / f"{suffix}-train.txt").write_text("name\nclip\n")
    settings = {
        "GT_FOLDER": str(tmp_path / "gt"),
        "TRACKERS_FOLDER": str(tmp_path / "trackers"),
        "PRINT_CONFIG": False,
        "SPLIT_TO_EVAL": "train",
    }
    if suffix != "MOTS":
        settings["BENCHMARK"] = suffix
    dataset = getattr(trackeval.datasets, name)(settings)
    quiet = {"PRINT_RESULTS": False, "PRINT_CONFIG": False, "TIME_PROGRESS": False, "OUTPUT_SUMMARY": False}
    quiet |= {"OUTPUT_DETAILED": False, "PLOT_CURVES": False, "OUTPUT_EMPTY_CLASSES": False, "BREAK_ON_ERROR": True}
    results, _ = trackeval.Evaluator(quiet).evaluate([dataset], [trackeval.metrics.HOTA({"PRINT_CONFIG": False})])
    found: dict[str, Any] = results[dataset.get_name()]["ours"]["clip"]["pedestrian"]["HOTA"]
    return found


@pytest.mark.parametrize(
    ("name", "to", "suffix"), [("MotChallenge2DBox", "mot", "MOT17"), ("MOTSChallenge", "mots", "MOTS")]
)
def test_trackeval_finds_that_the_truth_equals_itself(name: str, to: str, suffix: str, tmp_path: Path) -> None:
    hota = evaluated(name, to, tmp_path, suffix)
    assert np.mean(hota["HOTA"]) == pytest.approx(1.0)
    assert hota["HOTA_TP"].max() == sum(len(seen(i)) for i in range(FRAMES))


def test_trackeval_reads_youtube_vis(tmp_path: Path) -> None:
    """As ground truth; its reader takes the place of YouTube-VIS's own tool."""
    trackeval = required("trackeval", "trackeval")
    truth = write("youtube-vis", tmp_path / "gt" / "youtube_vis_train" / "vis.json")
    content = json.loads(truth.read_text())
    results = [
        {
            "video_id": 1,
            "category_id": annotation["category_id"],
            "score": 0.9,
            "segmentations": [mask and _compressed(mask) for mask in annotation["segmentations"]],
        }
        for annotation in content["annotations"]
    ]
    tracker = tmp_path / "trackers" / "youtube_vis_train" / "ours" / "data"
    tracker.mkdir(parents=True)
    (tracker / "results.json").write_text(json.dumps(results))
    settings = {
        "GT_FOLDER": f"{tmp_path / 'gt'}/",
        "TRACKERS_FOLDER": f"{tmp_path / 'trackers'}/",
        "SPLIT_TO_EVAL": "train",
        "PRINT_CONFIG": False,
    }
    dataset = trackeval.datasets.YouTubeVIS(settings)
    raw = dataset.get_raw_seq_data("ours", dataset.seq_list[0])
    assert raw["num_timesteps"] == FRAMES
    for index, masks in enumerate(_decoded(raw["gt_dets"])):
        assert len(masks) == len(seen(index))
        for object_id, mask in zip(seen(index), masks, strict=True):
            assert_mask(mask, object_id, index)


def _compressed(mask: dict[str, Any]) -> dict[str, Any]:
    """What the tool wants of a tracker, in place of numbers."""
    from pycocotools import mask as coco_masks

    encoded = coco_masks.frPyObjects(mask, *mask["size"])
    return {"size": mask["size"], "counts": encoded["counts"].decode()}


def _decoded(frames: list[Any]) -> Iterator[list[npt.NDArray[Any]]]:
    from pycocotools import mask as coco_masks

    for masks in frames:
        yield [coco_masks.decode(mask) for mask in masks]


def test_label_studio_takes_the_task(tmp_path: Path) -> None:
    """Its SDK checks regions against the labeling interface, and fills the frames between key frames."""
    sdk = required("label_studio_sdk.label_interface", "label-studio-sdk")
    video = required("label_studio_sdk._extensions.label_studio_tools.postprocessing.video", "label-studio-sdk")
    interface = sdk.LabelInterface(
        '<View><Labels name="videoLabels" toName="video"><Label value="toy"/><Label value="boat"/></Labels>'
        '<Video name="video" value="$video"/><VideoRectangle name="box" toName="video"/></View>'
    )
    (task,) = json.loads(write("label-studio", tmp_path / "tasks.json").read_text())
    assert interface.validate_task({"data": task["data"]})
    (prediction,) = task["predictions"]
    assert interface.validate_prediction(prediction, return_errors=True) == []
    for object_id, region in enumerate(video.extract_key_frames(prediction["result"]), start=1):
        shown = [frame["frame"] for frame in region["value"]["sequence"]]
        assert shown == [i + 1 for i in range(FRAMES) if object_id in seen(i)]
