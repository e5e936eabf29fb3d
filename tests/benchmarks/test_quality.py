from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from benchmarks import _davis
from benchmarks._davis import (
    BoolArray,
    DavisError,
    boundary_f,
    boundary_of,
    interior_point,
    jaccard,
    load_sequences,
    read_labels,
)
from benchmarks._pictures import PictureScore, box_of, listed, load_pictures
from benchmarks.quality import (
    ObjectScore,
    PromptKind,
    SequenceScore,
    find_sequences,
    label_map,
    main,
    picture_report,
    prompt_for,
    report,
)
from masklet_server.models import paths

SHAPE = (300, 400)  # a diagonal of 500 pixels: the tolerance of 0.008 is 4 pixels


def square(x: int, y: int, side: int = 100) -> BoolArray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


EMPTY = np.zeros(SHAPE, np.bool_)
FULL = np.ones(SHAPE, np.bool_)


@pytest.mark.parametrize(
    ("truth", "mask", "expected"),
    [
        (square(50, 50), square(50, 50), 1.0),
        (square(50, 50), square(100, 50), 1 / 3),  # half of each overlaps
        (square(50, 50), square(50, 50, side=50), 1 / 4),
        (square(50, 50), square(200, 50), 0.0),
        (square(50, 50), EMPTY, 0.0),
        (EMPTY, square(50, 50), 0.0),
        (EMPTY, EMPTY, 1.0),
    ],
)
def test_jaccard(truth: BoolArray, mask: BoolArray, expected: float) -> None:
    assert jaccard(truth, mask) == pytest.approx(expected)


def test_a_boundary_lies_one_pixel_towards_the_origin() -> None:
    mask = np.zeros((6, 6), np.bool_)
    mask[2:4, 2:4] = True
    expected = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 1, 0, 1, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ],
        np.bool_,
    )
    assert np.array_equal(boundary_of(mask), expected)


