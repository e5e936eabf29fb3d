"""Reads the settings from four sources: flags, `MASKLET_*` variables, a TOML file, and defaults, in this order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, TomlConfigSettingsSource
from pydantic_settings import SettingsError as SourceError

from masklet.errors import InvalidArgument
from masklet_server.settings.settings import ENV_PREFIX, Settings, checked, flag_of, nearest, refuse_unknown

CONFIG_VARIABLE = "MASKLET_CONFIG"

# Variables with our prefix that are not settings of the server.
_OTHER_VARIABLES = {CONFIG_VARIABLE, "MASKLET_CACHE", "MASKLET_SERVER", "MASKLET_SERVERS", "MASKLET_TOKEN"}
# Kubernetes sets these in every pod beside a service that is called "masklet".
_SERVICE_LINK = re.compile(r"MASKLET_(SERVICE_|PORT$|PORT_)")


class _Sources(Settings, BaseSettings):  # type: ignore[misc]  # their model_config are of two types
    """The fields as pydantic-settings wants them. Never made, so that `Settings` itself reads no environment."""


@dataclass(frozen=True)
class LoadedSettings:
    """The settings in effect, and where each came from.

    Attributes:
        settings: The settings in effect.
        origins: For each setting's name: "default", its flag, its variable, or the path of the file.
    """

    settings: Settings
    origins: Mapping[str, str]

    def to_toml(self) -> str:
        """The settings as a TOML file, each with a comment on its origin; reading the file gives the same settings."""
        lines = ["# flags > MASKLET_* variables > configuration file > defaults"]
        for name in Settings.model_fields:
            value = getattr(self.settings, name)
            line = f'# {name} = ""' if value is None else f"{name} = {_toml(value)}"
            lines.append(f"{line}  # {self.origins[name]}")
        return "\n".join(lines) + "\n"


def load_settings(
    flags: Mapping[str, Any] | None = None, *, config: Path | None = None, defaults: Mapping[str, Any] | None = None
) -> LoadedSettings:
    """Read the settings from all four sources.

    Args:
        flags: Values by the name of their setting; without those whose flag was not given.
        config: A TOML file; None: the file that MASKLET_CONFIG names, if any.
        defaults: Other defaults than those of the settings themselves.

    Raises:
        InvalidArgument: A value is wrong, a name is unknown, or the file cannot be read; the message says where.
    """
    flags = flags or {}
    if config is None and os.environ.get(CONFIG_VARIABLE):
        config = Path(os.environ[CONFIG_VARIABLE])
    from_file = _read_file(config) if config is not None else {}
    from_environment = _read_environment()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in Settings.model_fields:
        layers = (
            (flags, flag_of(name)),
            (from_environment, ENV_PREFIX + name.upper()),
            (from_file, str(config)),
            (defaults or {}, "default"),
        )
        origins[name] = "default"
        for layer, origin in layers:
            if name in layer:
                values[name], origins[name] = layer[name], origin
                break
    return LoadedSettings(checked(values, origins), origins)


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InvalidArgument.of("config", f"there is no file {path}; check the path")
    try:
        values = dict(TomlConfigSettingsSource(_Sources, toml_file=path)())
    except (OSError, ValueError) as error:
        raise InvalidArgument.of("config", f"{path} is not a readable TOML file: {error}") from error
    refuse_unknown(values, str(path))
    return values


def _read_environment() -> dict[str, Any]:
    # A variable that resembles no setting belongs to another program; one that nearly is a setting is a mistake.
    for variable in sorted(os.environ):
        if not variable.startswith(ENV_PREFIX) or variable in _OTHER_VARIABLES or _SERVICE_LINK.match(variable):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        near = nearest(name, cutoff=0.8)
        if name not in Settings.model_fields and near:
            raise InvalidArgument.of(variable, f"is not a setting; did you mean {ENV_PREFIX}{near.upper()}?")
    try:
        return dict(EnvSettingsSource(_Sources, env_prefix=ENV_PREFIX, env_ignore_empty=True)())
    except SourceError as error:
        raise InvalidArgument.of("environment", str(error)) from error


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # Numbers, booleans and strings are written alike in JSON and TOML, except that TOML knows no surrogate pairs.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")
