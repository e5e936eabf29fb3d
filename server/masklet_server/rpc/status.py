"""Errors as google.rpc.Status, with details for programs, small enough for gRPC's trailers."""

from __future__ import annotations

import logging
import re
import secrets

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from masklet.errors import FieldViolation, Internal, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.limit_names import with_flags

logger = logging.getLogger(__name__)

ERROR_DOMAIN = "masklet"

# A client drops a call whose trailers exceed 8 KiB, and messages may quote what a client sent. The message is sent
# twice (percent-encoded, which can triple its size, and in the base64 of the details), everything else once.
_MAX_MESSAGE_BYTES = 1000
_MAX_VIOLATION_BYTES = 1600
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def to_status(error: MaskletError) -> status_pb2.Status:
    """The error as it is sent: code, message, and details of the kinds that Google's error model has.

    There is always an ErrorInfo; a BadRequest for wrong fields; a QuotaFailure for limits, in which the subject of a
    violation is the limit's name; and a RetryInfo if waiting helps.
    """
    text = with_flags(error.message) if isinstance(error, ResourceExhausted) else error.message
    message = _shortened(text, _MAX_MESSAGE_BYTES)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=_reason(error), domain=ERROR_DOMAIN)]
    violations = _fitting(error.violations)
    if isinstance(error, ResourceExhausted):
        details.append(_quota_failure(violations or [FieldViolation("", _shortened(error.message, 400))]))
    elif violations:
        details.append(_bad_request(violations))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=error.code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def as_masklet_error(error: Exception) -> MaskletError:
    """The error itself if it is a MaskletError. A bug becomes an Internal error with an id, by which the log names it.

    A message that cannot be parsed is the client's mistake: InvalidArgument.
    """
    if isinstance(error, MaskletError) and not isinstance(error, Internal):
        return error
    if isinstance(error, DecodeError):
        return InvalidArgument(
            "a message cannot be parsed; send what masklet's protos describe, in protobuf's encoding"
        )
    error_id = secrets.token_hex(6)
    logger.error("internal error", exc_info=error, extra={"error_id": error_id})
    return Internal(f"internal error {error_id}; search the server's log for this id")


def code_name(code: int | grpc.StatusCode | None) -> str:
    """The status code's name, such as "OK". None is OK: a handler that sets no code ends with it."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODES.get(code or 0, grpc.StatusCode.UNKNOWN).name


def _reason(error: MaskletError) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).upper()


def _bad_request(violations: list[FieldViolation]) -> error_details_pb2.BadRequest:
    make = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[make(field=v.field, description=v.description) for v in violations]
    )


def _quota_failure(violations: list[FieldViolation]) -> error_details_pb2.QuotaFailure:
    make = error_details_pb2.QuotaFailure.Violation
    return error_details_pb2.QuotaFailure(
        violations=[make(subject=v.field, description=v.description) for v in violations]
    )


def _fitting(violations: tuple[FieldViolation, ...]) -> list[FieldViolation]:
    fitting: list[FieldViolation] = []
    left = _MAX_VIOLATION_BYTES
    for violation in violations:
        short = FieldViolation(_shortened(violation.field, 200), _shortened(violation.description, 400))
        left -= len(short.field.encode()) + len(short.description.encode())
        if left < 0:
            break
        fitting.append(short)
    return fitting


def _shortened(text: str, limit: int) -> str:
    # A proto string cannot have surrogates, which come from odd file names, for example.
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 4].decode(errors="ignore") + " ..."
