"""The exceptions of client and server: one tree, each class with its gRPC status code.

MaskletError
├── InvalidArgument      a field is wrong; `violations` says which one, and how to fix it
├── NotFound             there is no such model, object or picture
├── FailedPrecondition   the request is not possible now, such as a message out of order
├── ResourceExhausted    a limit is reached; `retry_after_seconds` is set where waiting helps
├── Unauthenticated      no bearer token, or a wrong one
├── DataLoss             the video cannot be decoded
├── DeadlineExceeded     a time limit is reached, or there was no progress for too long
├── Cancelled            the call was cancelled, or the other side went away
├── Aborted              another call has taken this one's place
├── Unavailable          the server is shutting down, unreachable or gone
├── Unimplemented        the server does not know this request
└── Internal             a bug in the server; the message has an id to search its log for

The server raises them, an interceptor turns them into a google.rpc.Status, and the client raises them again.
"""

# ruff: noqa: N818 - the classes are named as gRPC's status codes are

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masklet._urls import without_secrets


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field of a request.

    Attributes:
        field: Path in the request message, such as ``prompt.points[0].x``.
        description: What is wrong and what would be right, without passwords of URLs.
    """

    field: str
    description: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "description", without_secrets(self.description))


class MaskletError(Exception):
    """Base of everything that masklet raises on purpose.

    Attributes:
        code: The number of the gRPC status code.
        message: One sentence that names the cause and, where there is one, the fix; without passwords of URLs.
        violations: The fields that are wrong; empty where the error is not about fields.
        retry_after_seconds: After how many seconds a retry may succeed; None where waiting does not help.
    """

    code: ClassVar[int] = 2  # UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        message = without_secrets(message)
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
        """The error of a single field.

        Args:
            field: Path in the request message, such as ``prompt.points[0].x``.
            description: What is wrong, and what would be right.
        """
        return cls(f"{field}: {description}", violations=(FieldViolation(field, description),))

    def within(self, parent: str) -> InvalidArgument:
        """The same error, as the message reports it that has this one in its field `parent`."""
        violations = tuple(FieldViolation(f"{parent}.{v.field}", v.description) for v in self.violations)
        message = "; ".join(f"{v.field}: {v.description}" for v in violations) or self.message
        return InvalidArgument(message, violations=violations)


class NotFound(MaskletError):
    """There is no such model or object, or the server does not hold the picture any more."""

    code = 5


class FailedPrecondition(MaskletError):
    """The request is valid, but not possible now."""

    code = 9


class ResourceExhausted(MaskletError):
    """A limit of the server is reached, or its memory or disk is full."""

    code = 8


class Unauthenticated(MaskletError):
    """The request has no bearer token, or a wrong one."""

    code = 16


class DataLoss(MaskletError):
    """The video or picture cannot be decoded."""

    code = 15


class DeadlineExceeded(MaskletError):
    """A time limit is reached, or there was no progress for too long."""

    code = 4


class Cancelled(MaskletError):
    """The call was cancelled, or the other side went away."""

    code = 1


class Aborted(MaskletError):
    """Another call goes on with the session of this one."""

    code = 10


class Unavailable(MaskletError):
    """The server is shutting down, unreachable or gone."""

    code = 14


class Unimplemented(MaskletError):
    """The server does not know this request."""

    code = 12


class Internal(MaskletError):
    """There is a bug in the server; its log says more."""

    code = 13


BY_CODE: dict[int, type[MaskletError]] = {
    cls.code: cls
    for cls in (
        Aborted,
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
