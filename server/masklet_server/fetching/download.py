"""One video that the server fetches, from the client's URL to its bytes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import http
import http.client
import time
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

from masklet.errors import DeadlineExceeded, InvalidArgument
from masklet_server.fetching.http_connection import PinnedConnection, ResponseBody, connect, get
from masklet_server.fetching.local_file import open_local_file
from masklet_server.fetching.rules import FIELD, FetchRules, check_url, url_refused

_CHUNK_BYTES = 256 * 1024
_MAX_REDIRECTIONS = 5
_REDIRECTIONS = (301, 302, 303, 307, 308)

T = TypeVar("T")


class _Body(Protocol):
    """Bytes that are read one after the other, by one thread."""

    def read(self, count: int, /) -> bytes | None:
        """Up to so many bytes; none at the end."""

    def close(self) -> None:
        """Close the file or the connection."""


class VideoDownload:
    """One video to be fetched.

    Args:
        url: As the client gave it.
        rules: What is allowed.

    Raises:
        InvalidArgument: The URL is malformed or not allowed, as far as the URL itself tells.
    """

    def __init__(self, url: str, rules: FetchRules) -> None:
        self._rules = rules
        self._url = check_url(url, rules)
        self._connection: PinnedConnection | None = None
        self._deadline = 0.0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the video's bytes as they arrive.

        Raises:
            InvalidArgument: The address is not allowed, or the video cannot be fetched from there.
            DeadlineExceeded: It took longer than the rules allow.
        """
        self._deadline = time.monotonic() + self._rules.timeout_seconds
        thread = concurrent.futures.ThreadPoolExecutor(1, "masklet-fetch")
        body: _Body | None = None
        try:
            body = await self._run(thread, self._open)
            while chunk := await self._run(thread, lambda: body.read(_CHUNK_BYTES)):
                yield chunk
        finally:
            if self._connection is not None:
                self._connection.shut_down()  # a thread that reads notices
            if body is not None:
                thread.submit(body.close)
            thread.shutdown(wait=False)

    async def _run(self, thread: concurrent.futures.Executor, work: Callable[[], T]) -> T:
        left = self._deadline - time.monotonic()
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(thread, work), max(0.0, left))
        except InvalidArgument:
            raise
        except asyncio.TimeoutError:
            raise DeadlineExceeded(
                f"{FIELD}: the video was not fetched within source_timeout_seconds = {self._rules.timeout_seconds:g}; "
                "send a smaller video, or send it yourself"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Without the system's own words, which would tell closed ports from silent ones.
            raise url_refused(
                f"could not be fetched ({type(error).__name__}); check that the server can reach it"
            ) from error

    def _open(self) -> _Body:
        """Follow redirections to the video."""
        url = self._url
        for _ in range(_MAX_REDIRECTIONS + 1):
            if url.scheme == "file":
                return open_local_file(url, self._rules)
            response = self._get(url)
            location = response.headers.get("Location")
            if response.status == http.HTTPStatus.OK:
                return ResponseBody(response)
            response.close()
            if response.status not in _REDIRECTIONS or not location:
                raise url_refused(f"is answered with status {response.status}; give the address of a video file")
            target = urlsplit(urljoin(url.geturl(), location))
            if target.scheme == "file":
                raise url_refused("leads to a file:// address, which a redirection may not do")
            url = check_url(target.geturl(), self._rules)
        raise url_refused(f"is redirected more than {_MAX_REDIRECTIONS} times; give the address of the video itself")

    def _get(self, url: SplitResult) -> http.client.HTTPResponse:
        connection = connect(url, self._rules)
        if self._connection is not None:
            self._connection.close()
        self._connection = connection
        return get(connection, url)
