"""`segment`: what goes to the server for every kind of argument, and the shapes that come back."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

import masklet
from tests.support.scripted.fake_script import HEIGHT, WIDTH, Script, square, status
from tests.support.scripted.fake_server import FakeServer

PICTURE = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint32).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)


def segment_sync(address: str, image: Any, **options: Any) -> masklet.Segmentation:
    with masklet.Client(address) as client:
        return client.segment(image, **options)


def segment_async(address: str, image: Any, **options: Any) -> masklet.Segmentation:
    async def run() -> masklet.Segmentation:
        async with masklet.AsyncClient(address) as client:
            return await client.segment(image, **options)

    return asyncio.run(run())


@pytest.fixture(params=[segment_sync, segment_async], ids=["Client", "AsyncClient"])
def segment(request: pytest.FixtureRequest) -> Callable[..., masklet.Segmentation]:
    function: Callable[..., masklet.Segmentation] = request.param
    return function


def test_one_click_gives_three_masks_that_unpack_as_in_sam(segment: Callable[..., masklet.Segmentation]) -> None:
    with FakeServer() as server:
        answer = segment(server.address, PICTURE, point_coords=[[3, 4]], point_labels=[1])
        request = server.pictures[0]
    masks, scores, logits = answer
    assert masks is not None
    assert scores is not None
    assert logits is not None
    assert masks.shape == (3, HEIGHT, WIDTH)
    assert masks.dtype == np.bool_
    assert scores.shape == (3,)
    assert scores.dtype == np.float32
    assert logits.shape == (3, 4, 6)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(masks[2], square(2))
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.7], rtol=1e-6)
    assert logits[2, 0, 0] == 2
    assert (answer.image_id, answer.model, answer.height, answer.width) == ("picture-1", "nano", HEIGHT, WIDTH)
    assert "bool[3, 48, 64]" in repr(answer)
    assert request.multimask_output
    assert request.return_logits
    assert request.picture.data == PICTURE.tobytes()
    assert [(p.x, p.y, p.label) for p in request.prompts[0].points] == [(3, 4, 1)]


def test_logits_of_a_batch_are_sent_only_if_asked_for() -> None:
    with FakeServer() as server:
        answer = segment_sync(server.address, PICTURE, box=[[1, 2, 30, 40], [2, 3, 31, 41]], multimask_output=False)
    assert answer.logits is None


def test_single_mask_without_logits() -> None:
    with FakeServer() as server:
        answer = segment_sync(server.address, PICTURE, box=[1, 2, 30, 40], multimask_output=False, return_logits=False)
        request = server.pictures[0]
    assert answer.masks.shape == (1, HEIGHT, WIDTH)
    assert answer.logits is None
    box = request.prompts[0].box
    assert (box.x0, box.y0, box.x1, box.y1) == (1, 2, 30, 40)


def test_batch_of_boxes_puts_a_dimension_before(segment: Callable[..., masklet.Segmentation]) -> None:
    boxes = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 9, 9]])
    with FakeServer() as server:
        answer = segment(server.address, PICTURE, box=boxes, multimask_output=False, return_logits=True)
        request = server.pictures[0]
    assert answer.masks.shape == (3, 1, HEIGHT, WIDTH)
    assert answer.scores.shape == (3, 1)
    assert answer.logits is not None
    assert answer.logits.shape == (3, 1, 4, 6)
    assert [p.box.x1 for p in request.prompts] == [3, 7, 9]


def test_batch_of_one_comes_back_without_it_as_in_sam() -> None:
    with FakeServer() as server:
        assert segment_sync(server.address, PICTURE, box=[[1, 2, 3, 4]]).masks.shape == (3, HEIGHT, WIDTH)


def test_batch_of_points_with_boxes() -> None:
    with FakeServer() as server:
        points = np.arange(8).reshape(2, 2, 2)
        boxes = [[0, 0, 9, 9], [1, 1, 8, 8]]
        segment_sync(server.address, PICTURE, point_coords=points, point_labels=[[1, 0], [1, 1]], box=boxes)
        prompts = server.pictures[0].prompts
    assert [[p.label for p in prompt.points] for prompt in prompts] == [[1, 2], [1, 1]]
    assert [prompt.points[1].y for prompt in prompts] == [3, 7]


def test_logits_and_masks_as_prompts() -> None:
    logits = np.linspace(-5, 5, 24).reshape(1, 4, 6)
    with FakeServer() as server:
        segment_sync(server.address, PICTURE, mask_input=logits)
        segment_sync(server.address, PICTURE, mask_input=logits[:, None], point_coords=[[1, 1]])
        segment_sync(server.address, PICTURE, mask=square(1))
        first, second, third = (request.prompts[0] for request in server.pictures)
    for prompt in (first, second):
        assert (prompt.mask_input.height, prompt.mask_input.width) == (4, 6)
        np.testing.assert_array_equal(np.frombuffer(prompt.mask_input.data, "<f4"), logits.astype("<f4").ravel())
    rle = masklet.Rle(size=[third.mask.height, third.mask.width], counts=third.mask.data.decode())
    np.testing.assert_array_equal(masklet.decode_rle(rle), square(1))


def test_an_earlier_answer_stands_for_its_picture(segment: Callable[..., masklet.Segmentation]) -> None:
    with FakeServer() as server:
        first = segment(server.address, PICTURE, box=[0, 0, 9, 9])
        segment(server.address, first, box=[0, 0, 9, 9])
        segment(server.address, first.image_id, box=[0, 0, 9, 9])
        segment(server.address, masklet.ImageId("picture-1"), box=[0, 0, 9, 9], model="other")
        _, second, third, fourth = server.pictures
    assert [r.image_id for r in (second, third, fourth)] == ["picture-1"] * 3
    assert not second.HasField("picture")
    assert [r.model for r in (second, third, fourth)] == ["nano", "", "other"]


def test_forgotten_picture_is_not_found(segment: Callable[..., masklet.Segmentation]) -> None:
    failure = status(grpc.StatusCode.NOT_FOUND, "image_id: no longer held; send the picture again")
    with FakeServer(Script(failure=failure)) as server, pytest.raises(masklet.NotFound, match="send the picture"):
        segment(server.address, masklet.ImageId("x"), box=[0, 0, 1, 1])


def test_every_form_of_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    image = Image.fromarray(PICTURE)
    image.save(file)
    turned = Image.fromarray(PICTURE)
    turned.getexif()[0x0112] = 6
    sources: list[Any] = [file, str(file), file.read_bytes(), image, image.convert("L"), turned, PICTURE[:, ::-1]]
    with FakeServer() as server:
        for source in sources:
            segment_sync(server.address, source, box=[0, 0, 9, 9])
        pictures = [request.picture for request in server.pictures]
    assert [p.format for p in pictures] == [1, 1, 1, 2, 4, 2, 2]
    assert all(p.data == file.read_bytes() for p in pictures[:3])
    assert pictures[3].data == PICTURE.tobytes()
    assert len(pictures[4].data) == HEIGHT * WIDTH
    assert (pictures[5].height, pictures[5].width) == (WIDTH, HEIGHT)
    assert pictures[5].data == np.rot90(PICTURE, -1).tobytes()  # turned, as its file would be
    assert pictures[6].data == PICTURE[:, ::-1].tobytes()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.zeros((4,), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (b"", "is empty"),
        (7, "must be a path"),
        (np.zeros((4000, 4000, 3), np.uint8), "32 MiB"),
    ],
)
def test_what_is_no_picture_is_refused(image: Any, message: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match=message) as caught:
        segment_sync("127.0.0.1:1", image, box=[0, 0, 1, 1])
    assert caught.value.violations[0].field == "image"


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        segment_sync("127.0.0.1:1", "/none/such.png", box=[0, 0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "point_coords"),
        ({"point_labels": [1]}, "point_coords"),
        ({"point_coords": [1, 2]}, "point_coords"),
        ({"point_coords": [[1, 2], [3]]}, "point_coords"),
        ({"point_coords": [[1, float("nan")]]}, "points[0]"),
        ({"point_coords": [[1, 2]], "point_labels": [7]}, "points[0].label"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 1]}, "points"),
        ({"box": [4, 4, 1, 1]}, "box"),
        ({"box": [1, 2, 3]}, "box"),
        ({"box": np.zeros((0, 4))}, "box"),
        ({"box": [[1, 2, 3, 4]] * 2, "point_coords": [[1, 2]]}, "point_coords"),
        ({"mask": np.zeros((4, 4))}, "mask"),
        ({"mask": np.ones((4, 4)), "box": [0, 0, 1, 1]}, "mask"),
        ({"mask_input": np.ones((4, 4), bool)}, "mask_input"),
        ({"mask_input": np.full((4, 4), np.inf)}, "mask_input"),
    ],
)
def test_wrong_prompts_are_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(masklet.InvalidArgument) as caught:
        segment_sync("127.0.0.1:1", PICTURE, **arguments)
    assert caught.value.violations[0].field == field


def test_large_picture_arrives_whole() -> None:
    buffer = io.BytesIO(np.random.default_rng(0).bytes(20 * 1024**2))
    with FakeServer() as server:
        segment_sync(server.address, buffer.getvalue(), box=[0, 0, 1, 1])
        assert len(server.pictures[0].picture.data) == 20 * 1024**2


def test_a_closed_client_says_so() -> None:
    client = masklet.Client("127.0.0.1:1")
    client.close()
    with pytest.raises(masklet.FailedPrecondition, match="closed"):
        client.info()