def test_the_pictures_edge_is_no_boundary() -> None:
    assert not boundary_of(FULL).any()
    mask = np.zeros((4, 4), np.bool_)
    mask[:, 2:] = True
    assert np.array_equal(boundary_of(mask), np.eye(4, dtype=np.bool_)[[1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("truth", "mask", "expected"),
    [
        (square(50, 50), square(50, 50), 1.0),
        (square(50, 50), square(54, 50), 1.0),  # 4 pixels are within the tolerance
        (square(50, 50), square(200, 150), 0.0),
        (square(50, 50), EMPTY, 0.0),
        (EMPTY, square(50, 50), 0.0),
        (EMPTY, EMPTY, 1.0),
        (FULL, EMPTY, 1.0),  # neither has a boundary: DAVIS's own convention
    ],
)
def test_boundary_f(truth: BoolArray, mask: BoolArray, expected: float) -> None:
    assert boundary_f(truth, mask) == pytest.approx(expected)


def test_boundary_f_of_a_shift_beyond_the_tolerance() -> None:
    # A square's boundary is a ring of 400 pixels: rows and columns 49 and 149, corners shared. Shifted by 10 to the
    # right, its columns are out of reach. Of its rows' 101 pixels each, 91 lie on the other ring's rows, 4 more are
    # within reach of their ends. Of the columns, the pixels within 4 of a row of the other ring match: 5 at each end,
    # of which the corner is counted with the rows already; but only for the column inside the other ring.
    matched = 2 * (91 + 4) + 2 * 4
    assert boundary_f(square(50, 50), square(60, 50)) == pytest.approx(matched / 400)


def test_boundary_f_is_a_harmonic_mean() -> None:
    # Every boundary pixel of the one square is right, and half of what was to be found is found.
    truth = square(50, 50) | square(250, 50)
    assert boundary_f(truth, square(50, 50)) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert boundary_f(square(50, 50), truth) == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_the_tolerance_is_a_disk_rounded_up() -> None:
    found = _davis.disk(2)
    assert found.tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    thin = np.zeros((30, 30), np.bool_)
    thin[10, 10] = True
    # A diagonal of 42.4 pixels: 0.008 of it are a third of a pixel, rounded up to one.
    assert boundary_f(thin, np.roll(thin, 1, axis=1)) == pytest.approx(1.0)
    assert boundary_f(thin, np.roll(thin, 3, axis=1)) == pytest.approx(0.0)


def test_the_most_interior_point_is_the_middle_of_the_widest_part() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[10:31, 10:31] = True  # a square of 21 pixels ...
    mask[20, 31:70] = True  # ... with a long tail
    assert interior_point(mask) == (20.5, 20.5)


def test_the_pictures_edge_is_outside() -> None:
    x, y = interior_point(FULL[:21, :21])
    assert (x, y) == (10.5, 10.5)


def test_prompts_are_the_mask_or_one_click() -> None:
    mask = square(50, 50, side=101)
    whole = prompt_for(3, mask, PromptKind.mask)
    assert whole.object_id == 3
    assert np.array_equal(whole.mask, mask)  # type: ignore[arg-type]
    click = prompt_for(3, mask, PromptKind.point)
    assert click.point_coords is not None
    assert click.point_coords.tolist() == [[100.5, 100.5]]


def test_the_lower_number_wins_where_masks_overlap() -> None:
    labels = label_map({2: square(50, 50), 1: square(100, 50)}, SHAPE)
    assert (labels[60, 60], labels[60, 120], labels[60, 180], labels[0, 0]) == (2, 1, 1, 0)


def write_sequence(root: Path, name: str, labels: list[list[list[int]]], folder: str = "") -> None:
    pictures, annotations = root / "JPEGImages" / folder / name, root / "Annotations" / folder / name
    pictures.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for i, frame in enumerate(labels):
        array = np.array(frame, np.uint8)
        Image.fromarray(array).save(pictures / f"{i:05}.jpg")
        Image.fromarray(array).save(annotations / f"{i:05}.png")


def test_sequences_are_found_with_the_objects_of_their_first_frame(tmp_path: Path) -> None:
    write_sequence(tmp_path, "b", [[[0, 1, 3]]] + [[[2, 2, 2]]] * 2)
    write_sequence(tmp_path, "a", [[[0, 255, 1]]] * 3)
    found = load_sequences(tmp_path)
    assert [(sequence.name, sequence.object_ids) for sequence in found] == [("a", (1,)), ("b", (1, 3))]
    assert len(found[0].annotations) == 3
    assert [sequence.name for sequence in load_sequences(tmp_path, ["b"])] == ["b"]


def test_the_official_layout_has_480p_between(tmp_path: Path) -> None:
    write_sequence(tmp_path, "a", [[[0, 1]]] * 3, folder="480p")
    assert load_sequences(tmp_path)[0].pictures == tmp_path / "JPEGImages" / "480p" / "a"


def test_void_is_background_but_the_only_object_of_davis_2016(tmp_path: Path) -> None:
    for name, values, expected in (("2017", [0, 255, 2], [0, 0, 2]), ("2016", [0, 255, 0], [0, 1, 0])):
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.array([values], np.uint8)).save(path)
        assert read_labels(path).tolist() == [expected]


def test_folders_that_are_not_davis_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DavisError, match="no folder JPEGImages"):
        load_sequences(tmp_path)
    write_sequence(tmp_path, "a", [[[0, 1]]] * 3)
    with pytest.raises(DavisError, match=r"no pictures \*\.jpg in .*absent"):
        load_sequences(tmp_path, ["absent"])
    write_sequence(tmp_path, "short", [[[0, 1]]] * 2)
    with pytest.raises(DavisError, match="at least 3 are needed"):
        load_sequences(tmp_path, ["short"])
    (tmp_path / "Annotations" / "a" / "00001.png").unlink()
    with pytest.raises(DavisError, match=r"one \.png for each \.jpg"):
        load_sequences(tmp_path, ["a"])


def test_the_mean_is_over_objects_as_davis_has_it() -> None:
    one = SequenceScore("one", (ObjectScore(1, 0.9, 0.7),), 10, 1.0)
    two = SequenceScore("two", (ObjectScore(1, 0.3, 0.1), ObjectScore(2, 0.6, 0.4)), 10, 1.0)
    results = report([one, two], model="nano", kind=PromptKind.mask)
    assert results["sequences"]["one"]["J&F"] == pytest.approx(0.8)
    assert results["sequences"]["two"]["J"] == pytest.approx(0.45)
    assert results["sequences"]["two"]["objects"]["2"]["F"] == pytest.approx(0.4)
    assert results["mean"] == pytest.approx({"J": 0.6, "F": 0.4, "J&F": 0.5})


