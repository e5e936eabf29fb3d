"""Objects lifted out of their pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.training import small_cache
from training.data.cache import Cache
from training.samples.lifted import filled
from training.samples.scenes import SPRITE_NUMBER, SceneKind, SceneMaker

RED = np.array([255, 0, 0], np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return small_cache(tmp_path_factory.mktemp("lifted"), images=True)


def striped(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Rows of blue and green, nowhere red."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 1], picture[..., 2] = (np.arange(height) % 8 < 4)[:, None] * np.uint8(200), 100
    return picture


@pytest.mark.parametrize("left", [0, 20, 44])
def test_a_hole_shows_what_is_beside_it(left: int) -> None:
    expected = striped(48, 64)
    hole = np.zeros((48, 64), np.uint8)
    hole[10:40, left : left + 20] = 7
    picture = np.where(hole[..., None] > 0, RED, expected).astype(np.uint8)
    behind = filled(picture, hole)
    assert behind[hole > 0][:, 0].max() <= 1
    assert np.abs(behind.astype(int) - expected)[hole > 0].max() <= 1


def test_a_hole_as_wide_as_the_picture_is_blurred() -> None:
    hole = np.zeros((48, 64), np.uint8)
    hole[10:40] = 1
    picture = np.where(hole[..., None] > 0, RED, striped(48, 64)).astype(np.uint8)
    behind = filled(picture, hole)
    assert behind[20:30, :, 0].max() == 0
    assert 50 < behind[20:30, :, 1].mean() < 150


def test_far_from_a_hole_nothing_changes() -> None:
    picture, hole = striped(48, 64), np.zeros((48, 64), np.uint8)
    assert np.array_equal(filled(picture, hole), picture)
    hole[20:30, 20:30] = 1
    far = np.ones((48, 64), bool)
    far[10:40, 10:40] = False
    assert np.array_equal(filled(picture, hole)[far], picture[far])


def test_objects_begin_where_they_are_in_the_picture(cache: Cache) -> None:
    maker, overlaps = SceneMaker(cache, 128, 4), []
    for seed in range(20):
        kept = maker.draw(np.random.default_rng(seed), SceneKind.pictures)
        lifted = maker.draw(np.random.default_rng(seed), SceneKind.lifted)
        assert not lifted.backdrop.draw(128, 0, np.eye(3))[1].any()
        truth = kept.backdrop.draw(128, 0, np.eye(3))[1] == 1
        ids = np.zeros((128, 128), np.uint8)
        lifted.sprites[0].paste(np.zeros((128, 128, 3), np.uint8), ids, SPRITE_NUMBER, 0, np.eye(3))
        found = ids == SPRITE_NUMBER
        overlaps.append((truth & found).sum() / (truth | found).sum())
    assert np.median(overlaps) > 0.8  # they bend, and so does the picture


def test_objects_move_by_themselves(cache: Cache) -> None:
    scene = SceneMaker(cache, 128, 4).draw(np.random.default_rng(1), SceneKind.lifted)
    first, last = scene.sprites[0].path.position(0), scene.sprites[0].path.position(3)
    assert np.hypot(*(last - first)) > 0.01
    assert not np.allclose(scene.camera.position(3) - scene.camera.position(0), last - first)
