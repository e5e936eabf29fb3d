"""Videos, however a caller holds them, as request messages that are made one at a time."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from masklet._media.pictures import picture_to_wire
from masklet._urls import without_secrets
from masklet.errors import FailedPrecondition, InvalidArgument
from masklet.v1 import tracking_pb2

CHUNK_BYTES = 512 * 1024
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif"}
)


@dataclass(frozen=True)
class SourceUrl:
    """A video that the server fetches itself, if its operator allows it.

    Attributes:
        url: http(s):// or file://, as the server sees it.
    """

    url: str

    def __repr__(self) -> str:
        return f"SourceUrl({without_secrets(self.url)!r})"


VideoSource = str | os.PathLike[str] | bytes | IO[bytes] | Iterable[npt.NDArray[np.uint8]] | SourceUrl
"""Gives the frames of one video.

A video file's path, its bytes or an open binary file (MP4, MKV, ...); the path of a folder of pictures; pictures as an
iterable of arrays ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]`` (gray); or a `SourceUrl`.
"""

Parts = Iterator[tracking_pb2.TrackRequest]
"""A video as messages that are made when they are asked for."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Upload:
    """A video on its way to the server.

    Attributes:
        parts: Messages that are made when they are asked for, each a `video_chunk` or a `frame`.
        pictures: True where each part is a `frame`: one picture for each frame of the video.
        frame_count: 0 where it is not known beforehand.
        source_url: Where the server fetches the video; there are no parts then. Empty otherwise.
        path: The video's path on this machine; empty if it has none.
        picture_names: The file's name of each picture of a folder.
        parts_from: Makes the messages again from a position on, which counts the file's bytes or the pictures; None
            where the video can be read only once.
    """

    parts: Parts
    pictures: bool
    frame_count: int = 0
    source_url: str = ""
    path: str = ""
    picture_names: tuple[str, ...] = ()
    parts_from: Callable[[int], Parts] | None = None

    @classmethod
    def readable_again(cls, parts_from: Callable[[int], Parts], *, pictures: bool, **known: Any) -> Upload:
        """A video that can be read from any position, as often as wanted."""
        return cls(parts_from(0), pictures, parts_from=parts_from, **known)


def open_upload(video: Any) -> Upload:
    """Find out what kind of video this is. Nothing is read before the parts are asked for.

    Args:
        video: A `VideoSource`.

    Raises:
        InvalidArgument: It is nothing that can be sent.
        OSError: There is no such file.
    """
    if isinstance(video, SourceUrl):
        return Upload.readable_again(_nothing, pictures=False, source_url=video.url)
    if isinstance(video, (str, os.PathLike)):
        return _of_path(video_path(video))
    if isinstance(video, (bytes, bytearray, memoryview)):
        return Upload.readable_again(partial(_slices, memoryview(video).cast("B")), pictures=False)
    if hasattr(video, "read"):
        return Upload(_chunks(video), pictures=False)
    if isinstance(video, np.ndarray):
        _check_stack(video)
    if isinstance(video, AsyncIterable):
        raise InvalidArgument.of("video", "is an asynchronous iterable; use AsyncClient for those")
    if isinstance(video, Iterable):
        if isinstance(video, Sequence | np.ndarray):
            return Upload.readable_again(partial(_frames_of, video), pictures=True, frame_count=len(video))
        count = len(video) if isinstance(video, Sized) else 0
        return Upload(_frames(video), pictures=True, frame_count=count)
    raise InvalidArgument.of(
        "video", f"must be a path, bytes, a binary file or an iterable of arrays, not {type(video).__qualname__}"
    )


def video_path(video: str | os.PathLike[str]) -> Path:
    """The path of an existing file or folder.

    Raises:
        InvalidArgument: It is a URL.
        FileNotFoundError: There is no file or folder of that name.
    """
    if _URL.match(os.fspath(video)):
        raise InvalidArgument.of(
            "video",
            f"{video} is a URL; read it with masklet.capture and send it by Client.live, or let the server fetch it: "
            "SourceUrl(...)",
        )
    path = Path(video)
    path.stat()
    return path


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder in natural order: 2.jpg before 10.jpg.

    Raises:
        InvalidArgument: There are none.
    """
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise InvalidArgument.of(
            "video", f"the folder {folder} holds no pictures ({' '.join(sorted(PICTURE_SUFFIXES))})"
        )
    return sorted(files, key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple[list[str | int], str]:
    # The odd parts are the runs of digits, so that numbers only ever meet numbers.
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _of_path(path: Path) -> Upload:
    if path.is_dir():
        files = picture_files(path)
        return Upload.readable_again(
            partial(_frames_of, files),
            pictures=True,
            frame_count=len(files),
            path=str(path),
            picture_names=tuple(file.name for file in files),
        )
    parts_from = _FileParts(path)
    # A pipe has no place to go back to.
    return Upload(parts_from(), pictures=False, path=str(path), parts_from=parts_from if path.is_file() else None)


def _check_stack(video: npt.NDArray[Any]) -> None:
    if video.ndim == 4 or (video.ndim == 3 and video.shape[2] not in (3, 4)):
        return
    raise InvalidArgument.of(
        "video",
        f"is one array of shape {list(video.shape)}, must be [T, H, W, 3] (RGB) or [T, H, W] (gray); "
        "a single picture is for segment()",
    )


def _nothing(start: int) -> Parts:
    return iter(())


class _FileParts:
    """Reads a file, and reads it again from any byte on, as long as it is the same.

    Args:
        path: The file, or a pipe that is read once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[int, ...] | None = None

    def __call__(self, start: int = 0) -> Parts:
        """Its messages from a byte on.

        Raises:
            FailedPrecondition: The file has changed since it was read first.
            OSError: The file can't be read.
        """
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if self._known not in (None, identity):
                raise FailedPrecondition(
                    f"{self._path} has changed since the stream began, so that it can't be sent again after the "
                    "connection was lost; begin a new stream"
                )
            self._known = identity
            if start:
                file.seek(start)
            yield from _chunks(file)


def _chunks(file: IO[bytes]) -> Parts:
    while chunk := file.read(CHUNK_BYTES):
        if not isinstance(chunk, bytes):
            raise InvalidArgument.of("video", "the file is open as text; open it with mode 'rb'")
        yield tracking_pb2.TrackRequest(video_chunk=chunk)


def _slices(data: memoryview, start: int) -> Parts:
    for begin in range(start, len(data), CHUNK_BYTES):
        yield tracking_pb2.TrackRequest(video_chunk=bytes(data[begin : begin + CHUNK_BYTES]))


def _frames(pictures: Iterable[Any]) -> Parts:
    for index, picture in enumerate(pictures):
        yield _frame(index, picture)


def _frames_of(pictures: Sequence[Any] | npt.NDArray[Any], start: int) -> Parts:
    for index in range(start, len(pictures)):
        yield _frame(index, pictures[index])


def _frame(index: int, picture: Any) -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(frame=picture_to_wire(picture, field=f"video[{index}]"))
