"""URLs as they may be shown and logged: without user names, passwords and tokens."""

from __future__ import annotations

import re

# What a URL goes on with until it ends: no space and no quote.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s\"'<>]+)")
# Signed addresses carry secrets in the query; some cameras carry their password there, or in the path.
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&;/_][\w.%-]*(?:pass|pwd|token|secret|signature|credential|auth|key|sig)[\w.%-]*=)[^&;#]*",
    re.IGNORECASE,
)
_HOST_AND_PORT = re.compile(r"[^:]*(:\d*)?|\[[^\]]*\](:\d*)?")


def without_secrets(text: str) -> str:
    """The text with the user info cut out of every URL, and the values of parameters such as ``password`` replaced.

    A password may contain ``/``, ``?``, ``#`` or ``@``, although URLs do not allow it. Where it is not clear which
    ``@`` ends the user info, more is cut out rather than less.

    Args:
        text: A URL, or a sentence with any number of them.
    """
    return _URL.sub(_without_secrets, text)


def _without_secrets(match: re.Match[str]) -> str:
    rest: str = match["rest"]
    return match["scheme"] + _SECRET_PARAMETER.sub(r"\g<name>...", rest[_end_of_user_info(rest) :])


def _end_of_user_info(rest: str) -> int:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        if ":" not in authority:
            return 0
        if _HOST_AND_PORT.fullmatch(authority):  # host:80/?mail=a@b; or user:12/34@host, which the path tells
            rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    return rest.rfind("@") + 1
