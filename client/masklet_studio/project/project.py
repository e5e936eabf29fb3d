"""A project: a folder with the videos that somebody works on, and what was done with each of them."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from masklet_studio.project.journal import Journal

VERSION = 1
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".gif"}
)
"""What the names of videos end in, in a folder that is opened."""


@dataclass(frozen=True)
class VideoEntry:
    """A video of a project.

    Attributes:
        video_id: A name that no other video of any project has.
        name: What people call it.
        path: The file, or the folder of pictures.
        bytes: The size of the file when it was added; 0 for a folder, and for a recording, which grew afterwards.
        uploaded: True: the file belongs to the project, and goes with it.
    """

    video_id: str
    name: str
    path: Path
    bytes: int
    uploaded: bool

    def check(self) -> str:
        """Why the video cannot be used, in words; empty where it can."""
        if not self.path.exists():
            return f"{self.path} is not there any more; put it back, and open the project again"
        if self.bytes and self.path.stat().st_size != self.bytes:
            return f"{self.path} has another size than when it was added; is it another video?"
        return ""


class Project:
    """A folder that one studio works in at a time.

    Attributes:
        folder: Where it is.

    Args:
        folder: Made if it does not exist.

    Raises:
        FailedPrecondition: Another studio works in it.
        DataLoss: It is of a newer version, or damaged.
        InvalidArgument: The folder holds something else.
        OSError: It cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        known = {"videos.jsonl", "videos", "uploads", "exports", "lock"}
        there = {one.name for one in self.folder.iterdir()} if self.folder.is_dir() else set()
        # In a project, a file browser may have left a file of its own.
        if "videos.jsonl" not in there and (strange := sorted(there - known)):
            raise InvalidArgument.of(
                "project", f"{folder} is no project: it holds {strange[0]}; name a new or an empty folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # The lock goes with the process, however that ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise FailedPrecondition(
                f"another studio has the project {folder} open; close it, or name another folder with --project"
            ) from None
        self._journal = Journal(self.folder / "videos.jsonl")
        self._videos: dict[str, VideoEntry] = {}
        self._removed: set[str] = set()
        self._number = 0
        self._writing = threading.Lock()
        for operation in self._journal.take():
            self._apply(operation)
        if not self._number:
            self._do("begin", version=VERSION)
        for name in ("videos", "uploads", "exports"):
            (self.folder / name).mkdir(exist_ok=True)
        self._sweep()

    @property
    def name(self) -> str:
        """What people call it: the folder's name."""
        return self.folder.name

    @property
    def videos(self) -> list[VideoEntry]:
        """The videos, in the order in which they were added."""
        return list(self._videos.values())

    def find(self, video_id: str) -> VideoEntry:
        """A video by its id.

        Raises:
            NotFound: There is none.
        """
        if video_id not in self._videos:
            raise NotFound(f"the project has no video {video_id!r}")
        return self._videos[video_id]

    def folder_of(self, video_id: str) -> Path:
        """Where the operations and masks of a video are."""
        return self.folder / "videos" / self.find(video_id).video_id

    def add(self, path: Path) -> VideoEntry:
        """Add a video by its path, or find it if it was added before.

        Raises:
            OSError: There is no such file.
        """
        path = path.absolute()
        size = path.stat().st_size if path.is_file() else 0
        for known in self._videos.values():
            if known.path == path:
                return known
        return self._add(path.name, path, size, uploaded=False)

    def adopt(self, part: Path, name: str) -> VideoEntry:
        """Add a video that was uploaded, and move its file into the project.

        Args:
            part: The file, in this project's folder.
            name: What it is called on the machine that it came from.
        """
        size = part.stat().st_size
        suffix = Path(name).suffix if Path(name).suffix.isascii() else ""
        video_id = secrets.token_hex(6)
        (self.folder / "videos" / video_id).mkdir()
        path = self.folder / "videos" / video_id / f"video{suffix[:10].lower()}"
        # At every moment one of the two names leads to the file, however this process ends.
        path.hardlink_to(part)
        entry = self._add(name, path, size, uploaded=True, video_id=video_id)
        part.unlink()
        return entry

    def make_room(self) -> tuple[str, Path]:
        """The id and the folder of a video that is about to be recorded."""
        video_id = secrets.token_hex(6)
        folder = self.folder / "videos" / video_id
        folder.mkdir()
        return video_id, folder

    def record(self, video_id: str, name: str, file_name: str) -> VideoEntry:
        """Add a video that is being recorded; its file is still growing.

        Args:
            video_id: From `make_room`.
            name: What people call it.
            file_name: The file, in the video's folder.
        """
        return self._add(name, self.folder / "videos" / video_id / file_name, 0, uploaded=True, video_id=video_id)

    def _add(self, name: str, path: Path, size: int, *, uploaded: bool, video_id: str = "") -> VideoEntry:
        entry = VideoEntry(video_id or secrets.token_hex(6), name, path, size, uploaded)
        # The path of an uploaded video is relative, so that the project can be moved.
        told = path.relative_to(self.folder) if uploaded else path
        self._do("add_video", video=entry.video_id, name=name, path=str(told), bytes=size, uploaded=uploaded)
        return entry

    def remove(self, video_id: str) -> None:
        """Take a video out of the project with all that was done; a file that was not uploaded stays where it is.

        Raises:
            NotFound: There is none.
        """
        folder = self.folder_of(video_id)
        self._do("remove_video", video=video_id)
        shutil.rmtree(folder, ignore_errors=True)

    def _do(self, verb: str, **fields: Any) -> None:
        with self._writing:
            operation = {"n": self._number + 1, "do": verb, **fields}
            self._journal.append(operation)
            self._apply(operation)
            self._journal.sync()

    def _apply(self, operation: dict[str, Any]) -> None:
        self._number = operation["n"]
        if operation["do"] == "begin" and operation["version"] > VERSION:
            raise DataLoss(f"the project {self.folder} was made by a newer studio; use that one")
        if operation["do"] == "add_video":
            path = self.folder / operation["path"]  # which is the path alone, where that is absolute
            self._videos[operation["video"]] = VideoEntry(
                operation["video"], operation["name"], path, operation["bytes"], operation["uploaded"]
            )
        if operation["do"] == "remove_video":
            self._videos.pop(operation["video"], None)
            self._removed.add(operation["video"])

    def _sweep(self) -> None:
        """Delete what a process left that was killed while it removed a video, or while it took one from an upload."""
        for folder in (self.folder / "videos").iterdir():
            is_new = not (folder / "journal.jsonl").exists()
            if folder.name not in self._videos and (folder.name in self._removed or is_new):
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Let another studio work in the folder. May be called twice."""
        self._journal.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


def videos_in(path: Path) -> Iterator[Path]:
    """The videos that a word of the command line names: a file, the videos of a folder, or a folder of pictures.

    Raises:
        FileNotFoundError: There is no such file or folder.
    """
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in VIDEO_SUFFIXES and one.is_file())
        yield from found or [path]
    else:
        path.stat()
        yield path
