"""The studio as a web application: routes of HTTP, and a WebSocket a tab."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import ASGIApp, Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from masklet.errors import InvalidArgument, MaskletError, NotFound, ResourceExhausted
from masklet_studio.answers import error_to_dict, failure, refusal
from masklet_studio.guard import Access, Guard
from masklet_studio.live import requests as live_requests
from masklet_studio.studio import THUMBNAIL_WIDTH, WIDTHS, Studio
from masklet_studio.uploads import WrongOffset, buffered

PAGE = Path(__file__).parent / "page"
_FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
_NOT_KEPT = {"cache-control": "no-store"}
_ASKED_AGAIN = {"cache-control": "no-cache"}
_TEXT = [Middleware(GZipMiddleware)]  # not for pictures and exports, which are compressed already
_MAX_BODY = 1 << 16
_MAX_DRAINED = 64 << 20
_FAILED = 4500  # a WebSocket's own codes are above 4000
_OVER = 4404


def application(studio: Studio, access: Access) -> ASGIApp:
    """The studio for a server of ASGI.

    Args:
        studio: The studio.
        access: Who may talk to it.
    """
    handlers = _Handlers(studio, access)
    return Starlette(
        routes=handlers.routes(),
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={MaskletError: _failed, HTTPException: _refused, Exception: _broken},
        lifespan=handlers.lifespan,
    )


class _Handlers:
    def __init__(self, studio: Studio, access: Access) -> None:
        self._studio = studio
        self._access = access

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._studio.begin()
        try:
            yield
        finally:
            await self._studio.close()

    def routes(self) -> list[Any]:
        return [
            Route("/", self.page, middleware=_TEXT),
            Route("/api/state", self.state, middleware=_TEXT),
            Route("/api/videos/{video}", self.remove, methods=["DELETE"]),
            Route("/api/videos/{video}/times", self.times, middleware=_TEXT),
            Route("/api/videos/{video}/exports", self.export, methods=["POST"]),
            Route("/api/exports/{export}", self.export_state),
            Route("/api/exports/{export}", self.remove_export, methods=["DELETE"]),
            Route("/api/exports/{export}/file", self.export_file),
            Route("/api/uploads", self.begin_upload, methods=["POST"]),
            Route("/api/uploads/{upload}", self.upload_state),
            Route("/api/uploads/{upload}", self.upload, methods=["PATCH"]),
            Route("/api/uploads/{upload}", self.remove_upload, methods=["DELETE"]),
            WebSocketRoute("/api/videos/{video}/session", self.session),
            Route("/api/live", self.begin_live, methods=["POST"]),
            Route("/api/live/{live}", self.end_live, methods=["DELETE"]),
            WebSocketRoute("/api/live/{live}/session", self.live_session),
            Route("/videos/{video}/frames/{frame:int}", self.frame),
            Route("/videos/{video}/thumbnail", self.thumbnail),
            Mount("/page", _PageFiles(directory=PAGE), middleware=_TEXT),
        ]

    async def page(self, _request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers=_ASKED_AGAIN)

    async def state(self, _request: Request) -> Response:
        return JSONResponse({**await self._studio.state(), "token_needed": bool(self._access.token)}, headers=_NOT_KEPT)

    async def remove(self, request: Request) -> Response:
        await self._studio.remove(request.path_params["video"])
        return JSONResponse({})

    # Uploads

    async def begin_upload(self, request: Request) -> Response:
        told = await _json(request)
        upload = self._studio.uploads.begin(told.get("name"), told.get("size"))
        return JSONResponse({"id": upload.upload_id, "offset": upload.offset, "size": upload.size})

    async def upload_state(self, request: Request) -> Response:
        upload = self._studio.uploads.find(request.path_params["upload"])
        return JSONResponse({"offset": upload.offset, "size": upload.size, "name": upload.name}, headers=_NOT_KEPT)

    async def upload(self, request: Request) -> Response:
        upload = self._studio.uploads.find(request.path_params["upload"])
        word = request.query_params.get("offset", "")
        if not word.isdecimal() or not word.isascii():
            raise InvalidArgument.of("offset", f"is {word!r:.20}, must be the number of the part's first byte")
        body = request.stream()
        try:
            entry = await self._studio.uploads.add(upload, int(word), buffered(body))
        except (WrongOffset, ResourceExhausted) as error:
            await _drain(body)
            return failure(error, offset=upload.offset)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except OSError as error:
            return refusal(507, f"the upload cannot be written: {error.strerror or error}")
        if entry is None:
            return JSONResponse({"offset": upload.offset})
        video = self._studio.take(entry)
        self._studio.count_frames()
        return JSONResponse({"offset": upload.size, "video": video.told()})

    async def remove_upload(self, request: Request) -> Response:
        self._studio.uploads.remove(request.path_params["upload"])
        return JSONResponse({})

    # Exports

    async def export(self, request: Request) -> Response:
        export = await self._studio.export(request.path_params["video"], await _json(request))
        return JSONResponse({"id": export.export_id})

    async def export_state(self, request: Request) -> Response:
        return JSONResponse(self._studio.exports.find(request.path_params["export"]).told(), headers=_NOT_KEPT)

    async def export_file(self, request: Request) -> Response:
        path = self._studio.exports.file(request.path_params["export"])
        return FileResponse(path, filename=path.name, headers=_NOT_KEPT)

    async def remove_export(self, request: Request) -> Response:
        await self._studio.exports.remove(request.path_params["export"])
        return JSONResponse({})

    # Frames

    async def times(self, request: Request) -> Response:
        facts = await self._studio.find(request.path_params["video"]).known()
        return JSONResponse(list(facts.times), headers=_NOT_KEPT)

    async def frame(self, request: Request) -> Response:
        return await self._picture(request, request.path_params["frame"], _width(request))

    async def thumbnail(self, request: Request) -> Response:
        return await self._picture(request, 0, THUMBNAIL_WIDTH)

    async def _picture(self, request: Request, frame: int, width: int) -> Response:
        wanted = self._studio.frame(request.path_params["video"], frame, width)
        picture = await _while_wanted(request, wanted)
        if picture is None:
            return Response(status_code=400)  # nobody reads it
        return Response(picture, media_type="image/jpeg", headers=_FOR_EVER)

    # Sessions

    async def begin_live(self, request: Request) -> Response:
        session = await self._studio.lives.start(await _json(request))
        return JSONResponse(session.told())

    async def end_live(self, request: Request) -> Response:
        await self._studio.lives.stop(request.path_params["live"])
        return JSONResponse({})

    async def session(self, socket: WebSocket) -> None:
        async def work() -> None:
            session = await self._studio.session(socket.path_params["video"])
            await session.serve(socket)

        await _served(socket, work)

    async def live_session(self, socket: WebSocket) -> None:
        async def work() -> None:
            await live_requests.serve(self._studio.lives.find(socket.path_params["live"]), socket)

        await _served(socket, work)


async def _served(socket: WebSocket, work: Callable[[], Awaitable[None]]) -> None:
    """Accept a tab, and serve it; tell it what cannot be done."""
    await socket.accept()
    try:
        await work()
    except WebSocketDisconnect:
        return
    except (MaskletError, OSError) as error:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.send_json({"event": "error", "error": error_to_dict(error)})
            await socket.close(_OVER if isinstance(error, NotFound) else _FAILED, str(error)[:100])
    else:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.close(_FAILED, "the tab did not read; open it again")


class _PageFiles(StaticFiles):
    """The page's files. A browser asks again each time, so that it never mixes the files of two versions."""

    def file_response(
        self, full_path: PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_ASKED_AGAIN)
        return response


