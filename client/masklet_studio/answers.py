"""Answers to the page: JSON, and errors with the status of HTTP that fits."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from masklet.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    MaskletError,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

_STATUS: dict[type[MaskletError], int] = {
    InvalidArgument: 400,
    Unauthenticated: 401,
    NotFound: 404,
    FailedPrecondition: 409,
    ResourceExhausted: 413,
    DataLoss: 422,
    Unavailable: 503,
}


def error_to_dict(error: Exception) -> dict[str, Any]:
    """An error as the page has it: what is wrong, and the field, if there is one."""
    if isinstance(error, MaskletError):
        field = error.violations[0].field if error.violations else None
        return {"message": error.message, "field": field}
    return {"message": str(error), "field": None}


def failure(error: MaskletError, status: int | None = None, **fields: Any) -> JSONResponse:
    """The answer to a request that failed.

    Args:
        error: Why.
        status: Of HTTP; None: the one that goes with the error.
        **fields: What else the page should know.
    """
    return JSONResponse({"error": error_to_dict(error), **fields}, status or _status(error))


def _status(error: MaskletError) -> int:
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def refusal(status: int, message: str, field: str | None = None) -> JSONResponse:
    """The answer to a request that never reached anything that could fail."""
    return JSONResponse({"error": {"message": message, "field": field}}, status)
