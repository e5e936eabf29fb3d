"""The server's settings: their types, defaults, descriptions and checks; `sources` reads them.

A setting has the same name everywhere: `max_sessions` in TOML, `MASKLET_MAX_SESSIONS` in the environment,
`--max-sessions` on the command line. No setting holds a secret: for keys and tokens it names the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from masklet.errors import FieldViolation, InvalidArgument
from masklet_server.addresses import is_loopback, split_address
from masklet_server.budgets.budget import Bounds
from masklet_server.budgets.shares import BudgetLimits
from masklet_server.fetching.rules import SCHEMES, FetchRules
from masklet_server.session.limits import ParkingLimits, SessionLimits, SnapshotLimits
from masklet_server.settings.budgets import BudgetSettings
from masklet_server.settings.fetching import FetchingSettings
from masklet_server.settings.limits import (
    ClientLimitSettings,
    ParkingSettings,
    SessionLimitSettings,
    SnapshotSettings,
    VideoLimitSettings,
)
from masklet_server.settings.serving import ListeningSettings, LoggingSettings, ModelSettings, SecuritySettings
from masklet_server.video.limits import VideoLimits

ENV_PREFIX = "MASKLET_"

# Flags whose names differ from their settings'.
_FLAGS = {"models": "--model", "grace_seconds": "--grace"}


# pydantic lists the fields of the last base class first.
class Settings(
    LoggingSettings,
    FetchingSettings,
    VideoLimitSettings,
    SessionLimitSettings,
    SnapshotSettings,
    ParkingSettings,
    BudgetSettings,
    ClientLimitSettings,
    SecuritySettings,
    ModelSettings,
    ListeningSettings,
):
    """The server's settings. Frozen; a wrong value raises pydantic's ValidationError (`checked` turns it into ours).

    Sizes in bytes may be written with a unit, such as "32MiB". 0 means "no limit" where the description says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("tls_certificate", "tls_key", "tls_client_ca", "token_file", "state_key_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("address", "metrics_address", "health_address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if value.startswith(("unix:", "unix-abstract:")):
            return value
        if value and split_address(value) is None:
            raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH, with a port from 0 to 65535")
        return value

    @field_validator("address")
    @classmethod
    def _check_has_address(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty; 127.0.0.1:50051 is the default")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/\s]+/?", value):
            raise ValueError("must be http://HOST:PORT or https://HOST:PORT")
        return value

    @field_validator("metrics_address")
    @classmethod
    def _check_metrics_address(cls, value: str) -> str:
        if value.startswith("unix"):
            raise ValueError("metrics are served over HTTP; give HOST:PORT")
        return value

    @field_validator("models", "source_schemes", "source_hosts", "source_directories", mode="before")
    @classmethod
    def _split_lists(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one model")
        if len(set(value)) < len(value):
            raise ValueError("names a model twice; name each once")
        return value

    @field_validator("source_schemes")
    @classmethod
    def _check_schemes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= set(SCHEMES):
            raise ValueError(f"must be of {', '.join(SCHEMES)}")
        return value

    @field_validator("source_directories")
    @classmethod
    def _check_directories(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for folder in value:
            if not folder.is_absolute() or not folder.is_dir():
                raise ValueError(f"{folder} must be an existing folder, given by its absolute path")
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|all|cpu|cuda(:\d+)?(,cuda:\d+)*", value):
            raise ValueError("must be auto, cpu, cuda, cuda:N, or several GPUs as all or cuda:0,cuda:1")
        return value

    @model_validator(mode="after")
    def _check_security(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        encrypted = self.tls_certificate is not None
        if not (is_loopback(self.address) or self.insecure or (encrypted and self.has_identities)):
            raise ValueError(
                f"other machines can reach {self.address}: give tls_certificate and tls_key, and token_file (or "
                "tls_client_ca); or listen on 127.0.0.1; or give insecure if you trust the network"
            )
        return self

    @property
    def video_limits(self) -> VideoLimits:
        """The limits for one video."""
        names = {f.name for f in dataclasses.fields(VideoLimits)} - {"strict_sandbox", "scaling"}
        return VideoLimits(**{name: getattr(self, name) for name in names}, strict_sandbox=self.sandbox == "strict")

    def budget_limits(self, device_bytes: int = 0) -> BudgetLimits:
        """How much there is of what all clients share.

        Args:
            device_bytes: Memory of the device that tracks; 0: it is the machine's.
        """
        return BudgetLimits(
            Bounds(self.max_disk_bytes, self.max_disk_bytes_per_client),
            self.min_free_disk_bytes,
            Bounds(self.max_decoder_memory_bytes, self.max_decoder_memory_bytes_per_client),
            Bounds(self.max_correction_memory_bytes),
            Bounds(self.max_bank_memory_bytes, self.max_bank_memory_bytes_per_client),
        ).resolved(device_bytes)

    @property
    def fetch_rules(self) -> FetchRules:
        """What the server may fetch by URL."""
        return FetchRules(self.source_schemes, self.source_hosts, self.source_directories, self.source_timeout_seconds)

    @property
    def parking_limits(self) -> ParkingLimits:
        """The limits for what waits for clients that may come back."""
        return ParkingLimits(
            self.park_seconds,
            self.max_parked_sessions,
            self.max_parked_sessions_per_client,
            self.max_kept_response_bytes,
        )

    @property
    def snapshot_limits(self) -> SnapshotLimits:
        """The limits for snapshots of sessions."""
        return SnapshotLimits(
            self.snapshot_seconds, self.max_snapshot_bytes, self.max_state_bytes, self.snapshot_frames
        )

    @property
    def has_identities(self) -> bool:
        """Whether each client has an identity: the name of its token, or the subject of its certificate."""
        return self.token_file is not None or self.tls_client_ca is not None

    @property
    def session_limits(self) -> SessionLimits:
        """The limits for one session."""
        return SessionLimits(**{f.name: getattr(self, f.name) for f in dataclasses.fields(SessionLimits)})


def checked(values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Settings:
    """Make settings of some values, and of the defaults for the rest.

    Args:
        values: Values by the name of their setting.
        origins: Where each value came from, for errors; None: not known.

    Raises:
        InvalidArgument: A value is wrong, or a name is unknown.
    """
    refuse_unknown(values, "settings")
    try:
        return Settings(**values)
    except ValidationError as error:
        violations = tuple(_violation(detail, origins or {}) for detail in error.errors())
        message = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations)
        raise InvalidArgument(message, violations=violations) from error


def flag_of(name: str) -> str:
    """The command line flag of a setting, with its dashes."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _violation(detail: Any, origins: Mapping[str, str]) -> FieldViolation:
    field = ".".join(str(part) for part in detail["loc"])
    description = detail["msg"].removeprefix("Value error, ")
    origin = origins.get(str(detail["loc"][0]), "default") if detail["loc"] else "default"
    return FieldViolation(field, description if origin == "default" else f"{description} (from {origin})")


def refuse_unknown(values: Iterable[str], where: str) -> None:
    """Refuse names that are not those of settings.

    Args:
        values: The names.
        where: Where they stand, for the error.

    Raises:
        InvalidArgument: A name is unknown.
    """
    for name in values:
        if name not in Settings.model_fields:
            near = nearest(name, cutoff=0.5)
            advice = (
                f"did you mean {near}?" if near else "`masklet serve --print-config` shows all; there are no tables"
            )
            raise InvalidArgument.of(name, f"is not a setting ({where}); {advice}")


def nearest(name: str, *, cutoff: float) -> str | None:
    """The setting with the most similar name; None where no similarity (0 to 1) reaches the cutoff."""
    return next(iter(difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=cutoff)), None)
