"""A small cache of everything, and small recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from training.data.cache import Cache, Pixels
from training.prepare import build_cache


def write_sets(root: Path) -> Path:
    """Two sets of pictures with masks: ``things`` with two objects each, ``people`` with two parts of one each."""
    rng = np.random.default_rng(0)
    for name in ("things", "people"):
        (root / name / "images").mkdir(parents=True)
        (root / name / "masks").mkdir()
        for number in range(2):
            picture, labels = _picture(rng, apart=name == "things")
            Image.fromarray(picture).save(root / name / "images" / f"{number}.jpg", quality=95)
            Image.fromarray(labels).save(root / name / "masks" / f"{number}.png")
    return root


def _picture(rng: np.random.Generator, *, apart: bool) -> tuple[Pixels, Pixels]:
    labels = np.zeros((120, 160), np.uint8)
    labels[20:80, 20:70] = 1
    second = slice(90, 140) if apart else slice(70, 110)
    labels[40:100, second] = 2
    colours = rng.integers(0, 255, (3, 3)).astype(np.uint8)
    return colours[labels], labels


def write_videos(root: Path) -> Path:
    """Two videos of a bright square that moves before a dark ground; it is not there in the last frame of the first."""
    for name, count in (("left", 6), ("right", 9)):
        (root / name / "frames").mkdir(parents=True)
        (root / name / "masks").mkdir()
        for t in range(count):
            mask = np.zeros((90, 160), np.uint8)
            if name == "right" or t < count - 1:
                mask[30:60, 40 + 3 * t : 80 + 3 * t] = 1
            frame = np.where(mask[..., None] > 0, (220, 190, 60), (40, 60, 90)).astype(np.uint8)
            Image.fromarray(frame).save(root / name / "frames" / f"{t:05}.jpg", quality=95)
            Image.fromarray(mask).save(root / name / "masks" / f"{t:05}.png")
    return root


def small_cache(folder: Path, *, images: bool) -> Cache:
    """A cache of a few small things, with pictures and videos or procedural only."""
    return build_cache(
        folder / "cache",
        write_sets(folder / "sets") if images else None,
        sets_of_parts=frozenset({"people"}) if images else frozenset(),
        videos=write_videos(folder / "videos") if images else None,
        picture_side=128,
        cutout_side=64,
        texture_count=12,
        shape_count=24,
    )
