"""Flags for settings: each is made from the setting itself, so that no two places can differ."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from masklet_server.settings import Settings, flag_of


def setting_flags(names: Iterable[str]) -> list[inspect.Parameter]:
    """A flag for each of the settings; None unless it is given."""
    return [keyword(name, _flag_type(name, Settings.model_fields[name]), None) for name in names]


def keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A parameter that typer makes a flag of."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def config_flags() -> list[inspect.Parameter]:
    """The flags --config and --print-config."""
    config = typer.Option(
        metavar="FILE",
        help="TOML file with settings. Default: the file that MASKLET_CONFIG names, if any.",
        show_default=False,
    )
    print_config = typer.Option(
        "--print-config", help="Print the settings in effect as TOML, with the origin of each, and exit."
    )
    return [
        keyword("config", Annotated[Path | None, config], None),
        keyword("print_config", Annotated[bool, print_config], False),
    ]


def given_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Of the flags those that were given, as the values of settings."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _flag_type(name: str, field: FieldInfo) -> Any:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    flag, kind, metavar = flag_of(name), *_kind(name, field.annotation)
    if kind is bool:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    text = f"{field.description} {_default_text(field)}".rstrip()
    option = typer.Option(flag, help=text, rich_help_panel=str(extra["panel"]), metavar=metavar, show_default=False)
    return Annotated[kind | None, option]


def _default_text(field: FieldInfo) -> str:
    default: Any = field.default
    if default is None or default is False or default in ("", ()):
        return ""
    if field.annotation is ByteSize and default:
        default = re.sub(r"\.0(?=[A-Z])", "", ByteSize(default).human_readable(separator=""))
    if isinstance(default, float):
        default = f"{default:g}"
    return f"Default: {', '.join(default) if isinstance(default, tuple) else default}."


def _kind(name: str, annotation: Any) -> tuple[Any, str | None]:
    """Type and placeholder of a setting's flag. Values stay text, which pydantic reads as it reads the environment."""
    if annotation is bool:
        return bool, None
    if get_origin(annotation) is tuple:
        return list[str], "NAME"
    if get_origin(annotation) is Literal:
        return str, "|".join(get_args(annotation))
    if Path in get_args(annotation):
        return str, "FILE"
    if annotation is str:
        return str, "ADDRESS" if name.endswith("address") else name.upper()
    if annotation is ByteSize:
        return str, "BYTES"
    return str, "SECONDS" if name.endswith("_seconds") else "N"
