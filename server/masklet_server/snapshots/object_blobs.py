"""Bytes in an object store (S3, Google Cloud Storage, Azure), by obstore."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url

from masklet.errors import InvalidArgument, Unavailable
from masklet_server.snapshots.blobs import BlobInfo

if TYPE_CHECKING:
    from obstore.store import RetryConfig

SCHEMES = ("s3", "gs", "az")
# A store that is gone must not hold up for minutes what the log has to say, and the snapshots of other sessions. The
# package's own limits are 10 more tries within 3 minutes. Options of its HTTP client are left alone: given here, they
# would replace those in the environment, such as AWS_ALLOW_HTTP.
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": datetime.timedelta(seconds=15)}


class ObjectBlobs:
    """Bytes in an object store. It must know conditional writes, as S3, Google Cloud Storage and Azure do.

    Args:
        store: obstore's.
        where: Names the store in errors.
    """

    def __init__(self, store: ObjectStore, where: str) -> None:
        self._store = store
        self._where = where

    @classmethod
    def at(cls, url: str) -> ObjectBlobs:
        """The store at a URL such as ``s3://bucket/folder``.

        Raises:
            InvalidArgument: There is no such kind of store, or a setting in the environment is wrong.
        """
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES:
            known = ", ".join(f"{one}://" for one in SCHEMES)
            raise InvalidArgument.of("state_dir", f"{url} must be the path of a folder, or begin with one of {known}")
        try:
            return cls(from_url(url, retry_config=_RETRIES), url)
        except (BaseError, ValueError) as error:
            raise InvalidArgument.of("state_dir", f"{url} cannot be opened: {_first_line(error)}") from error

    async def put(self, name: str, data: bytes) -> None:
        """Write the bytes; whoever reads sees all of them or none."""
        with self._answered():
            await self._store.put_async(name, data)

    async def create(self, name: str, data: bytes) -> bool:
        """Write the bytes, if there is nothing under that name."""
        with self._answered():
            try:
                await self._store.put_async(name, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    async def get(self, name: str) -> bytes | None:
        """The bytes, or None if there is nothing under that name."""
        with self._answered():
            try:
                found = await self._store.get_async(name)
            except FileNotFoundError:
                return None
            return bytes(await found.bytes_async())

    async def names(self, prefix: str) -> Sequence[BlobInfo]:
        """All that lies under ``prefix/``, in order of names."""
        with self._answered():
            return sorted([info async for info in self._list(prefix)], key=lambda info: info.name)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete; names that are not there do not matter."""
        with self._answered():
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    await self._store.delete_async(name)

    async def _list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        now = datetime.datetime.now(datetime.timezone.utc)
        async for some in self._store.list(prefix):
            for one in some:
                age = (now - one["last_modified"]).total_seconds()
                yield BlobInfo(one["path"], one["size"], max(0.0, age))

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """Say what a failure of the store means for the server."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise Unavailable(f"state_dir {self._where} cannot be used: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The part of an error for people; obstore's go on with many lines for its own developers."""
    return str(error).partition("\n")[0]
