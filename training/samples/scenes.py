"""Scenes: a backdrop, things that move before it, a camera; and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import cv2
import numpy as np
from typing_extensions import Self

from training.data.cache import Cache, Labelled, Pack, Pixels
from training.data.instances import cut_out
from training.samples.film import Film, choose, crop, stretched
from training.samples.lifted import filled
from training.samples.motion import Limbs, Matrix, Path, Warp, affine
from training.samples.procedural import Generator
from training.samples.sprites import Sprite, pixels_of, recoloured, shrunk

SPRITE_NUMBER = 9  # of the first sprite; lower ones are those of objects that belong to the backdrop
_WHOLE_PICTURE = 0.4  # part of the pictures that are seen whole or nearly so, squeezed into a square
_SECOND = 0.2  # part of the videos whose object is there a second time


class SceneKind(str, Enum):
    """Where the object to follow comes from."""

    procedural = "procedural"  # textured shapes
    cutouts = "cutouts"  # instances cut out of pictures
    pictures = "pictures"  # an instance where it is, in a picture set in motion
    lifted = "lifted"  # an instance that moves by itself before its own picture, which is filled where it was
    plain = "plain"  # an instance where it is, in a picture alone
    film = "film"  # the object of a real video


class Behind(Protocol):
    """What is behind everything."""

    def draw(self, size: int, t: int, camera: Matrix) -> tuple[Pixels, Pixels]:
        """``uint8[size, size, 3]`` and ``uint8[size, size]`` of its objects' numbers."""

    def without(self, number: int) -> Self:
        """The same with what might be behind one of its objects in this one's place."""


