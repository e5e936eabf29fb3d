from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.training import small_cache, write_videos
from training.data.cache import Cache, Video
from training.data.videos import find_videos
from training.errors import TrainingError
from training.prepare import HELD_OUT, build_cache, read_held_out
from training.samples.dataset import ClipDataset, ClipRecipe
from training.samples.film import Film, choose, crop, stretched
from training.samples.scenes import SceneKind, SceneMaker


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return small_cache(tmp_path_factory.mktemp("film"), images=True)


def film(cache: Cache) -> Film:
    """All of the first video's first four frames, in their own colours but for the tint."""
    base = stretched(128, 72, (64, 36))
    return Film(cache.frames, cache.masks, (0, 1, 2, 3), base, tint=0)


def test_videos_lie_one_after_the_other(cache: Cache) -> None:
    assert cache.videos == (Video("left", 0, 6), Video("right", 6, 9))
    assert len(cache.frames) == len(cache.masks) == 15
    assert cache.frames[0].shape == (72, 128, 3)  # at most 128 pixels wide
    assert [bool(mask.any()) for mask in cache.masks] == [True] * 5 + [False] + [True] * 9
    assert cache.frames[0][cache.masks[0] > 0].mean() > 120 > cache.frames[0][cache.masks[0] == 0].mean()


def test_what_is_held_out_is_not_in_the_cache(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "films")
    built = build_cache(
        tmp_path / "cache", None, videos=videos, held_out=frozenset({"films/left"}), texture_count=2, shape_count=2
    )
    assert [video.name for video in built.videos] == ["right"]
    assert len(built.frames) == 9


def test_the_list_of_what_is_held_out() -> None:
    names = read_held_out(HELD_OUT)
    assert sum(name.startswith("coco_mini/") for name in names) == 200
    assert "davis_train/boat" in names
    assert len(names) == 207


def test_folders_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has no SEQUENCE/frames"):
        find_videos(tmp_path)
    videos = write_videos(tmp_path / "films")
    (videos / "right" / "masks" / "00003.png").unlink()
    with pytest.raises(TrainingError, match=r"one \.png for each \.jpg"):
        find_videos(videos)


def test_frames_of_a_clip_are_of_one_video_and_in_order(cache: Cache) -> None:
    rng, strides = np.random.default_rng(0), set()
    for _ in range(200):
        numbers = choose(rng, cache.videos, 4)
        assert any(video.first <= min(numbers) <= max(numbers) < video.first + video.count for video in cache.videos)
        steps = set(np.diff(numbers).tolist())
        assert len(steps) == 1
        strides |= steps
    assert strides == {0, 1, 2}  # nine frames have room for four with two between


def test_a_video_shorter_than_the_clip_stays_on_its_last_frame() -> None:
    numbers = {choose(np.random.default_rng(seed), (Video("short", 5, 2),), 4) for seed in range(30)}
    assert numbers == {(5, 6, 6, 6), (5, 5, 5, 5), (6, 6, 6, 6)}


def test_a_crop_shows_the_object(cache: Cache) -> None:
    for seed in range(50):
        base = crop(np.random.default_rng(seed), cache.masks[0])
        _, ids = replace(film(cache), base=base).draw(64, 0, np.eye(3))
        assert ids.any()


def test_the_object_is_where_its_mask_is(cache: Cache) -> None:
    whole = film(cache)
    first, last = (whole.draw(128, t, np.eye(3)) for t in (0, 3))
    assert set(np.unique(first[1])) == {0, 1}
    columns = [float(np.flatnonzero(ids.any(axis=0)).mean()) for _, ids in (first, last)]
    assert columns[1] - columns[0] == pytest.approx(3 * 3 * 0.8, abs=1.5)  # pixels of the file, shown at four fifths
    inside = first[1] > 0
    assert abs(first[0][inside].mean() - first[0][~inside].mean()) > 30


def test_without_its_object_a_film_shows_what_is_around(cache: Cache) -> None:
    whole = film(cache)
    frame, ids = whole.draw(128, 0, np.eye(3))
    emptied, nothing = whole.without(1).draw(128, 0, np.eye(3))
    there = ids > 0
    assert not nothing.any()
    assert np.abs(emptied[there].mean(axis=0) - frame[~there].mean(axis=0)).max() < 15
    assert np.abs(emptied[there].mean(axis=0) - frame[there].mean(axis=0)).max() > 60


def test_objects_that_are_away_have_no_mask(cache: Cache) -> None:
    recipe = ClipRecipe(size=64, frames=4, mix={SceneKind.film: 1}, absence=1)
    masks = np.concatenate([ClipDataset(cache, recipe, (3,), 40).clip(i)[1] for i in range(20)])
    there = np.any(masks, axis=(-2, -1))
    assert np.all(there[:, 0])
    assert not np.any(np.all(there, axis=1))


@pytest.mark.parametrize("kind", [SceneKind.plain, SceneKind.pictures])
def test_an_object_of_a_picture_can_be_painted_over(cache: Cache, kind: SceneKind) -> None:
    scene = SceneMaker(cache, 96, 1).draw(np.random.default_rng(4), kind)
    assert (scene.backdrop.draw(96, 0, np.eye(3))[1] == 1).any()
    assert not (scene.without(1).backdrop.draw(96, 0, np.eye(3))[1] == 1).any()
