"""Where snapshots lie: named bytes, in a directory or in an object store."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, ResourceExhausted, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class BlobInfo:
    """What is known of bytes without reading them.

    Attributes:
        name: As it was given to `put`.
        size: Number of bytes.
        age_seconds: Time since they were written.
    """

    name: str
    size: int
    age_seconds: float


class BlobStore(Protocol):
    """Keeps bytes under names such as ``a/b/c``. Other processes and machines may use it at the same time.

    All methods raise `Unavailable` if the store cannot be reached, and `ResourceExhausted` if it is full.
    """

    async def put(self, name: str, data: bytes) -> None:
        """Write the bytes; whoever reads sees what was there before, or all of them. Durable when this returns."""

    async def create(self, name: str, data: bytes) -> bool:
        """Write the bytes, if there is nothing under that name. Of several callers one gets True."""

    async def get(self, name: str) -> bytes | None:
        """The bytes, or None if there is nothing under that name."""

    async def names(self, prefix: str) -> Sequence[BlobInfo]:
        """All that lies under ``prefix/``, in order of names."""

    async def delete(self, names: Sequence[str]) -> None:
        """Delete; names that are not there do not matter."""


class DirectoryBlobs:
    """Bytes as files below one folder. Their names are the files' paths.

    Args:
        folder: Made if it is not there; nobody else may read it.

    Raises:
        FailedPrecondition: The folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise FailedPrecondition(f"state_dir {folder} cannot be written: {error.strerror}") from error

    async def put(self, name: str, data: bytes) -> None:
        """Write the bytes beside the file, then give them its name."""
        await self._run(self._write, name, data, replace=True)

    async def create(self, name: str, data: bytes) -> bool:
        """Write the bytes beside the file, then give them its name if no file has it."""
        return await self._run(self._write, name, data, replace=False)

    async def get(self, name: str) -> bytes | None:
        """The file's bytes, or None if there is no file."""
        return await self._run(self._read, name)

    async def names(self, prefix: str) -> Sequence[BlobInfo]:
        """All finished files below a folder, in order."""
        return await self._run(self._list, prefix)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete files, and the folders that become empty."""
        await self._run(self._remove, names)

    async def _run(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        try:
            return await asyncio.to_thread(function, *arguments, **named)
        except OSError as error:
            raise self._answer(error) from error

    def _answer(self, error: OSError) -> MaskletError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceExhausted(f"state_dir {self._folder} has no room left; make room, or name another folder")
        return Unavailable(f"state_dir {self._folder} cannot be used: {error.strerror}")

    def _path(self, name: str) -> Path:
        path = self._folder / name
        if not name or not path.resolve().is_relative_to(self._folder.resolve()):
            raise InvalidArgument.of("name", f"{name!r} leaves the folder")
        return path

    def _write(self, name: str, data: bytes, *, replace: bool) -> bool:
        path = self._path(name)
        while True:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                return self._write_beside(path, data, replace=replace)
            except FileNotFoundError:
                continue  # another process has just removed the folder, because it was empty

    @staticmethod
    def _write_beside(path: Path, data: bytes, *, replace: bool) -> bool:
        handle, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            if replace:
                os.replace(unfinished, path)  # noqa: PTH105 - atomic, as the whole method must be
            else:
                os.link(unfinished, path)  # fails if there is such a file, in one step
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)  # noqa: PTH108
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name must be durable too
        finally:
            os.close(folder)
        return True

    def _read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def _list(self, prefix: str) -> list[BlobInfo]:
        found = []
        for path in sorted((self._path(prefix) if prefix else self._folder).rglob("*")):
            if path.name.startswith(_UNFINISHED):
                continue
            try:
                facts = path.stat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            if path.is_file():
                name = path.relative_to(self._folder).as_posix()
                found.append(BlobInfo(name, facts.st_size, max(0.0, time.time() - facts.st_mtime)))
        return found

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            path = self._path(name)
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._folder:
                    break
                try:
                    folder.rmdir()
                except OSError:  # it is not empty, or gone already
                    break
