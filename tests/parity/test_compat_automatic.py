"""sam2's own automatic mask generator in process, and masklet's over a real server with equal weights."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import masklet
from masklet.compat import SAM2AutomaticMaskGenerator, SAM2Model, SAM2VideoPredictor
from tests.parity.harness import networks
from tests.parity.test_image_predictor import HEIGHT, WIDTH, of_its_size, predictor_class
from tests.support import synthetic
from tests.support.compat import serving

__all__ = ["predictor_class"]  # the fixture

PICTURE = synthetic.frame(0, HEIGHT, WIDTH)
# nano's masks are less sure of themselves than those of SAM 2's own models, for which sam2's defaults are made.
LOOSE: dict[str, Any] = {"points_per_side": 8, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.7}


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """torchvision's, which need not be installed: one pair of boxes at a time."""
    assert not idxs.any()
    kept: list[int] = []
    for index in torch.sort(scores, descending=True, stable=True).indices.tolist():
        for other in kept:
            low, high = (
                torch.maximum(boxes[index, :2], boxes[other, :2]),
                torch.minimum(boxes[index, 2:], boxes[other, 2:]),
            )
            shared = (high - low).clamp(min=0).prod()
            if shared / (box_area(boxes[[index, other]]).sum() - shared) > iou_threshold:
                break
        else:
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


def box_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def get_connected_componnets(masks: Tensor) -> tuple[Tensor, Tensor]:
    """What sam2's CUDA extension computes, under the name that it has there."""
    labels, areas = torch.zeros(masks.shape, dtype=torch.int32), torch.zeros(masks.shape, dtype=torch.int32)
    for index, mask in enumerate(masks[:, 0].numpy()):
        _, found, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        stats[0, cv2.CC_STAT_AREA] = 0
        labels[index, 0] = torch.from_numpy(found)
        areas[index, 0] = torch.from_numpy(stats[:, cv2.CC_STAT_AREA][found])
    return labels, areas


@pytest.fixture(scope="module")
def generator_class(predictor_class: Any) -> Iterator[Any]:
    """Upstream's class. What it takes from torchvision, and from its CUDA extension, is given here."""
    import sam2

    boxes, extension = types.ModuleType("torchvision.ops.boxes"), types.ModuleType("sam2._C")
    vars(boxes).update(batched_nms=batched_nms, box_area=box_area)
    vars(extension).update(get_connected_componnets=get_connected_componnets)
    modules = {"torchvision.ops": types.ModuleType("torchvision.ops"), "torchvision.ops.boxes": boxes}
    with pytest.MonkeyPatch.context() as patch:
        # One by one: `mock.patch.dict` would also forget every module that is imported meanwhile, masklet's too.
        for name, module in {**modules, "sam2._C": extension}.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(sam2, "_C", extension, raising=False)
        yield importlib.import_module("sam2.automatic_mask_generator").SAM2AutomaticMaskGenerator


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(networks("nano")[0], max_objects=16) as running:
        yield running


def both(generator_class: Any, address: str, picture: synthetic.Image, **options: Any) -> tuple[list[Any], list[Any]]:
    theirs = generator_class(networks("nano")[1], **options)
    of_its_size(theirs.predictor)
    with masklet.Client(address) as client:
        return theirs.generate(picture), SAM2AutomaticMaskGenerator(client, **options).generate(picture)


def mask_of(segmentation: Any) -> Any:
    """``bool[H, W]``, whichever form it has."""
    if not isinstance(segmentation, dict):
        return segmentation
    if isinstance(segmentation["counts"], str):
        return masklet.decode_rle(segmentation)  # type: ignore[arg-type]
    return importlib.import_module("sam2.utils.amg").rle_to_mask(segmentation)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({}, 5),
        ({"output_mode": "uncompressed_rle", "points_per_batch": 5}, 5),
        ({"output_mode": "coco_rle", "multimask_output": False, "stability_score_offset": 0.5}, 3),
        ({"crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "box_nms_thresh": 0.5}, 8),
        ({"min_mask_region_area": 30, "mask_threshold": 0.25, "stability_score_thresh": 0.0}, 5),
        ({"use_m2m": True}, 5),
        ({"points_per_side": None, "point_grids": [np.array([[0.3, 0.4], [0.7, 0.6], [0.5, 0.1]])]}, 1),
    ],
    ids=lambda value: "-".join(value) or "plain" if isinstance(value, dict) else "",
)
def test_the_same_masks(generator_class: Any, address: str, options: dict[str, Any], least: int) -> None:
    theirs, ours = both(generator_class, address, PICTURE, **{**LOOSE, **options})
    assert len(theirs) >= least
    assert len(ours) == len(theirs)
    for expected, found in zip(theirs, ours, strict=True):
        assert found.keys() == expected.keys()
        assert type(found["segmentation"]) is type(expected["segmentation"])
        if isinstance(found["segmentation"], dict):
            assert found["segmentation"]["size"] == expected["segmentation"]["size"]
            assert type(found["segmentation"]["counts"]) is type(expected["segmentation"]["counts"])
        mask, expected_mask = mask_of(found["segmentation"]), mask_of(expected["segmentation"])
        assert (mask == expected_mask).mean() >= 0.9999
        assert found["area"] == mask.sum()
        assert abs(found["area"] - expected["area"]) <= 1e-4 * mask.size
        np.testing.assert_allclose(found["bbox"], expected["bbox"], atol=1)
        np.testing.assert_allclose(found["point_coords"], expected["point_coords"], atol=1e-4)
        assert found["crop_box"] == expected["crop_box"]
        assert found["predicted_iou"] == pytest.approx(expected["predicted_iou"], abs=1e-4)
        assert found["stability_score"] == pytest.approx(expected["stability_score"], abs=1e-3, nan_ok=True)


def test_nothing_is_found_where_no_mask_is_good_enough(generator_class: Any, address: str) -> None:
    assert both(generator_class, address, PICTURE, points_per_side=2, stability_score_thresh=2.0) == ([], [])


def test_it_takes_what_sam2_takes(generator_class: Any, address: str) -> None:
    ours, theirs = (inspect.signature(cls).parameters for cls in (SAM2AutomaticMaskGenerator, generator_class))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    with masklet.Client(address) as client:
        for model in (SAM2Model(client), SAM2VideoPredictor(client)):
            found = SAM2AutomaticMaskGenerator(model, **LOOSE, box_nms_thresh=0.1).generate(PICTURE)
            assert found
            assert all(record["segmentation"].shape == (HEIGHT, WIDTH) for record in found)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="Exactly one of points_per_side"):
        SAM2AutomaticMaskGenerator("127.0.0.1:1", point_grids=[[[0.5, 0.5]]])
    with pytest.raises(ValueError, match="output_mode is 'png', must be one of binary_mask"):
        SAM2AutomaticMaskGenerator("127.0.0.1:1", output_mode="png")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has 1 grids, must have 2"):
        SAM2AutomaticMaskGenerator("127.0.0.1:1", points_per_side=None, point_grids=[[[0.5, 0.5]]], crop_n_layers=1)
    with pytest.warns(UserWarning, match="no arguments stability; they change nothing"):
        SAM2AutomaticMaskGenerator("127.0.0.1:1", stability=3)