def write_drifting_disk(root: Path, frame_count: int = 4) -> None:
    """A bright disk that drifts over a dim, rough ground."""
    pictures, annotations = root / "JPEGImages" / "disk", root / "Annotations" / "disk"
    pictures.mkdir(parents=True)
    annotations.mkdir(parents=True)
    ground = np.random.default_rng(0).integers(20, 60, (120, 160, 3), np.uint8)
    y, x = np.mgrid[:120, :160]
    for i in range(frame_count):
        disk = (x - 60 - 4 * i) ** 2 + (y - 60) ** 2 < 30**2
        Image.fromarray(np.where(disk[..., None], (230, 80, 40), ground).astype(np.uint8)).save(
            pictures / f"{i:05}.jpg"
        )
        Image.fromarray(disk.astype(np.uint8)).save(annotations / f"{i:05}.png")


def run(*arguments: str) -> tuple[int, str]:
    program = typer.Typer()
    program.command()(main)
    result = CliRunner().invoke(program, arguments)
    return result.exit_code, result.output


def test_it_measures_a_real_server(tmp_path: Path) -> None:
    write_drifting_disk(tmp_path)
    file = tmp_path / "quality.json"
    code, output = run("--davis", str(tmp_path), "--prompt", "point", "--device", "cpu", "--json", str(file))
    assert code == 0, output
    results = json.loads(file.read_text())
    assert (results["model"], results["prompt"], results["device"]) == ("nano", "point", "cpu")
    assert (results["dtype"], results["memory_policy"]) == ("float32", "sam2")
    assert results["sequences"]["disk"]["frames"] == 4
    assert results["sequences"]["disk"]["objects"].keys() == {"1"}
    assert 0.5 < results["mean"]["J"] <= 1  # what is tested is the way of the masks, not the weights
    assert results["mean"]["J&F"] == pytest.approx((results["mean"]["J"] + results["mean"]["F"]) / 2)
    assert "disk" in output


def test_memory_policies_are_measured_side_by_side(tmp_path: Path) -> None:
    write_drifting_disk(tmp_path, frame_count=3)
    file = tmp_path / "quality.json"
    policies = ("--memory-policy", "motion_aware", "--memory-policy", "sam2")
    code, output = run("--davis", str(tmp_path), "--device", "cpu", "--json", str(file), *policies)
    assert code == 0, output
    results = json.loads(file.read_text())
    assert [one["memory_policy"] for one in results] == ["motion_aware", "sam2"]
    for one in results:
        row = one["sequences"]["disk"]
        assert one["milliseconds_per_frame"] == pytest.approx(1e3 * row["seconds"] / row["frames"], rel=0.01)
        assert 0.5 < one["mean"]["J"] <= 1
    assert "motion_aware" in output


def test_models_are_measured_side_by_side(tmp_path: Path) -> None:
    write_drifting_disk(tmp_path, frame_count=3)
    file = tmp_path / "quality.json"
    same = f"same={paths.checkpoints_folder() / 'masklet-nano.safetensors'}:masklet-nano.yaml"
    options = ("--davis", str(tmp_path), "--device", "cpu", "--json", str(file))
    code, output = run(*options, "--model", "nano", "--model", same)
    assert code == 0, output
    one, two = json.loads(file.read_text())
    assert (one["model"], two["model"]) == ("nano", same)
    assert one["mean"] == pytest.approx(two["mean"], abs=1e-3)  # the same weights by another name


def test_a_folder_that_is_not_davis_ends_with_1_and_a_reason(tmp_path: Path) -> None:
    code, output = run("--davis", str(tmp_path))
    assert code == 1
    assert "has no folder JPEGImages" in output


