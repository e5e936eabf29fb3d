from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.training import small_cache
from training.data.cache import Cache, Pixels
from training.errors import TrainingError
from training.samples.__main__ import measure, sheet
from training.samples.dataset import ClipDataset, ClipRecipe, batches
from training.samples.effects import Effects
from training.samples.motion import Limbs, Warp
from training.samples.motion import Path as MotionPath
from training.samples.procedural import noise, shape, texture
from training.samples.scenes import SceneKind
from training.samples.sprites import Sprite, line_kernel, recoloured, shrunk

STILL = MotionPath(
    start=(0, 0),
    velocity=(0, 0),
    acceleration=(0, 0),
    sway=(0, 0),
    period=10,
    scale=0.5,
    growth=0,
    aspect=1,
    squash=0,
    degrees=0,
    spin=0,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return small_cache(tmp_path_factory.mktemp("samples"), images=True)


def dataset(cache: Cache, *, frames: int = 4, mix: Mapping[SceneKind, float] | None = None) -> ClipDataset:
    recipe = ClipRecipe(size=64, frames=frames) if mix is None else ClipRecipe(size=64, frames=frames, mix=mix)
    return ClipDataset(cache, recipe, (7, 1), 64)


@pytest.mark.parametrize("kind", list(SceneKind))
def test_clips_of_each_kind(cache: Cache, kind: SceneKind) -> None:
    clips = [dataset(cache, mix={kind: 1}).clip(index) for index in range(12)]
    for frames, (mask,) in clips:
        assert frames.shape == (4, 64, 64, 3)
        assert frames.dtype == np.uint8
        assert mask.shape == (4, 64, 64)
        assert mask.dtype == np.bool_
        assert mask[0].mean() >= 0.003  # a prompt has something to point at
    moved = [not np.array_equal(mask[0], mask[-1]) for _, (mask,) in clips]
    assert sum(moved) >= 10
    assert len({frames.tobytes() for frames, _ in clips}) == 12


def test_a_clip_is_a_function_of_seed_and_number(cache: Cache) -> None:
    first, again = dataset(cache), dataset(cache)
    again.clip(0)  # order does not matter
    for one, other in zip(first.clip(5), again.clip(5), strict=True):
        assert np.array_equal(one, other)
    other_seed = ClipDataset(cache, ClipRecipe(size=64, frames=4), (8, 1), 64)
    assert not np.array_equal(other_seed.clip(5)[0], first.clip(5)[0])


def test_objects_leave_and_come_back(cache: Cache) -> None:
    masks = [dataset(cache, frames=8).clip(index)[1][0] for index in range(64)]
    there = [[bool(frame.any()) for frame in mask] for mask in masks]
    assert any(not all(flags) for flags in there)
    assert any(flags[-1] and not all(flags) for flags in there)


@pytest.mark.parametrize("kind", list(SceneKind))
def test_objects_are_away_as_often_as_asked(cache: Cache, kind: SceneKind) -> None:
    recipes = [ClipRecipe(64, 8, {kind: 1}, absence=part) for part in (0.0, 1.0)]
    never, always = ([ClipDataset(cache, one, (7, 1), 64).clip(index) for index in range(24)] for one in recipes)
    for frames, (mask,) in always:
        assert frames.shape == (8, 64, 64, 3)
        assert mask[0].any()
        assert not mask[1:].any(axis=(1, 2)).all(), "away on some frame"
    assert sum(mask[-1].any() for _, (mask,) in always) >= 3, "some come back"
    assert np.mean([mask.any(axis=(1, 2)).mean() for _, (mask,) in never]) > 0.8


@pytest.mark.parametrize("kind", list(SceneKind))
def test_several_objects_of_a_clip(cache: Cache, kind: SceneKind) -> None:
    recipe = ClipRecipe(size=64, frames=3, mix={kind: 1}, objects=3)
    clips = [ClipDataset(cache, recipe, (7, 1), 64).clip(index) for index in range(24)]
    different = []
    for frames, masks in clips:
        assert frames.shape == (3, 64, 64, 3)
        assert masks.shape == (3, 3, 64, 64)
        assert masks[:, 0].any(axis=(1, 2)).all(), "each is there in the first frame"
        one, other = masks[0], masks[1]
        assert np.array_equal(one, other) or not (one & other).any(), "objects do not share pixels"
        different.append(len({mask.tobytes() for mask in masks}))
    assert max(different) > 1


def test_a_cache_without_pictures_is_good_for_procedural_clips(tmp_path: Path) -> None:
    bare = small_cache(tmp_path, images=False)
    frames, mask = dataset(bare, frames=1).clip(0)
    assert frames.shape == (1, 64, 64, 3)
    assert mask.any()
    with pytest.raises(TrainingError, match="holds nothing for a mix"):
        dataset(bare, mix={SceneKind.pictures: 1.0})


@pytest.mark.slow
def test_batches_are_the_same_with_workers_and_from_the_middle(cache: Cache) -> None:
    alone = list(batches(dataset(cache), 16))
    shared = list(batches(dataset(cache), 16, workers=2))
    later = list(batches(dataset(cache), 16, start=3))
    assert len(alone) == len(shared) == 4
    assert len(later) == 1
    for (frames, mask), (other_frames, other_mask) in zip([*alone, alone[3]], [*shared, later[0]], strict=True):
        assert frames.shape == (16, 4, 64, 64, 3)
        assert mask.shape == (16, 1, 4, 64, 64)
        assert torch.equal(frames, other_frames)
        assert torch.equal(mask, other_mask)


def test_the_measuring_command(cache: Cache) -> None:
    assert measure(dataset(cache), batch=16, workers=0) > 0
    assert sheet(dataset(cache), 2).shape == (128, 256, 3)


def test_procedural_things() -> None:
    rng = np.random.default_rng(0)
    cloud = noise(rng, 32, 4)
    assert cloud.shape == (32, 32)
    assert cloud.min() == 0
    assert cloud.max() == pytest.approx(1, abs=1e-4)
    textures = [texture(rng, 32) for _ in range(30)]
    assert all(item.shape == (32, 32, 3) and item.dtype == np.uint8 for item in textures)
    assert len({item.tobytes() for item in textures}) == 30
    for outline in [shape(rng, 48) for _ in range(60)]:
        assert outline.shape == (48, 48)
        assert 0.005 < (outline > 127).mean() < 0.9


def square(size: int = 40) -> Pixels:
    return np.full((size, size, 4), (200, 100, 50, 255), np.uint8)


def paste(sprite: Sprite, t: int = 0, size: int = 80) -> tuple[Pixels, Pixels]:
    frame, ids = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    sprite.paste(frame, ids, 3, t, np.eye(3))
    return frame, ids


def test_a_sprite_is_pasted_where_its_path_says() -> None:
    frame, ids = paste(Sprite(square(), STILL))
    expected = np.zeros((80, 80), np.uint8)
    expected[20:60, 20:60] = 3
    assert np.array_equal(ids, expected)
    assert (frame[25:55, 25:55] == (200, 100, 50)).all()
    assert not frame[:18].any()


def test_warps_bend_outlines_and_limbs_cut_them() -> None:
    rng = np.random.default_rng(1)
    _, plain = paste(Sprite(square(), STILL))
    warped = Sprite(square(), STILL, warp=Warp.draw(rng, 0.05))
    _, bent = paste(warped)
    overlap = (plain & bent > 0).sum() / (plain | bent > 0).sum()
    assert 0.6 < overlap < 0.99
    assert not np.array_equal(bent, paste(warped, t=3)[1])
    figure = Sprite(square(), STILL, limbs=Limbs.draw(rng))
    _, first = paste(figure)
    assert 0.05 < (first > 0).sum() / (plain > 0).sum() < 0.8
    assert not np.array_equal(first, paste(figure, t=3)[1])


def test_a_sprite_that_is_gone_or_outside_leaves_no_trace() -> None:
    from dataclasses import replace

    gone = Sprite(square(), STILL, gone=(1, 3))
    assert [bool(paste(gone, t)[1].any()) for t in range(4)] == [True, False, False, True]
    assert not paste(Sprite(square(), replace(STILL, start=(3, 0))))[0].any()


def test_motion_blur_is_along_the_motion() -> None:
    assert line_kernel(np.array([0.5, 0.5])) is None
    kernel = line_kernel(np.array([8.0, 0.0]))
    assert kernel is not None
    assert kernel.sum() == pytest.approx(1)
    middle = kernel.shape[0] // 2
    assert (kernel[middle] > 0).sum() >= 8
    assert not np.delete(kernel, middle, axis=0).any()


def test_a_path_may_go_away_and_return() -> None:
    path = MotionPath.draw(np.random.default_rng(0), 9, scale=0.3, centre=(0.1, 0.2), pace=0, returns=True)
    assert path.position(0) == pytest.approx((0.1, 0.2))
    assert path.position(8) == pytest.approx((0.1, 0.2))
    assert np.hypot(*(path.position(4) - path.position(0))) > 0.5


def test_colours_and_sizes() -> None:
    rng = np.random.default_rng(0)
    changed = recoloured(rng, square())
    assert changed.shape == (40, 40, 4)
    assert (changed[..., 3] == 255).all()
    assert not np.array_equal(changed, square())
    assert shrunk(square(), 20).shape == (20, 20, 4)
    assert shrunk(square(), 100).shape == (40, 40, 4)


def test_effects() -> None:
    rng = np.random.default_rng(0)
    frame = texture(rng, 32)
    assert np.array_equal(Effects().apply(rng, frame, 3), frame)
    darker = Effects(gain=0.5).apply(rng, frame, 0)
    assert darker.mean() == pytest.approx(frame.mean() / 2, abs=1)
    for effects in (Effects(softness=1.0), Effects(grain=8), Effects(quality=30), Effects(drift=-0.1)):
        changed = effects.apply(rng, frame, 2)
        assert changed.shape == frame.shape
        assert not np.array_equal(changed, frame)


def test_shares_of_batches_make_up_the_whole(cache: Cache) -> None:
    whole = list(batches(dataset(cache), 16, start=1))
    parts = [list(batches(dataset(cache), 16, start=1, part=(number, 8))) for number in range(2)]
    for (frames, masks), *shares in zip(whole, *parts, strict=True):
        assert torch.equal(frames, torch.cat([share[0] for share in shares]))
        assert torch.equal(masks, torch.cat([share[1] for share in shares]))
