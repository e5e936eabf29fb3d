"""The wire of Label Studio's backends: ``/health``, ``/setup``, ``/predict``, and what else it may call.

The messages are those of label-studio-ml (https://github.com/HumanSignal/label-studio-ml-backend).
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from masklet.errors import InvalidArgument, MaskletError, NotFound, ResourceExhausted
from masklet.integrations.label_studio.prediction import Predictor

MAX_BODY_BYTES = 64 * 1024**2
"""The largest request: tasks with the boxes of long videos."""
_LOG = logging.getLogger("masklet.label_studio")
_STATUS = ((InvalidArgument, 400), (NotFound, 404), (ResourceExhausted, 503), (MaskletError, 502))

_Endpoint = Callable[[Request], Awaitable[Response]]


def application(predictor: Predictor, *, credentials: str = "") -> Starlette:
    """The backend as an ASGI application.

    Args:
        predictor: Answers requests for predictions.
        credentials: USER:PASSWORD that Label Studio must send (its fields for basic authentication); empty: none.
    """

    async def health(request: Request) -> Response:
        del request
        return JSONResponse({"status": "UP", "model_class": "masklet"})

    async def setup(request: Request) -> Response:
        body = await _body(request)
        predictor.check_labels(_text(body, "schema"))
        return JSONResponse({"model_version": predictor.version})

    async def predict(request: Request) -> Response:
        body = await _body(request)
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise InvalidArgument.of("tasks", "must be a list of tasks")
        parameters = body.get("params") or {}
        context = parameters.get("context") if isinstance(parameters, dict) else None
        labels = _text(body, "label_config")
        results = [await run_in_threadpool(predictor.predict, task, labels, context) for task in tasks]
        return JSONResponse({"results": results, "model_version": predictor.version})

    async def nothing(request: Request) -> Response:
        del request  # masklet learns nothing from annotations
        return JSONResponse({"status": "ok"}, status_code=201)

    async def versions(request: Request) -> Response:
        del request
        return JSONResponse({"versions": [predictor.version]})

    routes = [
        Route("/", _guarded(health, credentials), methods=["GET"]),
        Route("/health", _guarded(health, credentials), methods=["GET"]),
        Route("/setup", _guarded(setup, credentials), methods=["POST"]),
        Route("/predict", _guarded(predict, credentials), methods=["POST"]),
        Route("/webhook", _guarded(nothing, credentials), methods=["POST"]),
        Route("/train", _guarded(nothing, credentials), methods=["POST"]),
        Route("/versions", _guarded(versions, credentials), methods=["GET"]),
    ]
    return Starlette(routes=routes)


def _guarded(endpoint: _Endpoint, credentials: str) -> _Endpoint:
    """The endpoint for those who may ask, with errors as JSON that Label Studio shows."""
    wanted = "Basic " + base64.b64encode(credentials.encode()).decode()

    async def guarded(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if credentials and not hmac.compare_digest(given.encode(), wanted.encode()):
            return JSONResponse(
                {"error": "this backend needs a user name and a password"},
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="masklet"'},
            )
        try:
            return await endpoint(request)
        except MaskletError as error:
            _LOG.warning("%s: %s", request.url.path, error)
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            return JSONResponse({"error": str(error)}, status_code=status)

    return guarded


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request, read only as far as it may be long."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise InvalidArgument.of("body", f"has more than {MAX_BODY_BYTES} bytes; send fewer tasks at once")
    try:
        body = json.loads(data)
    except ValueError as error:
        raise InvalidArgument.of("body", f"is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidArgument.of("body", "must be a JSON object")
    return body


def _text(body: dict[str, Any], field: str) -> str:
    text = body.get(field) or ""
    if not isinstance(text, str):
        raise InvalidArgument.of(field, "must be a labeling interface as text")
    return text
