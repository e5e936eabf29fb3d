"""Where the videos of Label Studio's tasks are: on the disk, or on a host from which they may be fetched."""

from __future__ import annotations

import contextlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

from masklet.errors import InvalidArgument, NotFound, Unavailable

_LOCAL = "/data/local-files/"
_TIMEOUT_SECONDS = 30.0
_BLOCK = 1024**2


@dataclass(frozen=True)
class Videos:
    """Finds the videos of tasks. Only what the operator named is read.

    Attributes:
        label_studio: Label Studio's address, such as http://127.0.0.1:8080; empty: nothing is fetched from it.
        token: The token of its API ("Account & Settings"); empty: none.
        files: The folder of its local files (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT); None: none.
        hosts: Further hosts, HOST or HOST:PORT, from which videos may be fetched, such as those of a bucket.
        max_bytes: The largest video that is fetched.
    """

    label_studio: str = ""
    token: str = ""
    files: Path | None = None
    hosts: tuple[str, ...] = ()
    max_bytes: int = 16 * 1024**3

    @contextlib.contextmanager
    def opened(self, address: str) -> Iterator[Path]:
        """The video as a file, while the block runs.

        Args:
            address: What the task says: a URL, or a path on Label Studio's own host.

        Raises:
            InvalidArgument: The video is where nothing may be read.
            NotFound: There is no such file.
            Unavailable: It cannot be fetched.
        """
        parts = urlsplit(address)
        if parts.path.startswith(_LOCAL) and self.files is not None and not self._is_foreign(address):
            yield self._local(parse_qs(parts.query).get("d", [""])[0])
            return
        if not parts.scheme and not self.label_studio:
            raise InvalidArgument.of(
                "video", f"{address} is on Label Studio's own host; give its address with --label-studio"
            )
        url = urljoin(self.label_studio.rstrip("/") + "/", address) if not parts.scheme else address
        self.check(url)
        suffix = Path(unquote(urlsplit(url).path)).suffix
        with tempfile.NamedTemporaryFile(prefix="masklet-", suffix=suffix) as file:
            self._fetch(url, file)
            yield Path(file.name)

    def _local(self, name: str) -> Path:
        assert self.files is not None
        root = self.files.resolve()
        path = (root / name).resolve()
        if root not in path.parents:
            raise InvalidArgument.of("video", f"{name} is not in the folder of --files")
        if not path.is_file():
            raise NotFound(f"there is no file {name} in the folder of --files")
        return path

    def _is_foreign(self, address: str) -> bool:
        host = urlsplit(address).netloc
        return bool(host) and host != urlsplit(self.label_studio).netloc

    def check(self, url: str) -> None:
        """Refuse what is not on an allowed host.

        Raises:
            InvalidArgument: It is not.
        """
        parts = urlsplit(url)
        allowed = {urlsplit(self.label_studio).netloc, *self.hosts} - {""}
        if parts.scheme not in ("http", "https") or not ({parts.netloc, parts.hostname} & allowed):
            known = ", ".join(sorted(allowed)) or "none"
            raise InvalidArgument.of(
                "video",
                f"{parts.scheme}://{parts.hostname} may not be read; allowed: {known}; --allow-host HOST adds one",
            )

    def _fetch(self, url: str, file: IO[bytes]) -> None:
        request = urllib.request.Request(url)  # noqa: S310 - the scheme was checked
        if self.token and not self._is_foreign(url):
            request.add_unredirected_header("Authorization", f"Token {self.token}")
        opener = urllib.request.build_opener(_SameRules(self))
        try:
            with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                size = 0
                while block := response.read(_BLOCK):
                    size += len(block)
                    if size > self.max_bytes:
                        raise InvalidArgument.of("video", f"has more than {self.max_bytes} bytes")
                    file.write(block)
        except urllib.error.HTTPError as error:
            error.close()
            kind = NotFound if error.code == 404 else Unavailable
            raise kind(f"the video cannot be fetched from {urlsplit(url).netloc}: HTTP status {error.code}") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise Unavailable(f"the video cannot be fetched from {urlsplit(url).netloc}: {error}") from None
        file.flush()


class _SameRules(urllib.request.HTTPRedirectHandler):
    """Follows redirections to hosts that are allowed, such as a bucket's, and to no others."""

    def __init__(self, videos: Videos) -> None:
        self._videos = videos

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: object,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            self._videos.check(newurl)
        except InvalidArgument:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
