"""The types of settings: numbers within bounds, and the field of a setting."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ByteSize, Field

MIB = 1024**2

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[ByteSize, Field(ge=0)]


def setting(default: Any, panel: str, description: str) -> Any:
    """The field of a setting.

    Args:
        default: Its default.
        panel: The part of the help in which its flag stands.
        description: One or two sentences for the help and the reference.
    """
    return Field(default, description=description, json_schema_extra={"panel": panel})
