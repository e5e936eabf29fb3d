from __future__ import annotations

import pytest
import torch

from training.config import Losses
from training.learning.forward import FrameOutput
from training.learning.losses import dice, focal, hard_iou, judge

SIZE = 32


def truth() -> torch.Tensor:
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    masks[0, 8:24, 8:24] = True
    masks[1, :16] = True
    return masks


def output(masks: torch.Tensor, *, ious: list[float], presence: float = 5.0) -> FrameOutput:
    """Sure of ``bool[B, M, S, S]``, drawn at a quarter of the size as the decoder does."""
    small = torch.nn.functional.interpolate(masks.float(), scale_factor=0.25, mode="area")
    count = len(masks)
    return FrameOutput(
        0,
        "point",
        (small * 20 - 10).requires_grad_(),
        torch.tensor([ious] * count),
        torch.full((count, 1), presence),
    )


def test_what_is_right_costs_nothing() -> None:
    judged = judge(output(truth()[:, None], ious=[1.0]), truth(), Losses())
    assert judged.loss.item() < 0.02
    assert judged.iou.tolist() == [1, 1]
    assert judged.right.all()
    assert judged.present.all()


def test_what_is_wrong_costs_and_has_a_gradient() -> None:
    said = output(~truth()[:, None], ious=[1.0])
    judged = judge(said, truth(), Losses())
    assert judged.loss.item() > 5
    assert judged.iou.tolist() == [0, 0]
    judged.loss.backward()  # type: ignore[no-untyped-call]
    assert said.logits.grad is not None
    assert said.logits.grad.abs().sum() > 0


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_only_the_best_of_three_counts_whatever_the_stride(stride: int) -> None:
    wrong = ~truth()[:, None]
    three = torch.cat([wrong, truth()[:, None], wrong], dim=1)
    said = output(three, ious=[0.0, 1.0, 0.0])
    judged = judge(said, truth(), Losses(stride=stride))
    assert judged.loss.item() < 0.2
    judged.loss.backward()  # type: ignore[no-untyped-call]
    assert said.logits.grad is not None
    assert said.logits.grad[:, 0].abs().sum() == 0
    assert said.logits.grad[:, 1].abs().sum() > 0


def test_the_mask_that_would_be_chosen_is_measured() -> None:
    three = torch.cat([~truth()[:, None], truth()[:, None]], dim=1)
    assert judge(output(three, ious=[0.9, 0.1]), truth(), Losses()).iou.tolist() == [0, 0]


def test_an_absent_object_has_no_mask_to_learn() -> None:
    nothing = torch.zeros_like(truth())
    said = output(truth()[:, None], ious=[1.0], presence=-5.0)
    judged = judge(said, nothing, Losses())
    assert judged.loss.item() < 0.02
    assert not judged.present.any()
    assert judged.right.all()
    assert judge(output(truth()[:, None], ious=[1.0]), nothing, Losses()).loss.item() > 4


def test_parts_of_the_loss() -> None:
    target = torch.tensor([[[[1.0, 0.0]]]])
    sure = torch.tensor([[[[10.0, -10.0]]]])
    assert focal(sure, target, 0.75).item() == pytest.approx(0, abs=1e-6)
    assert dice(sure, target).item() == pytest.approx(0, abs=1e-3)
    # With logits of 0: doubt 1/2, entropy log 2, mean balance 1/2.
    assert focal(torch.zeros_like(sure), target, 0.75).item() == pytest.approx(0.25 * 0.6931 * 0.5, abs=1e-4)
    assert dice(torch.zeros_like(sure), target).item() == pytest.approx(1 - 2 / 3)
    missed, extra = torch.tensor([[[[-3.0, -9.0]]]]), torch.tensor([[[[9.0, 3.0]]]])
    assert focal(missed, target, 0.75) > 2 * focal(extra, target, 0.75)
    assert hard_iou(extra, target).item() == 0.5
