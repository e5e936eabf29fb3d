"""Frozen dataclasses to plain JSON values and back, with the type and the range of every field checked.

A field's annotation says what may stand there: ``int``, ``float``, ``bool``, ``str``, ``bytes``, ``Fraction``, a
``Literal`` of strings, another dataclass, any of these with a `Range`, or one of these or None. The decoding process
imports this module: keep it free of heavy imports.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The least and the greatest value of a number, or the least and the greatest length of a text or of bytes."""

    least: int
    greatest: int


Natural: TypeAlias = Annotated[int, Range(0, 2**63 - 1)]
Size: TypeAlias = Annotated[int, Range(1, 2**31 - 1)]
Integer64: TypeAlias = Annotated[int, Range(-(2**63), 2**63 - 1)]
Seconds: TypeAlias = Annotated[float, Range(0, 2**63)]
Rate: TypeAlias = Annotated[float, Range(0, 2**31)]
ShortText: TypeAlias = Annotated[str, Range(0, 200)]

TakeBytes: TypeAlias = Callable[[int], bytes]
_Reader: TypeAlias = Callable[[object, TakeBytes], object]

_READERS: dict[type, dict[str, _Reader]] = {}


class SchemaError(ValueError):
    """A value does not fit the field that it is for; the message names the field."""


def to_plain(record: Any) -> dict[str, object]:
    """The fields of a dataclass as values of JSON; a field of bytes becomes their number.

    Raises:
        SchemaError: A field has a value that `from_plain` would refuse.
    """
    plain = {field.name: _plain(getattr(record, field.name)) for field in dataclasses.fields(record)}
    from_plain(type(record), plain, lambda _: b"")
    return plain


def from_plain(record_type: type[T], plain: object, take_bytes: TakeBytes) -> T:
    """Make a dataclass from values of JSON.

    Args:
        record_type: A dataclass.
        plain: The fields by name; nothing about them is trusted.
        take_bytes: Gives as many bytes as `plain` says that a field has.

    Raises:
        SchemaError: A field is missing or unknown, has another type, or is out of its range.
    """
    readers = _readers(record_type)
    if not isinstance(plain, dict):
        raise SchemaError(f"{record_type.__name__} must be an object with fields")
    if unknown := plain.keys() - readers.keys():
        raise SchemaError(f"{record_type.__name__} has no field {min(unknown)[:40]!r}")
    values = {}
    for name, read in readers.items():
        if name not in plain:
            raise SchemaError(f"{record_type.__name__}.{name} is missing")
        try:
            values[name] = read(plain[name], take_bytes)
        except SchemaError as error:
            raise SchemaError(f"{record_type.__name__}.{name}: {error}") from None
    try:
        return record_type(**values)
    except SchemaError:
        raise
    except ValueError as error:  # the dataclass's own check of fields that must fit one another
        raise SchemaError(f"{record_type.__name__}: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)  # pydantic's ByteSize is a class of its own
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _readers(record_type: type) -> dict[str, _Reader]:
    """What reads each field. It is made once for each dataclass, because looking at annotations is slow."""
    if record_type not in _READERS:
        hints = get_type_hints(record_type, include_extras=True)
        _READERS[record_type] = {name: _reader(kind) for name, kind in hints.items()}
    return _READERS[record_type]


def _reader(kind: Any) -> _Reader:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        base, limits = arguments
        return _sized_bytes(limits) if base is bytes else _ranged(_reader(base), limits)
    if origin in (Union, UnionType):
        (inner,) = (one for one in arguments if one is not NoneType)
        return _optional(_reader(inner))
    if origin is Literal:
        return _choice(arguments)
    if dataclasses.is_dataclass(kind):
        record_type: type = kind  # type: ignore[assignment]
        return lambda value, take_bytes: from_plain(record_type, value, take_bytes)
    return {bool: _exactly(bool), int: _exactly(int), str: _exactly(str), float: _number, Fraction: _fraction}[kind]


def _exactly(kind: type) -> _Reader:
    def read(value: object, take_bytes: TakeBytes) -> object:
        if type(value) is not kind:  # a bool is an int to isinstance()
            raise SchemaError(f"must be of type {kind.__name__}, not {type(value).__name__}")
        return value

    return read


def _number(value: object, take_bytes: TakeBytes) -> float:
    if type(value) not in (int, float):
        raise SchemaError(f"must be a number, not {type(value).__name__}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SchemaError("must be a finite number")
    return number


def _fraction(value: object, take_bytes: TakeBytes) -> Fraction:
    is_pair = isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
    if not is_pair or not all(0 < one < 2**31 for one in value):  # type: ignore[attr-defined]
        raise SchemaError("must be a numerator and a denominator between 1 and 2147483647")
    return Fraction(*value)  # type: ignore[misc]


def _choice(allowed: tuple[str, ...]) -> _Reader:
    def read(value: object, take_bytes: TakeBytes) -> object:
        if not isinstance(value, str) or value not in allowed:
            raise SchemaError(f"must be one of {', '.join(allowed)}")
        return value

    return read


def _optional(inner: _Reader) -> _Reader:
    return lambda value, take_bytes: None if value is None else inner(value, take_bytes)


def _ranged(inner: _Reader, limits: Range) -> _Reader:
    def read(value: object, take_bytes: TakeBytes) -> object:
        result: Any = inner(value, take_bytes)
        size, what = (len(result), "have a length") if isinstance(result, str) else (result, "be")
        if not limits.least <= size <= limits.greatest:
            raise SchemaError(f"must {what} between {limits.least} and {limits.greatest}")
        return result

    return read


def _sized_bytes(limits: Range) -> _Reader:
    """Check how many bytes there should be before any of them is taken."""
    count = _ranged(_exactly(int), limits)
    return lambda value, take_bytes: take_bytes(count(value, take_bytes))  # type: ignore[arg-type]
