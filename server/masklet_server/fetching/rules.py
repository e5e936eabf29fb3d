"""Which URLs the server may fetch, as far as the URL itself tells."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from masklet.errors import InvalidArgument

FIELD = "config.source_url"
SCHEMES = ("http", "https", "file")
_MAX_URL_CHARACTERS = 4096


@dataclass(frozen=True)
class FetchRules:
    """What may be fetched. By default nothing.

    Attributes:
        schemes: Any of "http", "https" and "file".
        hosts: Names of hosts, or patterns such as "*.example.org" or "*". A pattern allows public addresses only.
        directories: Folders from which files may be read.
        timeout_seconds: Time limit for a whole video.
    """

    schemes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    directories: tuple[Path, ...] = ()
    timeout_seconds: float = 600.0

    def allows(self, host: str) -> bool:
        """Whether a host is on the list, by its name or by a pattern."""
        return any(fnmatch.fnmatchcase(_plain(host), pattern.lower()) for pattern in self.hosts)

    def names(self, host: str) -> bool:
        """Whether a host is on the list by its own name, and so may have an address that is not public."""
        return _plain(host) in (name.lower() for name in self.hosts)


def check_url(url: str, rules: FetchRules) -> SplitResult:
    """The URL in parts, if its scheme and its host are allowed.

    Raises:
        InvalidArgument: The URL is malformed or not allowed.
    """
    if not rules.schemes:
        raise url_refused("cannot be used, because this server fetches no videos; send the video itself")
    if len(url) > _MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise url_refused(
            f"must be at most {_MAX_URL_CHARACTERS} printable ASCII characters; percent-encode other characters"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise url_refused("is no URL; write it as https://HOST/PATH") from None
    if parts.scheme not in rules.schemes:
        raise url_refused(f"has the scheme {parts.scheme or '(none)'}; this server allows {_listed(rules.schemes)}")
    if parts.username is not None or parts.password is not None:
        raise url_refused("contains a name or password, which is not allowed; leave it out")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise url_refused("must name a file on the server itself: file:///PATH")
    elif not parts.hostname or port == 0 or not rules.allows(parts.hostname):
        raise url_refused(
            f"names the host {parts.hostname or '(none)'}, which this server does not allow; "
            "its operator can add it to source_hosts"
        )
    return parts


def url_refused(what: str) -> InvalidArgument:
    """The error of a URL.

    Args:
        what: What is wrong with it; follows the field's name.
    """
    return InvalidArgument.of(FIELD, what)


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
