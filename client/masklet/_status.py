"""gRPC's errors as masklet's own: no caller ever sees a bare `grpc.RpcError`."""

from __future__ import annotations

import re
from typing import Any, Protocol

from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from masklet.errors import BY_CODE, Cancelled, DeadlineExceeded, FieldViolation, MaskletError, Unavailable

_RESOLVER_NOISE = re.compile(r"^(UNKNOWN: )?(ipv[46]:\S+: )?")


class FailedCall(Protocol):
    """What every `grpc.RpcError` that a call raises also is."""

    def code(self) -> Any:
        """The status code."""

    def details(self) -> Any:
        """The status message."""

    def trailing_metadata(self) -> Any:
        """Holds the rich status, if the server sent one."""


def from_status(status: status_pb2.Status) -> MaskletError:
    """The exception that a google.rpc.Status describes, with its field violations and its time to wait."""
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
    return _of_code(status.code, status.message, violations=tuple(violations), retry_after_seconds=retry_after)


def from_call(error: FailedCall, *, target: str, connected: bool = False, timeout: float | None = None) -> MaskletError:
    """The exception for a failed call.

    Args:
        error: What gRPC raised.
        target: The server, as a person should read it.
        connected: The server has already answered during this call.
        timeout: The limit the call ran under, in seconds.
    """
    code: StatusCode = error.code()
    details = str(error.details() or "")
    rich = _rich_status(error)
    if rich is not None:
        return from_status(rich)
    if code is StatusCode.UNAVAILABLE:
        return Unavailable(_lost(target, details) if connected else _unreachable(target, details))
    if code is StatusCode.DEADLINE_EXCEEDED and timeout is not None:
        return DeadlineExceeded(f"{target} did not finish within {timeout:g} s; raise `timeout` to wait longer")
    if code is StatusCode.CANCELLED:
        return Cancelled(f"the call was cancelled: {details or 'no reason given'}")
    return _of_code(code.value[0], details or f"the server ended the call with {code.name}")


def _rich_status(error: FailedCall) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except ValueError:  # code or message differ between the rich and the plain status: a proxy has rewritten one
        return None
    return status


def _of_code(code: int, message: str, **details: Any) -> MaskletError:
    return BY_CODE.get(code, MaskletError)(message, **details)


def _unreachable(target: str, details: str) -> str:
    reason = _RESOLVER_NOISE.sub("", details.rpartition("last error: ")[2]) or "no reason given"
    return f"cannot reach a masklet server at {target} ({reason}); start one with `masklet serve`"


def _lost(target: str, details: str) -> str:
    return f"the connection to {target} was lost ({details or 'no reason given'}); start again"
