"""Clips by number, and batches of them from several processes."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from training.data.cache import Cache, Pixels
from training.errors import TrainingError
from training.samples.effects import Effects
from training.samples.procedural import Generator
from training.samples.scenes import SPRITE_NUMBER, Scene, SceneKind, SceneMaker

Batch = tuple[torch.Tensor, torch.Tensor]  # uint8[B, T, S, S, 3], bool[B, N, T, S, S]

DEFAULT_MIX: Mapping[SceneKind, float] = {
    SceneKind.procedural: 0.25,
    SceneKind.cutouts: 0.3,
    SceneKind.pictures: 0.45,
}
_TRIES = 50


@dataclass(frozen=True)
class ClipRecipe:
    """What clips look like.

    Attributes:
        size: Side of the frames in pixels.
        frames: How many.
        mix: How often each kind of scene comes; kinds that the cache has nothing for are left out.
        pace: Of all motion; 1 is that of ordinary video at some 10 frames a second.
        least_area: Of the object in the first frame, as a part of the frame.
        absence: Part of the clips in which the object is away for some frames, beside those in which a scene's own
            motion hides it. What is seen meanwhile is the scene without it, look-alikes and all, or another scene.
        objects: How many of a clip's objects are followed, each by itself; a clip with fewer has some of them twice.
            Only without absence, which is one object's.
    """

    size: int
    frames: int
    mix: Mapping[SceneKind, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    pace: float = 1.0
    least_area: float = 0.003
    absence: float = 0.0
    objects: int = 1


class ClipDataset(Dataset[Batch]):
    """Clips, each a function of the cache, the recipe, the seed and its number.

    Raises:
        TrainingError: The cache holds nothing that the mix asks for.
    """

    def __init__(self, cache: Cache, recipe: ClipRecipe, seed: tuple[int, ...], length: int) -> None:
        self._recipe, self._seed, self._length = recipe, seed, length
        self._maker = SceneMaker(cache, recipe.size, recipe.frames, recipe.pace, recipe.objects)
        empty = {
            SceneKind.cutouts: not len(cache.cutouts),
            SceneKind.pictures: not cache.labelled,
            SceneKind.lifted: not cache.labelled,
            SceneKind.plain: not cache.labelled,
            SceneKind.film: not cache.videos,
        }
        mix = {kind: part for kind, part in recipe.mix.items() if part > 0 and not empty.get(kind, False)}
        if not mix:
            raise TrainingError(f"{cache.folder} holds nothing for a mix of {dict(recipe.mix)}")
        self._kinds = list(mix)
        self._parts = np.array(list(mix.values())) / sum(mix.values())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batch:
        frames, masks = self.clip(index)
        return torch.from_numpy(frames), torch.from_numpy(masks)

    def clip(self, index: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        """``uint8[T, S, S, 3]``, RGB, and ``bool[N, T, S, S]`` of objects that are all there in the first frame."""
        rng = np.random.default_rng((*self._seed, index))
        for _ in range(_TRIES):
            clip = self._try(rng)
            if clip is not None:
                return clip
        raise TrainingError(f"{_TRIES} scenes in a row show no object to follow; is the cache what it should be?")

    def _try(self, rng: Generator) -> tuple[Pixels, npt.NDArray[np.bool_]] | None:
        """One scene with an object to follow, or None if it turned out to have none."""
        recipe = self._recipe
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._parts))]
        scene = self._maker.draw(rng, kind)
        order = range(recipe.frames) if rng.random() < 0.5 else range(recipe.frames - 1, -1, -1)
        first_frame, first_ids = scene.render(recipe.size, order[0])
        targets = self._targets(rng, first_ids, kind)
        if targets is None:
            return None
        effects = Effects.draw(rng)
        away, elsewhere = self._absence(rng, scene, int(targets[0]), kind)
        frames = np.empty((recipe.frames, recipe.size, recipe.size, 3), np.uint8)
        masks = np.empty((recipe.objects, recipe.frames, recipe.size, recipe.size), np.bool_)
        for i, t in enumerate(order):
            seen = elsewhere if i in away else scene
            frame, ids = (first_frame, first_ids) if i == 0 else seen.render(recipe.size, t)
            frames[i] = effects.apply(rng, frame, i)
            masks[:, i] = (ids == targets[:, None, None]) & (seen is scene)
        if rng.random() < 0.5:
            frames, masks = frames[:, :, ::-1].copy(), masks[..., ::-1].copy()
        return frames, masks

    def _absence(self, rng: Generator, scene: Scene, target: int, kind: SceneKind) -> tuple[range, Scene]:
        """When the object is away, and what is seen then."""
        length = self._recipe.frames
        if length < 3 or not self._recipe.absence or rng.random() >= self._recipe.absence:
            return range(0), scene
        start = int(rng.integers(1, length))
        away = range(start, start + int(rng.integers(1, length)))
        if rng.random() < 0.7:
            return away, scene.without(target)
        return away, self._maker.draw(rng, kind)

    def _targets(self, rng: Generator, ids: Pixels, kind: SceneKind) -> npt.NDArray[np.int64] | None:
        """Numbers of the objects to follow, or None if no object is large enough."""
        areas = np.bincount(ids.ravel(), minlength=SPRITE_NUMBER)
        areas[0] = 0
        own = kind in (SceneKind.pictures, SceneKind.film)
        if own and self._recipe.objects == 1:
            areas[SPRITE_NUMBER:] = 0
        large = np.flatnonzero(areas >= self._recipe.least_area * ids.size)
        return np.resize(rng.permutation(large), self._recipe.objects) if len(large) else None


def batches(
    dataset: ClipDataset,
    batch: int,
    *,
    start: int = 0,
    part: tuple[int, int] | None = None,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Batches in order from the batch of number `start` on: the same ones however many workers there are.

    With `part`, the number of a share and its size, of each batch only this share.
    """
    number, share = part or (0, batch)
    return DataLoader(
        dataset,
        batch_size=share,
        sampler=[i for i in range(start * batch, len(dataset)) if i % batch // share == number],
        num_workers=workers,
        worker_init_fn=_start_worker,
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        drop_last=True,
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)  # each worker has a core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains, which still wants its batch
