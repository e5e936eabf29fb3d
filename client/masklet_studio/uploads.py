"""Videos on their way from a browser: in parts, and after a break from where it was left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from masklet.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from masklet.recording import unprintable
from masklet_studio.project.project import Project, VideoEntry

MAX_UNFINISHED = 16
KEEP_SECONDS = 7 * 86400.0
"""How long an upload is kept that nobody goes on with."""
FORGET_SECONDS = 3600.0
"""How long an upload is kept at least that nobody goes on with, if there is no room for a new one."""
KEPT_FREE_BYTES = 1 << 28
"""Bytes of the disk that no upload may take."""
_BUFFER = 1 << 20


class WrongOffset(FailedPrecondition):
    """A part does not begin where the part before it ended.

    Attributes:
        offset: Where it must begin.
    """

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload stands at byte {offset}; go on from there")
        self.offset = offset


@dataclass(eq=False)
class Upload:
    """A file that is being uploaded.

    Attributes:
        upload_id: Its name.
        name: What the file is called.
        size: Its bytes, when it is whole.
        part: Where it is.
    """

    upload_id: str
    name: str
    size: int
    part: Path
    busy: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        return self.part.stat().st_size


class Uploads:
    """The uploads of a studio. Each is a file ``ID.part`` and a file ``ID.json`` with its name and size.

    Args:
        project: Where finished uploads go.
        max_bytes: The largest file; 0: no file may be uploaded.
    """

    def __init__(self, project: Project, max_bytes: int) -> None:
        self._project = project
        self._folder = project.folder / "uploads"
        self._max_bytes = max_bytes
        self._uploads: dict[str, Upload] = {}
        for told in self._folder.glob("*.json"):
            self._find_again(told)

    def _find_again(self, told: Path) -> None:
        part = told.with_suffix(".part")
        is_done = any(entry.uploaded and _is_same(entry.path, part) for entry in self._project.videos)
        if is_done or not part.exists() or time.time() - part.stat().st_mtime > KEEP_SECONDS:
            part.unlink(missing_ok=True)
            told.unlink()
            return
        with contextlib.suppress(ValueError, KeyError):  # what was not written whole is deleted when it is old
            known = json.loads(told.read_text())
            self._uploads[told.stem] = Upload(told.stem, known["name"], known["size"], part)

    def begin(self, name: object, size: object) -> Upload:
        """Begin an upload.

        Args:
            name: What the file is called.
            size: Its bytes.

        Raises:
            InvalidArgument: A value is wrong.
            ResourceExhausted: The file is too large, or there are too many uploads.
        """
        if not isinstance(name, str) or not name.strip() or len(name) > 255 or unprintable(name) or "/" in name:
            raise InvalidArgument.of("name", f"is {name!r:.60}, must be the name of a file")
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidArgument.of("size", f"is {size!r:.60}, must be a number of bytes above 0")
        if size > self._max_bytes:
            raise ResourceExhausted(
                f"{name} has {size} bytes, the most allowed is {self._max_bytes} (--max-upload-gib); name the file on "
                "the command line of masklet studio instead"
            )
        if len(self._uploads) >= MAX_UNFINISHED and not self._forget_oldest():
            raise ResourceExhausted(
                f"{MAX_UNFINISHED} uploads are not finished, the most at once; finish or delete one"
            )
        free = shutil.disk_usage(self._folder).free
        if size > free - KEPT_FREE_BYTES:
            raise ResourceExhausted(f"{name} has {size} bytes, but the disk has only {free} left")
        upload_id = secrets.token_hex(8)
        upload = Upload(upload_id, name.strip(), size, self._folder / f"{upload_id}.part")
        upload.part.touch(0o600)
        upload.part.with_suffix(".json").write_text(json.dumps({"name": upload.name, "size": size}))
        self._uploads[upload_id] = upload
        return upload

    def _forget_oldest(self) -> bool:
        """Give up the upload that nobody has gone on with for the longest time, if that is long."""
        idle = [one for one in self._uploads.values() if not one.busy.locked()]
        oldest = min(idle, key=lambda one: one.part.stat().st_mtime, default=None)
        if oldest is None or time.time() - oldest.part.stat().st_mtime < FORGET_SECONDS:
            return False
        self.remove(oldest.upload_id)
        return True

    def find(self, upload_id: str) -> Upload:
        """An upload by its id.

        Raises:
            NotFound: There is none.
        """
        if upload_id not in self._uploads:
            raise NotFound(f"there is no upload {upload_id!r:.40}; it was finished or deleted")
        return self._uploads[upload_id]

    async def add(self, upload: Upload, offset: int, parts: AsyncIterator[bytes]) -> VideoEntry | None:
        """Take a part of a file. What has arrived stays, even if the rest of the part does not come.

        Args:
            upload: The upload.
            offset: Where the part begins.
            parts: Its bytes.

        Returns:
            The video, if the file is whole now.

        Raises:
            WrongOffset: The part begins elsewhere, or another part is on its way.
            ResourceExhausted: The part goes beyond the end of the file.
            OSError: The disk is full, for instance.
        """
        if upload.busy.locked():
            raise WrongOffset(upload.offset)
        async with upload.busy:
            at = upload.offset
            if offset != at:
                raise WrongOffset(at)
            with upload.part.open("ab") as file:
                async for data in parts:
                    at += len(data)
                    if at > upload.size:
                        raise ResourceExhausted(f"the part goes beyond the {upload.size} bytes of the file")
                    await asyncio.to_thread(file.write, data)
            if at < upload.size:
                return None
            await asyncio.to_thread(_sync, upload.part)
            entry = self._project.adopt(upload.part, upload.name)
            upload.part.with_suffix(".json").unlink()
            del self._uploads[upload.upload_id]
            return entry

    def remove(self, upload_id: str) -> None:
        """Give up an upload.

        Raises:
            NotFound: There is none.
            FailedPrecondition: A part is on its way.
        """
        upload = self.find(upload_id)
        if upload.busy.locked():
            raise FailedPrecondition("a part of the upload is on its way; end that first")
        del self._uploads[upload_id]
        upload.part.unlink(missing_ok=True)
        upload.part.with_suffix(".json").unlink(missing_ok=True)


async def buffered(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in fewer, larger parts. What has come before a break is given, too."""
    waiting = bytearray()
    try:
        async for data in parts:
            waiting += data
            if len(waiting) >= _BUFFER:
                yield bytes(waiting)
                waiting.clear()
    except Exception:
        if waiting:
            yield bytes(waiting)
        raise
    if waiting:
        yield bytes(waiting)


def _is_same(video: Path, part: Path) -> bool:
    """Whether an upload has become a video, and its process was killed before it could say so."""
    return video.exists() and part.exists() and video.samefile(part)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
