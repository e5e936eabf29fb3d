"""The training cache: everything that samples are made of, in files that all workers map into memory.

A pack is a pair of files: NAME.bin holds arrays of bytes one after the other, NAME.json their shapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.errors import TrainingError

Pixels = npt.NDArray[np.uint8]

VERSION = 2
TRUNK_FILE = "trunk.safetensors"
_INDEX_FILE = "cache.json"
_PACKS = ("pictures", "labels", "cutouts", "textures", "shapes", "frames", "masks")


class Pack:
    """Arrays of ``uint8`` of any shapes in one read-only file, which processes share.

    Raises:
        TrainingError: One of the two files is missing, or they do not agree.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.bin"
        try:
            self._shapes: list[list[int]] = json.loads((folder / f"{name}.json").read_text())
            size = self._file.stat().st_size
        except FileNotFoundError as error:
            raise TrainingError(f"{error.filename} is missing; run python -m training.prepare") from error
        self._offsets = np.cumsum([0, *(int(np.prod(shape)) for shape in self._shapes)])
        if size != self._offsets[-1]:
            raise TrainingError(f"{self._file} is incomplete; run python -m training.prepare again")
        self._data: Pixels | None = None

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> Pixels:
        if self._data is None:  # here rather than above, so that a pack can be sent to another process unopened
            self._data = np.memmap(self._file, np.uint8, mode="r")
        start, end = self._offsets[index], self._offsets[index + 1]
        return self._data[start:end].reshape(self._shapes[index])

    def __iter__(self) -> Iterator[Pixels]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}


@dataclass(frozen=True)
class Labelled:
    """A picture with instances.

    Attributes:
        picture: Its number among the pictures.
        labels: The number of its label map.
        ids: The labels that make good objects.
        weight: How often it is drawn, compared with the others.
    """

    picture: int
    labels: int
    ids: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class Video:
    """A real video with its object's mask on every frame.

    Attributes:
        name: As its folder is called.
        first: The number of its first frame among all frames, and of its mask among all masks.
        count: How many frames it has.
    """

    name: str
    first: int
    count: int


@dataclass(frozen=True)
class Cache:
    """What samples are made of.

    Attributes:
        folder: Where it lies.
        pictures: ``uint8[H, W, 3]`` each, RGB.
        labels: ``uint8[H, W]`` each, of the size of the picture that they belong to.
        labelled: Which picture goes with which labels.
        cutouts: ``uint8[N, N, 4]`` each: RGB and how much of a pixel the object covers.
        textures: ``uint8[N, N, 3]`` each.
        shapes: ``uint8[N, N]`` each: how much of a pixel the shape covers.
        frames: ``uint8[H, W, 3]`` each, RGB: those of all videos, one after the other.
        masks: ``uint8[H, W]`` each, one for each frame: 1 where the object is.
        videos: Which frames make a video.
    """

    folder: Path
    pictures: Pack
    labels: Pack
    labelled: tuple[Labelled, ...]
    cutouts: Pack
    textures: Pack
    shapes: Pack
    frames: Pack
    masks: Pack
    videos: tuple[Video, ...]

    @classmethod
    def open(cls, folder: Path) -> Cache:
        """The cache that ``training.prepare`` wrote into a folder.

        Raises:
            TrainingError: There is none, or it is of another version or incomplete.
        """
        try:
            index = json.loads((folder / _INDEX_FILE).read_text())
        except FileNotFoundError as error:
            raise TrainingError(f"{folder} holds no training cache; run python -m training.prepare first") from error
        if index["version"] != VERSION:
            raise TrainingError(
                f"{folder} is a cache of version {index['version']}, not {VERSION}: run python -m training.prepare"
            )
        labelled = tuple(Labelled(**{**entry, "ids": tuple(entry["ids"])}) for entry in index["labelled"])
        videos = tuple(Video(**entry) for entry in index["videos"])
        packs = {name: Pack(folder, name) for name in _PACKS}
        return cls(folder=folder, labelled=labelled, videos=videos, **packs)

    @property
    def trunk(self) -> Path:
        """Where the weights that the trunk starts from lie, if `prepare` was asked for them."""
        return self.folder / TRUNK_FILE


def start(folder: Path) -> None:
    """Make the folder; a cache that is in it is none from now on, until `write_index`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _INDEX_FILE).unlink(missing_ok=True)


def write_pack(folder: Path, name: str, arrays: Iterable[Pixels]) -> int:
    """Write arrays as they come; returns how many there were."""
    shapes = []
    with (folder / f"{name}.bin").open("wb") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array, np.uint8).tobytes())
            shapes.append(array.shape)
    (folder / f"{name}.json").write_text(json.dumps(shapes))
    return len(shapes)


def write_index(folder: Path, labelled: Iterable[Labelled], videos: Iterable[Video] = (), **notes: object) -> None:
    """Write what makes the packs a cache; the last thing to write, so that an interrupted run leaves none."""
    entries = {"labelled": [asdict(entry) for entry in labelled], "videos": [asdict(video) for video in videos]}
    index = {"version": VERSION, **notes, **entries}
    (folder / _INDEX_FILE).write_text(json.dumps(index) + "\n")
