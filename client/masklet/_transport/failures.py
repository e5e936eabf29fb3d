"""Failed gRPC calls as masklet's own errors: no caller ever sees a bare `grpc.RpcError`."""

from __future__ import annotations

import re
from typing import Any, Protocol

from google.rpc import status_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from masklet._protocol.status import from_status, of_code
from masklet.errors import Cancelled, DeadlineExceeded, MaskletError, Unavailable

# What gRPC and proxies report of streams that were reset or removed.
_OF_THE_NETWORK = (StatusCode.CANCELLED, StatusCode.INTERNAL, StatusCode.UNKNOWN)
# How gRPC says that a connection was there, and broke.
_WAS_REACHED = re.compile(r"recvmsg|sendmsg|socket closed|stream removed|reset by peer|goaway", re.IGNORECASE)
# How it says that there was none.
_NOT_REACHED = "failed to connect to all addresses"
_RESOLVER_NOISE = re.compile(r"^(UNKNOWN: )?(ipv[46]:\S+: )?")


class FailedCall(Protocol):
    """What every `grpc.RpcError` that a call raises also is."""

    def code(self) -> Any:
        """The status code of the call, a `grpc.StatusCode`."""

    def details(self) -> Any:
        """The status message of the call, or None."""

    def trailing_metadata(self) -> Any:
        """Key and value pairs; they hold the rich status, if the server sent one."""


def from_call(error: FailedCall, *, target: str, connected: bool = False, timeout: float | None = None) -> MaskletError:
    """The error for a failed call.

    Args:
        error: What gRPC raised.
        target: The server, as a person should read it.
        connected: The server has already answered during this call.
        timeout: The limit under which the call ran, in seconds.
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
    return of_code(code.value[0], details or f"the server ended the call with {code.name}")


def is_broken(error: FailedCall, *, connected: bool) -> bool:
    """Whether the connection broke, or the server is leaving, so that another call may go on with the session.

    A server of masklet says with a rich status why it ends a call. A call that fails without one was ended by the
    network, by gRPC itself or by a proxy.

    Args:
        error: What gRPC raised.
        connected: The server has already answered during the session. If it has not, only a connection that was there
            can have broken.
    """
    code: StatusCode = error.code()
    if not connected:
        was_reached = _WAS_REACHED.search(str(error.details() or "")) is not None
        return code is StatusCode.UNAVAILABLE and was_reached and _rich_status(error) is None
    if code is StatusCode.UNAVAILABLE:
        return True
    return code in _OF_THE_NETWORK and _rich_status(error) is None


def ran_out(error: FailedCall) -> bool:
    """Whether a call was ended by its own deadline, and not by the server."""
    return error.code() is StatusCode.DEADLINE_EXCEEDED and _rich_status(error) is None


def _rich_status(error: FailedCall) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except ValueError:  # code or message differ between the rich and the plain status: a proxy has rewritten one
        return None
    return status


def nobody_listens(target: str, seconds: float) -> Unavailable:
    """The error where no server began to listen in time.

    Args:
        target: The server, as a person should read it.
        seconds: How long it was waited for.
    """
    return Unavailable(_unreachable(target, f"nobody has listened there for {seconds:g} s"))


def needs_tls(target: str) -> Unavailable:
    """The error of a client without TLS at a server with TLS."""
    return Unavailable(
        f"the server at {target} speaks TLS, and this client does not: give secure=True, or root_certificates with the "
        "file of its authority (on the command line: --ca FILE)"
    )


def _unreachable(target: str, details: str) -> str:
    return f"cannot reach a masklet server at {target} ({_reason(details)}); start one with `masklet serve`"


def _lost(target: str, details: str) -> str:
    if details.startswith(_NOT_REACHED):
        return f"{target} cannot be reached ({_reason(details)})"
    return f"the connection to {target} was lost ({_reason(details)})"


def _reason(details: str) -> str:
    return _RESOLVER_NOISE.sub("", details.rpartition("last error: ")[2]) or "no reason given"
