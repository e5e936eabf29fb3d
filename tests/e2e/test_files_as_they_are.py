"""Pictures, masks and boxes as people have them, through a server and back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import masklet
from masklet import Prompt
from masklet.cli import main
from tests.support.cases import FOLDER, case
from tests.support.e2e import HEIGHT, WIDTH, box, center, frames, lossless, prompt


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_16_bit_picture_is_the_same_however_it_is_given(client: masklet.Client) -> None:
    path = FOLDER / "gray16.png"
    with Image.open(path) as image:
        given: list[Any] = [path, path.read_bytes(), image, np.asarray(image)]
        found = [client.segment(one, point_coords=[[80, 70]], multimask_output=False).masks[0] for one in given]
        drawn = [masklet.overlay(one, {1: found[0]}) for one in given]
    assert 3000 < found[0].sum() < 4200
    for mask, overlay in zip(found, drawn, strict=True):
        np.testing.assert_array_equal(mask, found[0])
        np.testing.assert_array_equal(overlay, drawn[0])
    assert drawn[0][~found[0]].std() > 5, "the picture is seen, and not white"


@pytest.mark.parametrize("file_format", ["GIF", "AVIF", "TIFF"])
def test_segment_takes_every_common_format(nano_server: str, tmp_path: Path, file_format: str) -> None:
    picture, mask = tmp_path / f"picture.{file_format.lower()}", tmp_path / "mask.png"
    Image.fromarray(frames()[0]).save(picture, file_format)
    x, y = center(0)
    assert run("segment", picture, "--point", f"{x},{y}", "--mask", mask, "--server", nano_server) == 0
    with Image.open(mask) as image:
        assert np.asarray(image)[int(y), int(x)] == 255


def test_animated_webp_is_a_video_with_its_own_times(nano_server: str, tmp_path: Path) -> None:
    first, *others = [Image.fromarray(one) for one in frames()[:6]]
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=[100, 50, 50, 200, 40, 40])
    x, y = center(0)
    with masklet.Client(nano_server) as client:
        times = [f.pts_seconds for f in client.track(tmp_path / "a.webp", Prompt(point_coords=[[x, y]]))]
    assert times == [0, 0.1, 0.15, 0.2, 0.4, 0.44]
    overlay = tmp_path / "o.mp4"
    arguments = ["--point", f"{x},{y}", "--overlay", overlay, "--server", nano_server]
    assert run("track", tmp_path / "a.webp", *arguments) == 0
    assert overlay.exists()
    first.save(tmp_path / "one.webp")
    assert run("track", tmp_path / "one.webp", *arguments) == 2, "one picture is no video"


def test_a_prompt_finds_its_frame_by_time_in_the_second_recording(client: masklet.Client) -> None:
    applied: list[int] = []
    late = Prompt(object_id=1, point_coords=[[80, 70]], pts_seconds=1.48 + 20 * 0.04)
    results = client.track(case("joined.ts"), late, on_prompt=lambda result: applied.append(result.frame_index))
    assert [frame.frame_index for frame in results if frame.objects] == list(range(20, 32))
    assert applied == [20]


def test_masks_of_two_objects_in_one_file(nano_server: str, tmp_path: Path) -> None:
    result = tmp_path / "r.json"
    arguments = ["--mask", FOLDER / "mask_two_objects.png", "--json", result, "--server", nano_server]
    assert run("track", FOLDER / "disc.mp4", *arguments) == 0
    first = json.loads(result.read_text())["frames"][0]
    areas = {found["object_id"]: found["area"] for found in first["objects"]}
    assert areas.keys() == {1, 2}
    assert 3000 < areas[1] < 4200
    assert areas[2] < 600


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 12, 60])
def test_tiny_masks_work_or_are_refused_by_name(client: masklet.Client, pixels: int) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[100 + np.arange(pixels) // 8, 100 + np.arange(pixels) % 8] = True
    refused: list[masklet.MaskletError] = []
    first = next(iter(client.track(lossless(3), Prompt(mask=mask), on_error=refused.append)))
    if refused:
        assert str(refused[0]).startswith("prompt.mask: is too small: none of its pixels is left")
        assert pixels < 20
    else:
        assert first.objects[1].area > 0


def test_a_box_that_a_detector_gives_is_cut_at_the_edge(client: masklet.Client) -> None:
    x0, y0, x1, y1 = box(0)
    inside = Prompt(box=[0, 0, x1, y1])
    outside = Prompt(box=[-0.7, -0.3, x1, y1])
    first, second = (
        next(iter(client.track(lossless(3), one, deterministic=True))).objects[1].mask for one in (inside, outside)
    )
    np.testing.assert_array_equal(first, second)
    with pytest.raises(masklet.InvalidArgument, match="reaches outside"):
        next(iter(client.track(lossless(3), Prompt(box=[-20, y0, x0, y1]))))


def test_a_damaged_picture_in_a_folder_is_named(client: masklet.Client, tmp_path: Path) -> None:
    for index, pixels in enumerate(frames()[:4]):
        Image.fromarray(pixels).save(tmp_path / f"shot{index + 7}.jpg")
    data = (tmp_path / "shot9.jpg").read_bytes()
    (tmp_path / "shot9.jpg").write_bytes(data[:600])
    with pytest.raises(masklet.DataLoss, match=r"^shot9\.jpg: frame 2: the picture is damaged"):
        list(client.track(tmp_path, prompt("point")))
    (tmp_path / "shot9.jpg").write_bytes(b"\xff\xd8\xffno picture")
    with pytest.raises(masklet.InvalidArgument, match=r"^shot9\.jpg: frame\.data: frame 2: is no picture"):
        list(client.track(tmp_path, prompt("point")))
    file = io.BytesIO()
    Image.fromarray(frames()[0][:50, :50]).save(file, "JPEG")
    (tmp_path / "shot9.jpg").write_bytes(file.getvalue())
    with pytest.raises(masklet.InvalidArgument, match=r"^shot9\.jpg: frame\.data: frame 2 is 50x50 pixels"):
        list(client.track(tmp_path, prompt("point")))


def test_info_shows_every_limit_by_its_flag(nano_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--server", nano_server) == 0
    out = capsys.readouterr().out
    for flag in ("--max-objects", "--max-side", "--max-decoded-pixels", "--decoder-memory-bytes", "--max-mask-bytes"):
        assert flag in out
    assert "16,384" in out