def write_pictures(root: Path) -> Path:
    """Two pictures: a bright disk and a speck that is too small to count; nothing."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    y, x = np.mgrid[:120, :160]
    labels = np.where((x - 60) ** 2 + (y - 60) ** 2 < 30**2, 3, 0).astype(np.uint8)
    labels[5:9, 140:146] = 7
    for name, ids in (("disk", labels), ("nothing", np.zeros_like(labels))):
        picture = np.where(ids[..., None] > 0, (230, 80, 40), (30, 40, 50)).astype(np.uint8)
        Image.fromarray(picture).save(root / "images" / f"{name}.jpg")
        Image.fromarray(ids).save(root / "masks" / f"{name}.png")
    return root


def test_pictures_and_their_objects(tmp_path: Path) -> None:
    disk, nothing = load_pictures(write_pictures(tmp_path / "set"))
    assert [int(mask.sum()) for mask in disk.objects()] == [int((read_labels(disk.masks) == 3).sum())]
    assert list(nothing.objects()) == []
    assert [picture.file.stem for picture in load_pictures(tmp_path / "set", ["nothing"])] == ["nothing"]
    with pytest.raises(DavisError, match=r"must hold images/absent\.jpg"):
        load_pictures(tmp_path / "set", ["absent"])
    with pytest.raises(DavisError, match="no pictures"):
        load_pictures(tmp_path)


def test_a_list_names_pictures_of_several_sets(tmp_path: Path) -> None:
    file = tmp_path / "held-out.txt"
    file.write_text("# never trained on\nset/disk\nother/cat  # not of this set\n\nset/nothing\n")
    assert listed(file, tmp_path / "set") == ["disk", "nothing"]
    with pytest.raises(DavisError, match="lists nothing of videos"):
        listed(file, tmp_path / "videos")


def test_a_box_lies_about_the_pixels_of_its_mask() -> None:
    assert box_of(square(50, 60, side=10)) == (50, 60, 60, 70)


def test_the_mean_over_pictures_is_over_objects() -> None:
    scores = [PictureScore("a", 0.2, 0.4, 0.6), PictureScore("a", 0.4, 0.8, 0.6), PictureScore("b", 0.9, 0.9, 0.9)]
    results = picture_report(scores, model="nano")
    assert (results["pictures"], results["objects"]) == (2, 3)
    assert results["mean"] == pytest.approx({"click": 0.5, "best": 0.7, "box": 0.7})


def test_it_measures_pictures_through_a_real_server(tmp_path: Path) -> None:
    folder, file, names = write_pictures(tmp_path / "set"), tmp_path / "quality.json", tmp_path / "list.txt"
    names.write_text("set/disk\n")
    options = ("--pictures", str(folder), "--listed", str(names), "--device", "cpu", "--json", str(file))
    code, output = run(*options)
    assert code == 0, output
    results = json.loads(file.read_text())
    assert (results["pictures"], results["objects"], results["dtype"]) == (1, 1, "float32")
    assert 0.5 < results["mean"]["click"] <= results["mean"]["best"] <= 1
    assert 0.5 < results["mean"]["box"] <= 1


def test_pictures_without_objects_end_with_1_and_a_reason(tmp_path: Path) -> None:
    folder, names = write_pictures(tmp_path / "set"), tmp_path / "list.txt"
    names.write_text("set/nothing\n")
    code, output = run("--pictures", str(folder), "--listed", str(names), "--device", "cpu")
    assert code == 1
    assert "has an object that is large enough" in output


@pytest.mark.parametrize("options", [(), ("--davis", "a", "--pictures", "b")])
def test_either_sequences_or_pictures_are_measured(options: tuple[str, ...]) -> None:
    code, output = run(*options)
    assert code == 2
    assert "either --davis or" in output


def test_sequences_of_several_folders_and_of_the_other_layout(tmp_path: Path) -> None:
    write_sequence(tmp_path / "davis", "a", [[[0, 1]]] * 3)
    write_sequence(tmp_path / "davis", "b", [[[0, 1]]] * 3)
    for name in ("c", "d"):
        for folder, suffix in (("frames", "jpg"), ("masks", "png")):
            (tmp_path / "films" / name / folder).mkdir(parents=True)
            for i in range(3):
                array = np.ones((2, 2), np.uint8)
                Image.fromarray(array).save(tmp_path / "films" / name / folder / f"{i:05}.{suffix}")
    both = [str(tmp_path / "davis"), f"{tmp_path / 'films'}:d"]
    found = find_sequences(both, None)
    assert [sequence.name for sequence in found] == ["a", "b", "d"]
    assert found[2].object_ids == (1,)
    assert [sequence.name for sequence in find_sequences(both, ["b"])] == ["b", "d"]
    with pytest.raises(DavisError, match="two sequences are called d"):
        find_sequences([*both, str(tmp_path / "films")], None)