@dataclass(frozen=True)
class Backdrop:
    """A picture or a texture, with objects or without.

    Attributes:
        pixels: ``uint8[H, W, 3]``.
        labels: ``uint8[H, W]``, the numbers of its objects, 0 for none; None if it has no objects.
        base: From its pixels to the frame's unit square.
        tilt: Perspective that grows with time, in x and y.
        warp: How it bends, if it does.
    """

    pixels: Pixels
    labels: Pixels | None
    base: Matrix
    tilt: tuple[float, float] = (0, 0)
    warp: Warp | None = None

    def draw(self, size: int, t: int, camera: Matrix) -> tuple[Pixels, Pixels]:
        """``uint8[size, size, 3]`` and ``uint8[size, size]`` of objects' numbers."""
        tilted = np.eye(3)
        tilted[2, :2] = np.array(self.tilt) * t
        matrix = pixels_of(size) @ tilted @ camera @ self.base
        frame = self._seen(self.pixels, matrix, size, t, cv2.BORDER_REPLICATE)
        ids = np.zeros((size, size), np.uint8)
        if self.labels is None:
            return frame, ids
        for number in range(1, int(self.labels.max()) + 1):
            alone = (self.labels == number).astype(np.uint8) * np.uint8(255)
            ids[self._seen(alone, matrix, size, t, cv2.BORDER_CONSTANT) > 127] = number
        return frame, ids

    def without(self, number: int) -> Self:
        """The same with what might be behind one of its objects in this one's place."""
        assert self.labels is not None
        there = (self.labels == number).astype(np.uint8)
        return replace(self, pixels=filled(self.pixels, there), labels=self.labels * (1 - there))

    def _seen(self, pixels: Pixels, matrix: Matrix, size: int, t: int, border: int) -> Pixels:
        seen = cv2.warpPerspective(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
        if self.warp is not None:
            rows, columns = np.mgrid[:size, :size].astype(np.float32)
            bend = self.warp.field(t, size, size) * np.float32(size)
            seen = cv2.remap(seen, columns + bend[..., 0], rows + bend[..., 1], cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(seen, np.uint8)


@dataclass(frozen=True)
class Scene:
    """Everything there is to see.

    Attributes:
        backdrop: Behind everything.
        sprites: From the farthest to the nearest.
        camera: Its own motion, which moves everything.
    """

    backdrop: Behind
    sprites: tuple[Sprite, ...]
    camera: Path

    def without(self, number: int) -> Scene:
        """The same without one of its objects; the numbers of the others change."""
        sprite = number - SPRITE_NUMBER
        if sprite < 0:
            return replace(self, backdrop=self.backdrop.without(number))
        return replace(self, sprites=self.sprites[:sprite] + self.sprites[sprite + 1 :])

    def render(self, size: int, t: int) -> tuple[Pixels, Pixels]:
        """One moment: ``uint8[size, size, 3]`` and ``uint8[size, size]`` of objects' numbers, 0 for none."""
        camera = self.camera.at(t)
        frame, ids = self.backdrop.draw(size, t, camera)
        for number, sprite in enumerate(self.sprites, SPRITE_NUMBER):
            sprite.paste(frame, ids, number, t, camera)
        return frame, ids


@dataclass(frozen=True)
class SceneMaker:
    """Draws scenes.

    Attributes:
        cache: What they are made of.
        size: Side of the frame in pixels.
        length: Frames.
        pace: 1 for the motion of ordinary video at some 10 frames a second.
        objects: Of a picture that are marked, at most.
    """

    cache: Cache
    size: int
    length: int
    pace: float = 1.0
    objects: int = 1

    def draw(self, rng: Generator, kind: SceneKind) -> Scene:
        """One scene of a kind."""
        sprites: list[Sprite] = []
        backdrop: Behind
        if kind is SceneKind.film:
            backdrop, sprites = self._film(rng)
            count, real = int(rng.integers(1, 3)) if rng.random() < 0.25 else 0, 0.8
        elif kind is SceneKind.plain:
            return Scene(self._living_picture(rng), (), self._camera(rng))
        elif kind is SceneKind.pictures:
            backdrop, count, real = self._living_picture(rng), int(rng.integers(0, 3)), 0.6
        elif kind is SceneKind.lifted:
            backdrop, sprites = self._lifted(rng, self._living_picture(rng))
            count, real = int(rng.integers(0, 3)), 0.6
        elif kind is SceneKind.cutouts:
            backdrop, count, real = self._still(rng, 0.9), int(rng.integers(1, 5)), 0.85
        else:
            backdrop, count, real = self._still(rng, 0.6), int(rng.integers(2, 7)), 0.15
        sprites += [self._sprite(rng, real) for _ in range(count)]
        if sprites and rng.random() < 0.3:
            sprites = self._with_look_alikes(rng, sprites)
        if rng.random() < (0.1 if kind is SceneKind.film else 0.25):
            sprites.append(self._occluder(rng, sprites))
        still = isinstance(backdrop, Film) and len(set(backdrop.numbers)) > 1  # whose own camera moves
        return Scene(backdrop, tuple(sprites), self._camera(rng, 0.2 if still else 0.7))

    def _camera(self, rng: Generator, moving: float = 0.7) -> Path:
        pace = self.pace * (0.6 if rng.random() < moving else 0)
        path = Path.draw(rng, self.length, scale=1, centre=(0, 0), pace=pace, returns=False)
        return replace(path, aspect=1, squash=0, degrees=0, spin=path.spin * 0.25)

    def _still(self, rng: Generator, pictures: float) -> Backdrop:
        """A backdrop without an object: a picture in `pictures` of the cases, or a texture."""
        if len(self.cache.pictures) and rng.random() < pictures:
            pixels = self.cache.pictures[int(rng.integers(len(self.cache.pictures)))]
        else:
            pixels = _any(rng, self.cache.textures)
        height, width = pixels.shape[:2]
        zoom = rng.uniform(1.05, 1.8) / min(height, width)
        degrees = rng.normal(0, 8)
        shift = rng.uniform(-1, 1, 2) * (zoom * np.array([width, height]) - 1) / 2
        base = affine(scale=zoom, degrees=degrees, move=(shift[0], shift[1])) @ affine(move=(-width / 2, -height / 2))
        return Backdrop(recoloured(rng, pixels, 0.7), None, base)

    def _film(self, rng: Generator) -> tuple[Behind, list[Sprite]]:
        """A part of a real video, and at times its object a second time, which is not the one to follow."""
        cache = self.cache
        numbers = choose(rng, cache.videos, self.length)
        film = Film(cache.frames, cache.masks, numbers, crop(rng, cache.masks[numbers[0]]), int(rng.integers(1 << 31)))
        if rng.random() > _SECOND:
            return film, []
        other = int(rng.choice(numbers))
        pixels = cut_out(cache.frames[other], cache.masks[other] > 0)
        if pixels is None:
            return film, []
        x, y = rng.uniform(-0.45, 0.45, 2)
        scale = len(pixels) * float(np.sqrt(film.base[0, 0] * film.base[1, 1])) * rng.uniform(0.7, 1.2)
        path = Path.draw(rng, self.length, scale=scale, centre=(x, y), pace=self.pace, returns=False)
        aspect = float(np.sqrt(film.base[0, 0] / film.base[1, 1]))
        pixels = recoloured(np.random.default_rng(film.tint), pixels, 0.5)
        return film, [Sprite(pixels, replace(path, aspect=aspect, degrees=rng.normal(0, 8)))]

    def _living_picture(self, rng: Generator) -> Backdrop:
        """A picture with objects that are in it, of which one takes some part of the frame."""
        entry = _weighted(rng, self.cache.labelled)
        pixels = self.cache.pictures[entry.picture]
        labels = _numbered(rng, self.cache.labels[entry.labels], entry.ids, min(self.objects, SPRITE_NUMBER - 1))
        height, width = labels.shape
        left, top, box_width, box_height = cv2.boundingRect((labels == 1).astype(np.uint8))
        if rng.random() < _WHOLE_PICTURE:
            seen = np.array([width, height]) * rng.uniform(0.85, 1, 2)
        else:
            part = np.exp(rng.uniform(np.log(0.2), np.log(0.95)))
            least = 1 / min(width, height)  # at which the picture fills the frame
            zoom = max(least, min(part / max(box_width, box_height), 5 * least))
            squeeze = np.exp(rng.normal(0, 0.25))
            seen = np.minimum([width, height], np.array([squeeze, 1 / squeeze]) / zoom)
        # The object somewhere in the frame, the frame within the picture.
        wanted = np.array([left + box_width / 2, top + box_height / 2]) + rng.normal(0, 0.12, 2) * seen
        x, y = np.clip(wanted, seen / 2, np.array([width, height]) - seen / 2)
        warp = Warp.draw(rng, rng.uniform(0.005, 0.02)) if rng.random() < 0.4 and self.length > 1 else None
        tilt = rng.normal(0, 0.015 * self.pace, 2)
        base = stretched(seen[0], seen[1], (x, y))
        return Backdrop(recoloured(rng, pixels, 0.5), labels, base, (tilt[0], tilt[1]), warp)

    def _lifted(self, rng: Generator, living: Backdrop) -> tuple[Backdrop, list[Sprite]]:
        """What is behind the objects of a picture, and these, each where it is, but moving by itself."""
        assert living.labels is not None
        across, down = float(living.base[0, 0]), float(living.base[1, 1])
        zoom, aspect, sprites = float(np.sqrt(across * down)), float(np.sqrt(across / down)), []
        for number in range(1, int(living.labels.max()) + 1):
            mask = living.labels == number
            left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
            pixels = cut_out(living.pixels, mask)
            if pixels is None:
                continue
            x, y, _ = living.base @ (left + width / 2, top + height / 2, 1)
            scale = len(pixels) * zoom
            path = Path.draw(rng, self.length, scale=scale, centre=(x, y), pace=self.pace, returns=False)
            warp = Warp.draw(rng, rng.uniform(0.01, 0.06)) if rng.random() < 0.8 else None
            shutter = rng.uniform(0.3, 1) if rng.random() < 0.3 else 0
            sprites.append(Sprite(pixels, replace(path, aspect=aspect, degrees=0), warp, shutter=shutter))
        return replace(living, pixels=filled(living.pixels, living.labels), labels=None), sprites

    def _sprite(self, rng: Generator, real: float) -> Sprite:
        """Something that moves: a cut-out in `real` of the cases, else a textured shape or figure."""
        scale = float(np.exp(rng.uniform(np.log(0.15), np.log(0.85))))
        limbs = None
        if len(self.cache.cutouts) and rng.random() < real:
            pixels, change = _any(rng, self.cache.cutouts), 0.6
        else:
            pixels, change = self._painted(rng), 1.0
            if rng.random() < 0.3:
                limbs = Limbs.draw(rng)
                scale *= 1.4  # limbs fill little of their canvas
        x, y = rng.uniform(-0.4, 0.4, 2)
        returns = self.length > 3 and rng.random() < 0.12
        path = Path.draw(rng, self.length, scale=scale, centre=(x, y), pace=self.pace, returns=returns)
        return Sprite(
            pixels=recoloured(rng, shrunk(pixels, scale * self.size * 1.3), change),
            path=path,
            warp=Warp.draw(rng, rng.uniform(0.01, 0.05)) if rng.random() < 0.5 else None,
            limbs=limbs,
            gone=self._absence(rng),
            shutter=rng.uniform(0.3, 1) if rng.random() < 0.3 else 0,
        )

    def _absence(self, rng: Generator) -> tuple[int, int]:
        if self.length < 3 or rng.random() > 0.06:
            return (0, 0)
        start = int(rng.integers(1, self.length))
        return start, start + int(rng.integers(1, self.length))

    def _painted(self, rng: Generator) -> Pixels:
        """``uint8[N, N, 4]``: a shape with one texture or two, perhaps shaded."""
        alpha = _any(rng, self.cache.shapes)
        colour = _any(rng, self.cache.textures)
        if rng.random() < 0.3:
            part = _any(rng, self.cache.shapes)[..., None] > 127
            colour = np.where(part, recoloured(rng, _any(rng, self.cache.textures)), colour)
        if rng.random() < 0.5:
            light = rng.uniform(0.5, 1.4, (3, 3)).astype(np.float32)
            shade = np.asarray(cv2.resize(light, alpha.shape[::-1], interpolation=cv2.INTER_CUBIC))
            colour = np.clip(colour * shade[..., None], 0, 255).astype(np.uint8)
        return np.dstack([colour, alpha])

    def _with_look_alikes(self, rng: Generator, sprites: list[Sprite]) -> list[Sprite]:
        """One of the sprites some more times, elsewhere and a little different."""
        original = sprites[int(rng.integers(len(sprites)))]
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(-0.45, 0.45, 2)
            path = Path.draw(rng, self.length, scale=original.path.scale, centre=(x, y), pace=self.pace, returns=False)
            pixels = recoloured(rng, original.pixels, 0.15)
            copy = replace(original, pixels=pixels, path=path, gone=(0, 0))
            sprites.insert(int(rng.integers(len(sprites) + 1)), copy)
        return sprites

    def _occluder(self, rng: Generator, sprites: Sequence[Sprite]) -> Sprite:
        """Something near that crosses the frame, and on its way one of the others or the middle."""
        moment = rng.uniform(0, self.length)
        meeting = np.zeros(2) if not sprites else sprites[int(rng.integers(len(sprites)))].path.position(moment)
        direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.3) * self.pace
        velocity = speed * np.array([np.cos(direction), np.sin(direction)])
        start = meeting - velocity * moment
        sprite = self._sprite(rng, 0.3)
        path = replace(
            sprite.path, start=(start[0], start[1]), velocity=(velocity[0], velocity[1]), excursion=(0, 0), growth=0
        )
        return replace(sprite, path=path, gone=(0, 0))


def _any(rng: Generator, pack: Pack) -> Pixels:
    return pack[int(rng.integers(len(pack)))]


def _weighted(rng: Generator, entries: Sequence[Labelled]) -> Labelled:
    weights = np.array([entry.weight for entry in entries])
    return entries[int(rng.choice(len(entries), p=weights / weights.sum()))]


def _numbered(rng: Generator, labels: Pixels, ids: Sequence[int], most: int) -> Pixels:
    """Some objects of a label map, numbered from 1 on in random order; 0 for all else."""
    first = int(rng.choice(ids))
    others = [one for one in ids if one != first]
    chosen = [first, *(rng.permutation(others)[: most - 1] if most > 1 else ())]
    table = np.zeros(256, np.uint8)
    table[chosen] = np.arange(1, len(chosen) + 1)
    return table[labels]
