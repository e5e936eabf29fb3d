"""The image encoder gives the same as `SAM2Base.forward_image`."""

from __future__ import annotations

import copy

import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from masklet.errors import InvalidArgument
from masklet_server.engine.network.attention import Kernel, blocked, fused, unshifted
from masklet_server.engine.network.image_encoder import FastImageEncoder
from masklet_server.engine.network.onednn import FusedConv
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry

SIZE = 64


def model(name: str) -> SAM2Base:
    return build_model(Registry.load().get(name), image_size=SIZE, seed=None if name == "nano" else 5)


def picture(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(batch))


def upstream(network: SAM2Base, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode():
        fine0, fine1, top = network.forward_image(frames)["backbone_fpn"]
    return top, fine0, fine1


@pytest.mark.parametrize("name", ["sam2.1-tiny", "nano"])
def test_it_can_be_exact_to_the_bit(name: str) -> None:
    original = model(name)
    encoder = FastImageEncoder(copy.deepcopy(original), lambda **_: fused, exact=True)

    with torch.inference_mode():
        found = encoder(picture())

    for ours, theirs in zip(found, upstream(original, picture()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kernel", [fused, blocked, unshifted])
@pytest.mark.parametrize("name", ["sam2.1-tiny", "nano"])
def test_the_short_way_is_the_same_up_to_rounding(name: str, kernel: Kernel) -> None:
    original = model(name)
    encoder = FastImageEncoder(copy.deepcopy(original), lambda **_: kernel, exact=False)

    with torch.inference_mode():
        found = encoder(picture(2))

    for ours, theirs in zip(found, upstream(original, picture(2)), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_another_pyramid_is_refused() -> None:
    original = model("nano")
    original.image_encoder.neck.fpn_top_down_levels = [1, 2, 3]

    with pytest.raises(InvalidArgument, match="fpn_top_down_levels"):
        FastImageEncoder(original, lambda **_: fused, exact=True)


def test_nanos_trunk_is_clamped_within_its_convolutions() -> None:
    original = model("nano")
    encoder = FastImageEncoder(copy.deepcopy(original), lambda **_: fused, exact=False)
    fused_convolutions = sum(isinstance(part, FusedConv) for part in encoder.modules())
    assert fused_convolutions == 1 + 17 + 16, "the first block widens nothing"
    assert not any(isinstance(part, nn.ReLU6) for part in encoder.modules())

    with torch.inference_mode():
        found = encoder.to(torch.bfloat16)(picture(2).bfloat16())

    for ours, theirs in zip(found, upstream(original, picture(2)), strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.1, atol=0.05 * theirs.abs().max().item())
