"""Pictures, the whole way, with nano."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import masklet
from tests.support import synthetic
from tests.support.e2e import HEIGHT, WIDTH, box, candidates_alone, center, frames, truth

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("multimask", [True, False])
def test_points(client: masklet.Client, multimask: bool) -> None:
    masks, scores, logits = client.segment(
        frames()[0], point_coords=[center(0)], point_labels=[1], multimask_output=multimask
    )
    assert masks is not None
    assert scores is not None
    assert logits is not None
    count = 3 if multimask else 1
    assert masks.shape == (count, HEIGHT, WIDTH)
    assert masks.dtype == bool
    assert scores.shape == (count,)
    assert logits.shape == (count, 96, 96)
    assert list(scores) == sorted(scores, reverse=True)


@pytest.mark.parametrize("blob", [0, 1])
def test_a_mask_has_its_say(client: masklet.Client, blob: int) -> None:
    """The answer is the network's own when it begins with this mask's logits; with any others it is another one.

    How good it is, is the model's affair; that it is SAM 2's, parity/test_image_predictor.py makes sure of.
    """
    mask = truth(blob)
    found = client.segment(frames()[0], mask=mask, return_logits=True)
    logits, scores = candidates_alone(mask)
    assert found.logits is not None
    np.testing.assert_allclose(found.logits, logits, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    for other in (truth(1 - blob), ~mask, mask[:, ::-1], mask[::-1], None):
        assert np.abs(candidates_alone(other)[0] - found.logits).max() > 0.1


def test_boxes_of_a_detector_give_a_mask_each(client: masklet.Client) -> None:
    found = client.segment(frames()[0], box=[box(0), box(1), box(2)], multimask_output=False)
    assert found.masks.shape == (3, 1, HEIGHT, WIDTH)
    for blob in range(3):
        alone = client.segment(frames()[0], box=box(blob), multimask_output=False)
        assert synthetic.iou(alone.masks[0], found.masks[blob, 0]) > 0.99


def test_the_same_picture_again_by_its_id(client: masklet.Client) -> None:
    first = client.segment(frames()[0], point_coords=[center(0)])
    again = client.segment(first, point_coords=[center(0)])
    np.testing.assert_array_equal(first.masks, again.masks)
    assert first.image_id == again.image_id


def test_logits_refine(client: masklet.Client) -> None:
    first = client.segment(frames()[0], box=box(0))
    assert first.logits is not None
    refined = client.segment(first, point_coords=[center(0)], mask_input=first.logits[:1], multimask_output=False)
    assert refined.masks.shape == (1, HEIGHT, WIDTH)


def test_a_jpeg_with_orientation(client: masklet.Client) -> None:
    upright = Image.fromarray(frames()[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be shown
    turned = io.BytesIO()
    upright.rotate(90, expand=True).save(turned, "JPEG", quality=95, exif=exif)
    found = client.segment(turned.getvalue(), mask=truth(0), multimask_output=False)
    assert found.masks.shape == (1, HEIGHT, WIDTH)


def test_a_picture_that_is_none(client: masklet.Client) -> None:
    with pytest.raises((masklet.DataLoss, masklet.InvalidArgument)):
        client.segment(b"no picture at all" * 100, point_coords=[[1, 1]])


def test_a_picture_that_the_server_has_let_go(client: masklet.Client) -> None:
    with pytest.raises(masklet.NotFound, match="send the picture itself"):
        client.segment(masklet.ImageId("0" * 32), point_coords=[[1, 1]])


def test_a_point_outside(client: masklet.Client) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"prompts\[0\].points\[0\]") as caught:
        client.segment(frames()[0], point_coords=[[5000, 1]])
    assert caught.value.violations[0].field == "prompts[0].points[0]"


def test_an_unknown_model(client: masklet.Client) -> None:
    with pytest.raises(masklet.NotFound, match="'huge'"):
        client.segment(frames()[0], point_coords=[[1, 1]], model="huge")


def test_info(client: masklet.Client) -> None:
    info = client.info()
    assert info.device == "cpu"
    assert {"torch", "sam2", "av"} <= set(info.versions)
    nano = next(model for model in info.models if model.name == "nano")
    assert nano.loaded
    assert nano.image_size == 384
