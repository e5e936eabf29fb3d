"""Who may talk to the studio: checked for every request, before anything else.

A browser lets any page send requests to any address, such as the studio's, and a name of that page's own may point to
127.0.0.1 (DNS rebinding). So the Host of a request must be the studio's own, the Origin of requests that change
something and of WebSockets must be the studio's page, and where other machines can reach the studio, each request needs
a token.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from masklet_studio.answers import refusal

COOKIE = "masklet-studio"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The content security policy: nothing from another host, and no script or style within the page's text."""
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_UNAUTHORISED = 4401  # a WebSocket's own codes are above 4000
_FORBIDDEN = 4403


@dataclass(frozen=True)
class Access:
    """Who may talk to the studio.

    Attributes:
        host: The address that it listens on, as it was given.
        token: What every request must show; empty where none is needed.
    """

    host: str
    token: str = ""

    def is_own_host(self, host: str) -> bool:
        """Whether a Host header names this studio.

        An address in numbers is no name that another page could have pointed here. Of names, those of this machine are
        right, and the one that the studio was told to listen on.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # such as an open bracket
            return False
        if name in ("localhost", self.host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            # Behind a token, a name that was pointed here by somebody else gives nothing away.
            return bool(self.token)
        return bool(self.token) or address.is_loopback

    def shows_token(self, headers: Headers) -> bool:
        """Whether a request shows the token, in a header or in the cookie."""
        if not self.token:
            return True
        scheme, _, word = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(word.encode(), self.token.encode()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.token.encode())


def _host_of(origin: str) -> str:
    """Host and port of an Origin header; empty for what is none, and for "null"."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests through to the application that may come, and adds headers to the answers.

    Args:
        app: The application.
        access: Who may talk to it.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_socket = scope["type"] == "websocket"
        answer = self._refuse(scope, headers, is_socket=is_socket)
        if answer is None:
            await self._app(scope, receive, send if is_socket else _with_headers(send))
        elif is_socket:
            await receive()
            await send({"type": "websocket.close", "code": _UNAUTHORISED if answer.status_code == 401 else _FORBIDDEN})
        else:
            await answer(scope, receive, _with_headers(send))

    def _refuse(self, scope: Scope, headers: Headers, *, is_socket: bool) -> Response | None:
        """The answer to a request that may not come; None where it may."""
        host = headers.get("host", "")
        if not self._access.is_own_host(host):
            return refusal(403, f"this is not {host!r:.100}: open the studio by the address that it printed")
        if is_socket or scope["method"] not in SAFE_METHODS:
            origin = headers.get("origin")
            # Programs that are no browsers send no Origin; browsers always do, for such requests.
            if origin is not None and _host_of(origin) != host:
                return refusal(403, f"requests from pages of {origin!r:.100} are not taken")
            if origin is None and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return refusal(403, "requests from pages of other sites are not taken")
        if self._access.shows_token(headers):
            return None
        return self._with_cookie(scope) or refusal(
            401, "a token is needed: open the address with ?token=... that the studio printed"
        )

    def _with_cookie(self, scope: Scope) -> Response | None:
        """The answer to the page's address with the right token in it: a cookie, and the address without it."""
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        is_page = scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET"
        if not is_page or not hmac.compare_digest(given.encode(), self._access.token.encode()):
            return None
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(COOKIE, self._access.token, httponly=True, samesite="strict", path="/")
        return answer


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return sending
