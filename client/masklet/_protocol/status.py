"""A google.rpc.Status as one of masklet's own errors."""

from __future__ import annotations

from typing import Any

from google.rpc import error_details_pb2, status_pb2

from masklet.errors import BY_CODE, FieldViolation, MaskletError


def from_status(status: status_pb2.Status) -> MaskletError:
    """The error that a status describes, with its field violations and the time to wait before a retry."""
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        retry_info = error_details_pb2.RetryInfo()
        if detail.Unpack(bad_request):
            violations += [FieldViolation(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Unpack(retry_info):
            delay = retry_info.retry_delay
            retry_after = delay.seconds + delay.nanos / 1e9
    return of_code(status.code, status.message, violations=tuple(violations), retry_after_seconds=retry_after)


def of_code(code: int, message: str, **details: Any) -> MaskletError:
    """The error of a gRPC status code's number; `MaskletError` itself where the code has no class of its own."""
    return BY_CODE.get(code, MaskletError)(message, **details)
