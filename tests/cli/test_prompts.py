"""The words of --point, --background, --box and --mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from masklet.cli.prompts import read_prompts
from tests.support.cases import FOLDER


@pytest.mark.parametrize(
    ("word", "object_id", "frame_index", "xy"),
    [
        ("10,20", 1, 0, (10, 20)),
        ("10.5,.25", 1, 0, (10.5, 0.25)),
        ("7.,8", 1, 0, (7, 8)),
        ("2:10,20", 2, 0, (10, 20)),
        ("10,20@5", 1, 5, (10, 20)),
        ("12:10,20@345", 12, 345, (10, 20)),
    ],
)
def test_points(word: str, object_id: int, frame_index: int, xy: tuple[float, float]) -> None:
    for option, label in (("points", 1), ("background", 0)):
        words: dict[str, Any] = {option: [word]}
        (prompt,) = read_prompts(**words)
        assert (prompt.object_id, prompt.frame_index) == (object_id, frame_index)
        assert prompt.point_coords is not None
        assert prompt.point_labels is not None
        assert prompt.point_coords.tolist() == [list(xy)]
        assert prompt.point_labels.tolist() == [label]


def test_box() -> None:
    (prompt,) = read_prompts(boxes=["3:1,2,30.5,40@6"])
    assert (prompt.object_id, prompt.frame_index) == (3, 6)
    assert prompt.box is not None
    assert prompt.box.tolist() == [1, 2, 30.5, 40]


def test_points_and_box_of_one_object_and_frame_become_one_prompt_in_order() -> None:
    prompts = read_prompts(
        points=["2:1,1@7", "5,5", "2:2,2@7", "2:9,9"], background=["2:3,3@7"], boxes=["2:0,0,4,4@7", "8:0,0,4,4"]
    )
    assert [(p.frame_index, p.object_id) for p in prompts] == [(0, 1), (0, 2), (0, 8), (7, 2)]
    merged = prompts[3]
    assert merged.point_coords is not None
    assert merged.point_labels is not None
    assert merged.box is not None
    assert merged.point_coords.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert merged.point_labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_mask_files_of_every_kind(tmp_path: Path, mode: str) -> None:
    values = np.zeros((6, 8), np.uint8)
    values[1:3, 2:5] = 1 if mode == "P" else 255
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 0])
    file = tmp_path / "mask.png"
    (image if mode == "P" else image.convert(mode)).save(file)
    (prompt,) = read_prompts(masks=[f"4:{file}@2"])
    assert (prompt.object_id, prompt.frame_index) == (4, 2)
    assert prompt.mask is not None
    np.testing.assert_array_equal(prompt.mask, values > 0)


def areas(**options: list[str]) -> dict[tuple[int, int], int]:
    """The mask's pixels of each prompt, by object and frame."""
    prompts = read_prompts(masks=options["masks"])
    return {(p.object_id, p.frame_index): 0 if p.mask is None else int(p.mask.sum()) for p in prompts}


def test_a_file_with_several_objects() -> None:
    file = FOLDER / "mask_two_objects.png"
    assert areas(masks=[f"{file}"]) == {(1, 0): 3601, (2, 0): 311}
    assert areas(masks=[f"{file}@4"]) == {(1, 4): 3601, (2, 4): 311}
    assert areas(masks=[f"1:{file}", f"2:{file}"]) == {(1, 0): 3601, (2, 0): 311}
    assert areas(masks=[f"7:{file}#2@3"]) == {(7, 3): 311}
    assert areas(masks=[f"{file}#2"]) == {(2, 0): 311}
    with pytest.raises(typer.BadParameter, match=r"has the objects 1, 2: say which one is meant, as in 3:.*#1"):
        read_prompts(masks=[f"3:{file}"])
    with pytest.raises(typer.BadParameter, match="has no object 9; it has 1, 2"):
        read_prompts(masks=[f"{file}#9"])
    with pytest.raises(typer.BadParameter, match="second mask for object 2"):
        read_prompts(masks=[f"{file}", f"2:{file}"])


def test_a_number_sign_in_a_file_name(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 255).save(tmp_path / "mask.png")
    (tmp_path / "mask.png").rename(tmp_path / "mask#7")
    assert areas(masks=[f"{tmp_path}/mask#7"]) == {(1, 0): 6}


def test_colons_and_at_signs_in_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (3, 2), 255).save("a:b@c.png")
    (prompt,) = read_prompts(masks=["a:b@c.png"])
    assert (prompt.object_id, prompt.frame_index) == (1, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"points": ["10"]}, r"'10' is not \[OBJ:\]X,Y\[@FRAME\], such as 2:360,480@15"),
        ({"points": ["10,20,30"]}, "is not"),
        ({"points": ["a,b"]}, "is not"),
        ({"points": ["nan,1"]}, "is not"),
        ({"points": ["inf,1"]}, "is not"),
        ({"points": ["1e3,1"]}, "is not"),
        ({"points": ["-1,5"]}, "is not"),
        ({"points": ["x:1,5"]}, "is not"),
        ({"points": ["1,5@-2"]}, "is not"),
        ({"points": ["1,5@"]}, "is not"),
        ({"points": ["1, 5"]}, "is not"),
        ({"points": ["\u0661,5"]}, "is not"),
        ({"points": [""]}, "is not"),
        ({"points": ["0:1,5"]}, "object 0 does not exist"),
        ({"points": ["99999999999:1,5"]}, "object_id"),
        ({"points": ["1,5@99999999999"]}, "frame_index"),
        ({"background": ["5"]}, "is not"),
        ({"boxes": ["1,2,3"]}, "is not"),
        ({"boxes": ["5,5,1,1"]}, "object 1, frame 0: box: .*inverted"),
        ({"boxes": ["1,1,5,5", "2,2,6,6"]}, "second box"),
        ({"masks": ["0:x.png"]}, "object 0 does not exist"),
        ({}, "there is no prompt; add --point"),
    ],
)
def test_words_that_cannot_be_understood(words: dict[str, list[str]], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        read_prompts(**words)  # type: ignore[arg-type]


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 255).save(tmp_path / "full.png")
    Image.new("L", (3, 2), 0).save(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(FileNotFoundError):
        read_prompts(masks=[str(tmp_path / "none.png")])
    with pytest.raises(typer.BadParameter, match="is not a picture"):
        read_prompts(masks=[str(tmp_path / "text.png")])
    with pytest.raises(typer.BadParameter, match="no foreground"):
        read_prompts(masks=[str(tmp_path / "empty.png")])
    with pytest.raises(typer.BadParameter, match="second mask"):
        read_prompts(masks=[str(tmp_path / "full.png")] * 2)
    with pytest.raises(typer.BadParameter, match="excludes points"):
        read_prompts(masks=[str(tmp_path / "full.png")], points=["1,1"])


def test_a_picture_has_no_frames() -> None:
    with pytest.raises(typer.BadParameter, match="leave out @0"):
        read_prompts(points=["1,2@0"], one_picture=True)
    with pytest.raises(typer.BadParameter, match=r"is not \[OBJ:\]X,Y, such as 2:360,480$"):
        read_prompts(points=["1"], one_picture=True)
    with pytest.raises(typer.BadParameter, match=r"there is no prompt; add --point X,Y or --box X0,Y0,X1,Y1$"):
        read_prompts(one_picture=True)
