"""The page of the server's settings, from `masklet_server.settings.Settings`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from docs.generate.markdown import page, table
from masklet_server.settings import ENV_PREFIX, Settings, flag_of

INTRODUCTION = f"""
A setting has one name everywhere. `max_sessions` is a line of a TOML file, `{ENV_PREFIX}MAX_SESSIONS` is an environment
variable, and `--max-sessions` is a flag of `masklet serve`. Flags win over variables, variables over the file
(`--config` or `MASKLET_CONFIG`), the file over the defaults. `masklet serve --print-config` prints the values in effect
and where each came from.

Sizes in bytes may carry a unit, such as `32MiB`. Lists are written with commas in variables, as repeated flags on the
command line, and as arrays in TOML.
"""


def render() -> str:
    """The page."""
    panels: dict[str, list[tuple[str, FieldInfo]]] = {}
    for name, field in Settings.model_fields.items():
        extra: Any = field.json_schema_extra
        panels.setdefault(str(extra["panel"]), []).append((name, field))
    return page("Settings", "`Settings`", INTRODUCTION, *_sections(panels))


def _sections(panels: Mapping[str, list[tuple[str, FieldInfo]]]) -> Iterator[str]:
    for panel, fields in panels.items():
        rows = [
            (f"`{name}`", f"`{flag_of(name)}`", _default(field), (field.description or "").replace("*", r"\*"))
            for name, field in fields
        ]
        yield f"## {panel}\n\n{table(('setting', 'flag', 'default', 'meaning'), rows)}"


def _default(field: FieldInfo) -> str:
    default: Any = field.default
    if default in (None, "", ()):
        return ""
    if field.annotation is ByteSize and default:
        return f"`{ByteSize(default).human_readable(separator='')}`"
    return f"`{', '.join(default)}`" if isinstance(default, tuple) else f"`{str(default).lower()}`"
