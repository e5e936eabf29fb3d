"""SegmentImage's masks are SAM2ImagePredictor's."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masklet_server.engine.serving.image_predictor import encode_picture, segment
from masklet_server.engine.serving.picture_jobs import PicturePrompt
from tests.parity.harness import networks
from tests.support import synthetic

HEIGHT, WIDTH = 150, 220
X, Y = synthetic.BLOBS[0].center(0, HEIGHT, WIDTH)
BOX = [X - 30, Y - 28, X + 30, Y + 28]
PROMPTS: dict[str, dict[str, Any]] = {
    "point": {"point_coords": [[X, Y]], "point_labels": [1]},
    "points": {"point_coords": [[X, Y], [X + 9, Y], [4, 4]], "point_labels": [1, 1, 0]},
    "box": {"box": BOX},
    "box-and-point": {"box": BOX, "point_coords": [[X, Y]], "point_labels": [1]},
}


class _Resize(nn.Module):
    """torchvision.transforms.Resize on a tensor: bilinear with antialiasing."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        size = [self.size[0], self.size[1]]
        return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


class _Normalize(nn.Module):
    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        return (image - self.mean) / self.std


class _ToTensor:
    def __call__(self, image: Any) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def predictor_class() -> Iterator[Any]:
    """Upstream's class. The three transforms it takes from torchvision, which need not be installed, are given here."""
    package, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    vars(transforms).update(Normalize=_Normalize, Resize=_Resize, ToTensor=_ToTensor)
    vars(package).update(transforms=transforms)
    stand_ins = {"torchvision": package, "torchvision.transforms": transforms}
    with pytest.MonkeyPatch.context() as patch:
        # One by one: `mock.patch.dict` would also forget every module that is imported meanwhile, masklet's too.
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(torch.jit, "script", lambda module: module)
        yield importlib.import_module("sam2.sam2_image_predictor").SAM2ImagePredictor


def set_up(predictor_class: Any, reference: Any, picture: synthetic.Image) -> Any:
    """Upstream's predictor with its picture encoded."""
    predictor = of_its_size(predictor_class(reference))
    predictor.set_image(picture)
    return predictor


def of_its_size(predictor: Any) -> Any:
    """Upstream's predictor, told of the size of its model: it takes every model for one of 1024 pixels."""
    sizes = [(predictor.model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    predictor._bb_feat_sizes = sizes  # noqa: SLF001 - upstream has no other way to tell it
    return predictor


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("model", ["nano", "sam2.1-tiny"])
def test_masks_scores_and_logits(predictor_class: Any, model: str, kind: str, multimask: bool) -> None:
    network, reference = networks(model)
    picture = synthetic.frame(0, HEIGHT, WIDTH)
    predictor = set_up(predictor_class, reference, picture)
    arguments = {key: np.asarray(value, np.float32) for key, value in PROMPTS[kind].items()}
    masks, scores, logits = predictor.predict(**arguments, multimask_output=multimask)
    order = np.argsort(-scores, kind="stable")

    encoded = encode_picture(network, picture)
    (ours,) = segment(network, encoded, [PicturePrompt(**PROMPTS[kind])], multimask=multimask)

    assert len(ours) == len(scores) == (3 if multimask else 1)
    for rank, candidate in zip(order, ours, strict=True):
        assert candidate.predicted_iou == pytest.approx(scores[rank], abs=1e-5)
        # Upstream clamps them as it gives them, masklet as it takes them back.
        np.testing.assert_allclose(candidate.logits.clip(-32, 32), logits[rank], atol=1e-3)
        assert (candidate.mask == masks[rank].astype(bool)).mean() >= 0.9999

    again, _, _ = predictor.predict(**arguments, mask_input=logits[order[0]][None], multimask_output=False)
    prompt = PicturePrompt(**PROMPTS[kind], mask_input=ours[0].logits)
    ((refined,),) = segment(network, encoded, [prompt], multimask=False)
    assert (refined.mask == again[0].astype(bool)).mean() >= 0.9999


@pytest.mark.fast
def test_many_boxes_at_once_are_the_boxes_one_by_one(predictor_class: Any) -> None:
    network, reference = networks("nano")
    picture = synthetic.frame(0, HEIGHT, WIDTH)
    predictor = set_up(predictor_class, reference, picture)
    boxes = np.array([[x, y, x + 60, y + 50] for x in range(0, 160, 20) for y in range(0, 100, 20)], np.float32)
    masks, scores, _ = predictor.predict(box=boxes, multimask_output=False)
    results = segment(
        network, encode_picture(network, picture), [PicturePrompt(box=box) for box in boxes], multimask=False
    )
    assert len(results) == len(boxes) > 32, "more than one pass"
    for theirs, score, (ours,) in zip(masks, scores, results, strict=True):
        assert ours.predicted_iou == pytest.approx(score.item(), abs=1e-4)
        assert (ours.mask == theirs[0].astype(bool)).mean() >= 0.9999
