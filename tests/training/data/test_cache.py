from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.support.training import small_cache, write_sets
from training.data.cache import Cache, Pack, Pixels, start, write_index, write_pack
from training.data.instances import WHOLE, cut_out, read_sets
from training.errors import TrainingError
from training.prepare import build_cache


def arrays() -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, shape).astype(np.uint8) for shape in ((3, 4, 3), (5, 2), (1, 1, 4))]


def test_a_pack_gives_back_what_was_written(tmp_path: Path) -> None:
    assert write_pack(tmp_path, "things", arrays()) == 3
    pack = Pack(tmp_path, "things")
    assert len(pack) == 3
    for read, written in zip(pack, arrays(), strict=True):
        assert np.array_equal(read, written)
    sent: Pack = pickle.loads(pickle.dumps(pack))
    assert np.array_equal(sent[1], arrays()[1])


def test_a_pack_may_be_empty(tmp_path: Path) -> None:
    write_pack(tmp_path, "things", [])
    assert list(Pack(tmp_path, "things")) == []


def test_a_pack_cut_short_is_refused(tmp_path: Path) -> None:
    write_pack(tmp_path, "things", arrays())
    data = (tmp_path / "things.bin").read_bytes()
    (tmp_path / "things.bin").write_bytes(data[:-1])
    with pytest.raises(TrainingError, match="incomplete"):
        Pack(tmp_path, "things")
    (tmp_path / "things.bin").unlink()
    with pytest.raises(TrainingError, match="is missing; run python"):
        Pack(tmp_path, "things")


def test_no_cache_and_an_old_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no training cache"):
        Cache.open(tmp_path)
    write_index(tmp_path, [])
    index = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps({**index, "version": 0}))
    with pytest.raises(TrainingError, match="of version 0, not 2"):
        Cache.open(tmp_path)


def test_a_cache_being_rebuilt_is_none(tmp_path: Path) -> None:
    small_cache(tmp_path, images=False)
    start(tmp_path / "cache")
    with pytest.raises(TrainingError, match="holds no training cache"):
        Cache.open(tmp_path / "cache")


def test_pictures_objects_and_cutouts(tmp_path: Path) -> None:
    cache = small_cache(tmp_path, images=True)
    assert len(cache.pictures) == 4
    assert len(cache.textures) == 12
    assert len(cache.shapes) == 24
    # Of people, the whole as well as the parts.
    assert sorted((entry.ids, entry.weight) for entry in cache.labelled) == [
        *[((1, 2), 0.25)] * 2,
        *[((1, 2), 1)] * 2,
        *[((WHOLE,), 0.75)] * 2,
    ]
    for entry in cache.labelled:
        assert cache.pictures[entry.picture].shape[:2] == cache.labels[entry.labels].shape == (96, 128)
    assert len(cache.cutouts) == 2 + 4  # a person each; two things each
    for cutout in cache.cutouts:
        assert cutout.shape == (64, 64, 4)
        assert cutout[32, 32, 3] == 255
        assert cutout[0, 0, 3] == 0


def test_equal_seeds_give_equal_textures(tmp_path: Path) -> None:
    def build(name: str, seed: int) -> bytes:
        build_cache(tmp_path / name, None, cutout_side=32, texture_count=3, shape_count=3, seed=seed)
        return (tmp_path / name / "textures.bin").read_bytes()

    assert build("a", 0) == build("b", 0) != build("c", 1)


def test_folders_laid_out_wrongly(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has no SET/images and SET/masks"):
        list(read_sets(tmp_path, side=100, sets_of_parts=frozenset()))
    write_sets(tmp_path)
    with pytest.raises(TrainingError, match="has no sets called nothing"):
        list(read_sets(tmp_path, side=100, sets_of_parts=frozenset({"nothing"})))


def test_a_cutout_at_the_edge_keeps_its_colours() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, :50] = 200
    mask = np.zeros((100, 100), np.bool_)
    mask[30:70, :50] = True
    cutout = cut_out(picture, mask, 64)
    assert cutout is not None
    inside = cutout[..., 3] == 255
    assert 0.6 < inside.mean() < 0.9
    assert (cutout[inside][:, :3] > 190).all()
    # Beyond the picture's edge its colours go on, so that no dark seam comes of warping.
    assert (cutout[32, 0, :3] == 200).all()


def test_scraps_are_no_cutouts() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    small = np.zeros((100, 100), np.bool_)
    small[:10, :10] = True
    thin = np.eye(100, dtype=np.bool_)
    thin |= np.roll(thin, 1, axis=1) | np.roll(thin, 2, axis=1)
    assert cut_out(picture, small, 64) is None
    assert cut_out(picture, thin, 64) is None