async def _while_wanted(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes | None:
    """What the work gives; None if the browser gives up the request before that, and then the work is cancelled."""

    async def given_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(given_up())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read what is left of a part: a browser that is cut off while it sends does not read the answer."""
    left = _MAX_DRAINED
    with contextlib.suppress(ClientDisconnect):
        async for data in body:
            left -= len(data)
            if left < 0:
                return


async def _json(request: Request) -> dict[str, Any]:
    """The body of a request, which is a small JSON object."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise ResourceExhausted(f"the request is larger than {_MAX_BODY} bytes")
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise InvalidArgument("the body of the request must be a JSON object")
    return told


def _width(request: Request) -> int:
    word = request.query_params.get("width", "full")
    if word == "full":
        return 0
    if not re.fullmatch("[0-9]{1,5}", word) or int(word) not in WIDTHS:
        raise InvalidArgument.of("width", f"is {word!r:.20}, must be one of {', '.join(map(str, WIDTHS))}, full")
    return int(word)


async def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, MaskletError)
    return failure(error)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return failure(NotFound(f"there is nothing at {request.url.path!r:.100}"))
    return refusal(error.status_code, error.detail)


async def _broken(_request: Request, error: Exception) -> Response:
    return refusal(500, f"the studio failed: {type(error).__name__}: {error}")
