"""Downloading one file over HTTP; a broken transfer goes on where it stopped."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from masklet.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable

ProgressCallback = Callable[[int, int], None]

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 30.0
_BLOCK = 1024 * 1024
_RETRIED_STATUSES = frozenset({408, 416, 425, 429, 500, 502, 503, 504})


@dataclass
class Transfer:
    """Download of one address into one file.

    Attributes:
        url: HTTP address of the file.
        part: The local file; what is in it already counts as the beginning of the download.
        expected_bytes: Size of the whole file, 0 if unknown.
        progress: Called with the bytes so far and the bytes of the whole file, 0 if unknown.
        etag: The server's name for this version of the file; empty until the server has told it.
    """

    url: str
    part: Path
    expected_bytes: int
    progress: ProgressCallback | None
    etag: str = ""

    def run(self) -> None:
        """Download until the file is complete; give up after `ATTEMPTS` failures in a row without any progress.

        Raises:
            Unavailable: The server cannot be reached, or refuses.
            DataLoss: The server has a file of another size.
            ResourceExhausted: The disk is full.
            FailedPrecondition: `part` cannot be written.
        """
        failures = 0
        while True:
            before = self._have()
            try:
                self._copy_rest(before)
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                status = _status(error)
                failures = 1 if self._have() > before else failures + 1
                if failures >= ATTEMPTS or (status is not None and status not in _RETRIED_STATUSES):
                    raise Unavailable(f"{self.url}: {_reason(error)}") from error
                if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                    self.part.unlink(missing_ok=True)
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
            else:
                return

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _copy_rest(self, offset: int) -> None:
        if self.expected_bytes and offset == self.expected_bytes:
            return
        if self.expected_bytes and offset > self.expected_bytes:
            self.part.unlink()
            offset = 0
        with urllib.request.urlopen(self._request(offset), timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                offset = 0  # the server sends the whole file, not the part that was asked for
            self.etag = response.headers.get("ETag", "")
            length = response.headers.get("Content-Length")
            total = offset + int(length) if length else self.expected_bytes
            if self.expected_bytes and total != self.expected_bytes:
                raise DataLoss(f"{self.url} has {total:,} bytes instead of {self.expected_bytes:,}: another file")
            self._copy(response, offset, total)

    def _request(self, offset: int) -> urllib.request.Request:
        headers = {"User-Agent": "masklet"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.etag and not self.etag.startswith("W/"):
                headers["If-Range"] = self.etag
        return urllib.request.Request(self.url, headers=headers)  # noqa: S310 - the registry's own address

    def _copy(self, response: http.client.HTTPResponse, offset: int, total: int) -> None:
        with _disk_errors(self.part), self.part.open("ab" if offset else "wb") as file:
            done = offset
            self._report(done, total)
            while block := _read(response):
                file.write(block)
                done += len(block)
                self._report(done, total)
            file.flush()
            os.fsync(file.fileno())
        if done < total:
            raise _TransferError(f"the connection ended after {done:,} of {total:,} bytes")

    def _report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def _status(error: Exception) -> int | None:
    if not isinstance(error, urllib.error.HTTPError):
        return None
    error.close()  # it holds the connection
    return error.code


class _TransferError(http.client.HTTPException):
    """The connection failed while data was arriving."""


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK)
    except OSError as error:  # here, so that it is not taken for an error of the disk
        raise _TransferError(_reason(error)) from error


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(
                f"no space left on the disk for {path}; free some, or set MASKLET_CACHE to a folder on another disk"
            ) from error
        raise FailedPrecondition(
            f"cannot write {path}: {error.strerror}; set MASKLET_CACHE to another folder"
        ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
