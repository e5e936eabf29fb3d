"""One script with sam2's image predictor in process, and with masklet's over a real server with equal weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import masklet
from masklet.compat import SAM2ImagePredictor
from masklet_server.engine.serving.image_predictor import encode_picture
from tests.parity.harness import networks
from tests.parity.test_image_predictor import BOX, HEIGHT, WIDTH, X, Y, of_its_size, predictor_class
from tests.support import synthetic
from tests.support.compat import serving

__all__ = ["predictor_class"]  # the fixture

PICTURE = synthetic.frame(0, HEIGHT, WIDTH)
OTHER = synthetic.frame(5, 90, 130)
BOXES = np.array([BOX, [100, 60, 160, 110], [80, 90, 150, 140]], np.float32)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(networks("nano")[0], max_objects=2) as running:
        yield running


@pytest.fixture
def ours(address: str) -> Iterator[SAM2ImagePredictor]:
    with masklet.Client(address) as client:
        yield SAM2ImagePredictor(client)


@pytest.fixture
def theirs(predictor_class: Any) -> Any:
    return of_its_size(predictor_class(networks("nano")[1]))


def script(predictor: Any) -> Iterator[tuple[str, Any]]:
    """Everything a program asks of an image predictor, and each answer."""
    point = {"point_coords": np.array([[X, Y]]), "point_labels": np.array([1])}
    predictor.set_image(PICTURE)
    yield "three candidates", predictor.predict(**point)
    yield "one", predictor.predict(**point, multimask_output=False)
    yield "logits", predictor.predict(**point, return_logits=True)
    masks, scores, low = predictor.predict(box=np.array(BOX), point_coords=[[X, Y], [4, 4]], point_labels=[1, 0])
    yield "a box and points", (masks, scores, low)
    best = int(np.argmax(scores))
    yield "refined", predictor.predict(**point, mask_input=low[best][None], multimask_output=False)
    yield "boxes", predictor.predict(box=BOXES, multimask_output=False)
    yield "boxes, three candidates each", predictor.predict(box=BOXES)
    yield "boxes, logits", predictor.predict(box=BOXES, multimask_output=False, return_logits=True)
    parts = np.array([[X / WIDTH, Y / HEIGHT]])
    yield "a point in parts", predictor.predict(point_coords=parts, point_labels=[1], normalize_coords=False)
    corners = np.array(BOX) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    yield "a box in parts", predictor.predict(box=corners, normalize_coords=False)

    predictor.set_image(Image.fromarray(OTHER))
    yield "a Pillow image", predictor.predict(box=np.array([20, 20, 70, 60]))

    predictor.set_image_batch([PICTURE, OTHER])
    points, labels = [np.array([[X, Y]]), np.array([[40, 36]])], [np.array([1]), np.array([1])]
    for kind, answers in zip(("masks", "scores", "logits"), predictor.predict_batch(points, labels), strict=True):
        yield f"a batch's {kind}", answers
    for kind, answers in zip(
        ("masks", "scores", "logits"),
        predictor.predict_batch(box_batch=[BOXES, BOXES[0] / 2], multimask_output=False, return_logits=True),
        strict=True,
    ):
        yield f"a batch of boxes' {kind}", answers

    predictor.reset_predictor()
    with pytest.raises(RuntimeError, match="An image must be set"):
        predictor.predict(**point)


def test_the_script_gives_the_same_with_either(ours: SAM2ImagePredictor, theirs: Any) -> None:
    compared = 0
    for (what, expected), (_, found) in zip(script(theirs), script(ours), strict=True):
        assert len(expected) == len(found), what
        for theirs_array, ours_array in zip(expected, found, strict=True):
            assert ours_array.shape == theirs_array.shape, what
            assert ours_array.dtype == theirs_array.dtype == np.float32, what
            assert ((ours_array > 0) == (theirs_array > 0)).mean() >= 0.9999, what
            if not set(np.unique(theirs_array)) <= {0.0, 1.0}:
                np.testing.assert_allclose(ours_array, theirs_array, atol=1e-3, err_msg=what)
            compared += 1
    assert compared == 45


def test_a_threshold(address: str, theirs: Any) -> None:
    with masklet.Client(address) as client:
        ours = SAM2ImagePredictor(client, mask_threshold=1.5)
        theirs.mask_threshold = 1.5
        for predictor in (ours, theirs):
            predictor.set_image(PICTURE)
        masks, expected = (p.predict(box=np.array(BOX))[0] for p in (ours, theirs))
    assert (masks == expected).mean() >= 0.9999


def test_a_picture_that_the_server_has_let_go_is_sent_again() -> None:
    network = networks("nano")[0]
    one_picture = encode_picture(network, PICTURE).nbytes
    with (
        serving(network, max_objects=2, picture_cache_bytes=one_picture) as address,
        masklet.Client(address) as client,
        mock.patch.object(client, "segment", wraps=client.segment) as segment,
    ):
        ours = SAM2ImagePredictor(client)
        ours.set_image(PICTURE)
        expected, _, _ = ours.predict(box=np.array(BOX))
        client.segment(OTHER, box=[20, 20, 70, 60])  # takes its place
        segment.reset_mock()
        for _ in range(2):
            found, _, _ = ours.predict(box=np.array(BOX))
            np.testing.assert_array_equal(found, expected)
        sent = [type(call.args[0]) for call in segment.call_args_list]
    assert sent == [masklet.ImageId, np.ndarray, masklet.ImageId], "named in vain, sent, and named again"


def test_painting_in_a_picture_that_was_set_changes_nothing(ours: SAM2ImagePredictor) -> None:
    ours.set_image(PICTURE)
    expected, _, _ = ours.predict(box=np.array(BOX))
    picture = PICTURE.copy()
    ours.set_image(picture)
    picture[:] = 0
    found, _, _ = ours.predict(box=np.array(BOX))
    np.testing.assert_array_equal(found, expected)


def test_what_it_says_of_itself(ours: SAM2ImagePredictor) -> None:
    assert ours.model.name == "nano"
    assert ours.model.image_size == 128
    assert ours.device.type == "cpu"
    with pytest.raises(NotImplementedError, match="stay on the server"):
        ours.get_image_embedding()
    with pytest.raises(masklet.NotFound, match="'huge'"):
        _ = SAM2ImagePredictor(ours.client, model="huge").model.image_size


def test_what_it_refuses(ours: SAM2ImagePredictor) -> None:
    ours.set_image(PICTURE)
    with pytest.raises(ValueError, match="point_labels must be supplied"):
        ours.predict(point_coords=[[X, Y]])
    with pytest.raises(masklet.InvalidArgument, match="there is no prompt"):
        ours.predict()
    with pytest.raises(masklet.InvalidArgument, match="uint8"):
        ours.set_image(PICTURE.astype(np.int64))
    with pytest.raises(RuntimeError, match="set_image_batch"):
        ours.predict_batch()
