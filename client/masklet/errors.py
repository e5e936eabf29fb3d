"""The exceptions of client and server: one tree, each class with its gRPC status code.

MaskletError
├── InvalidArgument      a field is wrong; `violations` says which and how to mend it
├── NotFound             an unknown model or picture
├── FailedPrecondition   a message out of order, or a prompt for a frame already tracked
├── ResourceExhausted    a limit; `retry_after_seconds` where waiting helps
├── Unauthenticated      no bearer token, or a wrong one
├── DataLoss             the video cannot be decoded
├── DeadlineExceeded     no progress for too long
├── Cancelled            the other side went away or asked to stop
├── Unavailable          the server is draining, unreachable or gone
├── Unimplemented        the server does not know this request
└── Internal             a bug; the message carries an id to search the server's log for

The server raises them, an interceptor turns them into a google.rpc.Status, and the client raises them again.
"""

# ruff: noqa: N818 - the classes are named as gRPC's status codes are

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field of a request.

    Attributes:
        field: Path in the request message, such as ``prompt.points[0].x``.
        description: What is wrong and what would be right.
    """

    field: str
    description: str


class MaskletError(Exception):
    """Base of everything that masklet raises on purpose.

    Attributes:
        code: The gRPC status code's number.
        message: One sentence that names the cause and, where there is one, the fix.
        violations: The fields at fault, for errors that have them.
        retry_after_seconds: When a repeat may succeed; None where waiting does not help.
    """

    code: ClassVar[int] = 2  # UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return self.message


class InvalidArgument(MaskletError):
    """A field of the request is wrong."""

    code = 3

    @classmethod
    def of(cls, field: str, description: str) -> InvalidArgument:
        """The error of a single field, whose message is made of both arguments."""
        return cls(f"{field}: {description}", violations=(FieldViolation(field, description),))

    def within(self, parent: str) -> InvalidArgument:
        """The same error seen from the message that holds this one under the field `parent`."""
        violations = tuple(FieldViolation(f"{parent}.{v.field}", v.description) for v in self.violations)
        message = "; ".join(f"{v.field}: {v.description}" for v in violations) or self.message
        return InvalidArgument(message, violations=violations)


class NotFound(MaskletError):
    """No such model, or a picture that the server no longer holds."""

    code = 5


class FailedPrecondition(MaskletError):
    """The request is right in itself but not now."""

    code = 9


class ResourceExhausted(MaskletError):
    """A limit of the server, or its memory."""

    code = 8


class Unauthenticated(MaskletError):
    """No bearer token, or a wrong one."""

    code = 16


class DataLoss(MaskletError):
    """The video or picture cannot be decoded."""

    code = 15


class DeadlineExceeded(MaskletError):
    """Nothing moved for too long."""

    code = 4


class Cancelled(MaskletError):
    """Stopped on request."""

    code = 1


class Unavailable(MaskletError):
    """The server is draining, unreachable or gone."""

    code = 14


class Unimplemented(MaskletError):
    """The server does not know this request."""

    code = 12


class Internal(MaskletError):
    """A bug in the server."""

    code = 13


BY_CODE: dict[int, type[MaskletError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument,
        NotFound,
        FailedPrecondition,
        ResourceExhausted,
        Unauthenticated,
        DataLoss,
        DeadlineExceeded,
        Cancelled,
        Unavailable,
        Unimplemented,
        Internal,
    )
}
