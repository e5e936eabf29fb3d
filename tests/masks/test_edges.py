"""Edges of masks move to edges of colour; where there is no mask, or no edge of colour, nothing is made up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from masklet_server.masks.edges import guide_of
from masklet_server.masks.guided_on_cpu import CpuGuide
from masklet_server.masks.guided_on_device import DeviceGuide
from masklet_server.masks.runs import Runs

SIZE, GRID = 384, 96


def on_cpu(pixels: Tensor, grid: int) -> CpuGuide:
    return CpuGuide(pixels.numpy(), grid)


MakeGuide = Callable[[Tensor, int], CpuGuide | DeviceGuide]
both_ways = pytest.mark.parametrize("make_guide", [on_cpu, DeviceGuide], ids=["cpu", "device"])


def disc(radius: float = 90.0, center: tuple[float, float] = (190.0, 200.0)) -> Tensor:
    """``bool[S, S]``."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return torch.hypot(x - center[0], y - center[1]) < radius


def picture(mask: Tensor, noise: float = 6.0) -> Tensor:
    """``uint8[S, S, 3]``: an orange thing before something green, with a sensor's noise."""
    colours = torch.where(mask[..., None], torch.tensor([220.0, 130.0, 40.0]), torch.tensor([60.0, 120.0, 70.0]))
    noisy = colours + noise * torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    return noisy.clamp(0, 255).to(torch.uint8)


def coarse(mask: Tensor, cells: int = 24) -> Tensor:
    """``float32[1, 1, GRID, GRID]``: logits of the mask as a model would give them that sees but 24 x 24 cells."""
    share = F.avg_pool2d(mask.float()[None, None], SIZE // cells)
    blocks = (share > 0.5).float() * 12 - 6
    return F.interpolate(blocks, size=(GRID, GRID), mode="nearest")


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def enlarged(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0] > 0


@both_ways
def test_squares_become_the_thing_itself(make_guide: MakeGuide) -> None:
    truth = disc()
    logits = coarse(truth)
    refined = make_guide(picture(truth), GRID).refine(logits)
    assert refined.shape == (1, 1, SIZE, SIZE)
    before, after = iou(enlarged(logits), truth), iou(refined[0, 0] > 0, truth)
    assert before < 0.95
    assert after > 0.985


@both_ways
def test_without_an_edge_of_colour_a_mask_stays_where_it_is(make_guide: MakeGuide) -> None:
    truth = disc()
    logits = coarse(truth, cells=GRID)
    grey = torch.full((SIZE, SIZE, 3), 128, dtype=torch.uint8)
    refined = make_guide(grey, GRID).refine(logits)[0, 0] > 0
    assert iou(refined, enlarged(logits)) > 0.97


@pytest.mark.parametrize(("logit", "expected"), [(-8.0, False), (-1024.0, False), (8.0, True)])
@both_ways
def test_nothing_stays_nothing_and_everything_everything(make_guide: MakeGuide, logit: float, expected: bool) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    refined = make_guide(pixels, GRID).refine(torch.full((1, 1, GRID, GRID), logit)) > 0
    assert bool((refined == expected).all())


@pytest.mark.parametrize("tone", [(1.0, 1.0, 1.0), (1.0, 0.8, 0.6)], ids=["gray", "sepia"])
@pytest.mark.parametrize("contrast", [20.0, 220.0])
@pytest.mark.parametrize("noise", [0.0, 2.0])
@both_ways
def test_pictures_without_much_colour(
    make_guide: MakeGuide, tone: tuple[float, ...], contrast: float, noise: float
) -> None:
    """Their covariance has hardly an inverse."""
    truth = disc()
    gray = 20 + contrast * truth[..., None].float()
    noisy = gray * torch.tensor(tone) + noise * torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    refined = make_guide(noisy.round().clamp(0, 255).to(torch.uint8), GRID).refine(coarse(truth))
    assert torch.isfinite(refined).all()
    assert float(refined.abs().max()) < 2, "shares of a pixel lie about between 0 and 1"
    assert iou(refined[0, 0] > 0, truth) > 0.97


@both_ways
def test_masks_of_a_batch_are_those_of_each_alone(make_guide: MakeGuide) -> None:
    first, second = disc(), disc(50.0, (90.0, 80.0))
    guide = make_guide(picture(first | second), GRID)
    both = guide.refine(torch.cat([coarse(first), coarse(second)]))
    for i, mask in enumerate((first, second)):
        assert torch.allclose(both[i : i + 1], guide.refine(coarse(mask)), atol=1e-5)


@both_ways
def test_the_filter_is_that_of_the_paper(make_guide: MakeGuide) -> None:
    """Against its formulas written out for one window: a = (cov + eps)^-1 cov(I, p), b = mean(p) - a mean(I)."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (GRID, GRID, 3), dtype=torch.uint8, generator=generator)
    logits = torch.randn(1, 1, GRID, GRID, generator=generator)
    got = make_guide(pixels, GRID).refine(logits)[0, 0].double()  # the picture is no larger than the grid

    colours, share = pixels.double() / 255, torch.sigmoid(logits[0, 0].double())
    radius, epsilon = 4, 1e-5
    slopes, offsets = torch.zeros(GRID, GRID, 3, dtype=torch.double), torch.zeros(GRID, GRID, dtype=torch.double)
    for row in range(GRID):
        for column in range(GRID):
            window = np.s_[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
            i, p = colours[window].reshape(-1, 3), share[window].reshape(-1)
            covariance = torch.cov(i.T, correction=0) + epsilon * torch.eye(3, dtype=torch.double)
            slopes[row, column] = torch.linalg.solve(covariance, (i * p[:, None]).mean(0) - i.mean(0) * p.mean())
            offsets[row, column] = p.mean() - slopes[row, column] @ i.mean(0)
    for row, column in [(0, 0), (50, 40), (95, 3)]:
        window = np.s_[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
        slope, offset = slopes[window].reshape(-1, 3).mean(0), offsets[window].mean()
        assert got[row, column] == pytest.approx(float(slope @ colours[row, column] + offset - 0.5), abs=2e-3)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (1080, 1920), (481, 853), (384, 384), (90, 50)])
@pytest.mark.parametrize(("radius", "center"), [(30.0, (40.0, 330.0)), (90.0, (190.0, 200.0)), (500.0, (190.0, 200.0))])
def test_the_filter_around_the_mask_gives_the_masks_of_the_filter_everywhere(
    height: int, width: int, radius: float, center: tuple[float, float]
) -> None:
    truth = disc(radius, center)
    pixels, logits = picture(truth, noise=20.0), coarse(truth)
    logits = torch.cat([logits, torch.full_like(logits, -9.0)])
    got = guide_of(pixels, GRID).draw(logits, height, width)
    want = DeviceGuide(pixels, GRID).draw(logits, height, width)
    assert got.shape == want.shape == (2, height, width)
    assert got.dtype == torch.bool
    # Rounding decides a pixel now and then.
    assert int((got != want).sum()) <= 1e-4 * height * width
    assert want[0].any()
    assert not want[1].any()
    guide = CpuGuide(pixels.numpy(), GRID)
    for mask, one in zip(got, logits[:, 0], strict=True):
        assert np.array_equal(guide.runs(one, height, width).lengths, Runs.of(mask.numpy()).lengths)
