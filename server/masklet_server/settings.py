"""The server's settings: their types, defaults, descriptions and checks; `settings_sources` reads them.

A setting has the same name everywhere: `max_sessions` in TOML, `MASKLET_MAX_SESSIONS` in the environment,
`--max-sessions` on the command line. No setting holds a secret: for keys and tokens it names the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode

from masklet.errors import FieldViolation, InvalidArgument
from masklet_server.addresses import is_loopback, split_address
from masklet_server.fetching.rules import SCHEMES, FetchRules
from masklet_server.session.limits import SessionLimits
from masklet_server.settings_types import Bytes, Count, Positive, Seconds, setting
from masklet_server.video.limits import VideoLimits

ENV_PREFIX = "MASKLET_"

# Flags whose names differ from their settings'.
_FLAGS = {"models": "--model", "grace_seconds": "--grace"}

_MIB = 1024**2
_VIDEO = VideoLimits()
_SESSION = SessionLimits()
_FETCH = FetchRules()


class Settings(BaseModel):
    """The server's settings. Frozen; a wrong value raises pydantic's ValidationError (`checked` turns it into ours).

    Sizes in bytes may be written with a unit, such as "32MiB". 0 means "no limit" where the description says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    address: str = setting(
        "127.0.0.1:50051", "Listening", "Where to listen: HOST:PORT, [IPV6]:PORT or unix:PATH. Port 0: any free port."
    )
    metrics_address: str = setting(
        "", "Listening", "HOST:PORT where Prometheus metrics are served over HTTP. Empty: they are not served."
    )
    health_address: str = setting(
        "",
        "Listening",
        "HOST:PORT of a second listener without TLS, for probes; it serves grpc.health.v1 alone. Empty: there is none.",
    )
    grace_seconds: Seconds = setting(
        30.0, "Listening", "How long running requests may go on after SIGTERM before they are ended, in seconds."
    )
    max_message_bytes: Annotated[ByteSize, Field(ge=_MIB, le=2**31 - 1)] = setting(
        32 * _MIB,
        "Listening",
        "Largest gRPC message in either direction, in bytes. It bounds the size of a picture that a client sends.",
    )

    models: Annotated[tuple[str, ...], NoDecode] = setting(
        ("nano",),
        "Models",
        "Models to load, by name; the first is the default model. `masklet models list` shows the names. NAME@SIZE "
        "loads a model for another size of its input, such as sam2.1-tiny@512.",
    )
    device: str = setting("auto", "Models", "Device that computes: auto (a GPU if there is one), cpu, cuda or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Models",
        "Number format of the computation. auto: bfloat16 on a GPU that has it; on a CPU the quicker one.",
    )
    runtime: Literal["auto", "torch", "openvino"] = setting(
        "auto",
        "Models",
        "Library that computes on a CPU. auto: for each part of the network the quicker one, if OpenVINO is installed; "
        "with dtype float32 torch alone, which gives SAM 2's masks bit for bit.",
    )
    cuda_graphs: bool = setting(False, "Models", "Record steps as CUDA graphs. An experiment that is not measured yet.")
    picture_cache_bytes: Bytes = setting(
        512 * _MIB,
        "Models",
        "Memory for pictures that were encoded for SegmentImage and may be asked about again, in bytes.",
    )

    tls_certificate: Path | None = setting(
        None, "Security", "PEM file with the server's certificate chain. Needs tls_key."
    )
    tls_key: Path | None = setting(None, "Security", "PEM file with the private key of the certificate.")
    tls_client_ca: Path | None = setting(
        None,
        "Security",
        "PEM file with the authorities that sign client certificates; clients must then have one (mutual TLS).",
    )
    token_file: Path | None = setting(
        None,
        "Security",
        "File with the bearer tokens that clients may use, one on each line: TOKEN or NAME TOKEN. It is read "
        "again when it changes.",
    )
    insecure: bool = setting(
        False, "Security", "Allow an address that other machines can reach, without TLS and tokens."
    )

    sandbox: Literal["strict", "best-effort"] = setting(
        "best-effort",
        "Security",
        "strict: do not start where a layer of the decoders' sandbox is missing; `masklet doctor` names it.",
    )

    max_sessions: Count = setting(
        64, "Limits for clients", "Track streams at once, of all clients together. 0: no limit."
    )
    max_sessions_per_client: Count = setting(
        16, "Limits for clients", "Track streams at once of one client. 0: no limit."
    )
    max_requests: Positive = setting(
        16, "Limits for clients", "SegmentImage requests received and answered at once; more wait for their turn."
    )
    max_requests_per_client: Positive = setting(
        8, "Limits for clients", "The same of one client. 32 times as many may wait; more are refused."
    )
    receive_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        60.0, "Limits for clients", "Seconds in which the message of a request must arrive once its turn has come."
    )
    requests_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = setting(
        0.0, "Limits for clients", "Requests per second of one client. 0: no limit."
    )
    upload_bytes_per_second: Bytes = setting(
        0, "Limits for clients", "Bytes per second that one client may send. 0: no limit."
    )

    max_objects: Positive = setting(
        _SESSION.max_objects, "Limits for a session", "Objects tracked at once in a session, at most."
    )
    window: Positive = setting(
        _SESSION.window,
        "Limits for a session",
        "Frame results that the server sends before the client has acknowledged them, at most.",
    )
    idle_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _SESSION.idle_timeout_seconds,
        "Limits for a session",
        "Seconds without any progress after which a session ends.",
    )
    annotation_idle_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _SESSION.annotation_idle_timeout_seconds,
        "Limits for a session",
        "Seconds without a request after which a session with propagation on request ends, once its video "
        "has been received.",
    )
    max_latency_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _SESSION.max_latency_seconds,
        "Limits for a session",
        'With delivery "latest": seconds that a frame may wait before it is skipped, if the client does not say.',
    )
    correction_window: Count = setting(
        _SESSION.correction_window,
        "Limits for a session",
        "How many of the last tracked frames are kept ready to be corrected. 0: no corrections.",
    )
    correction_bytes: Bytes = setting(
        _SESSION.correction_bytes,
        "Limits for a session",
        "Memory of one session for its correction window, in bytes. If it does not suffice, fewer frames "
        "can be corrected.",
    )
    max_mask_bytes: Bytes = setting(
        _SESSION.max_mask_bytes, "Limits for a session", "Largest encoded mask in a prompt, in bytes."
    )
    max_stored_frame_bytes: Bytes = setting(
        _SESSION.max_stored_frame_bytes,
        "Limits for a session",
        "With propagation on request: largest temporary file that holds a session's frames at the model's "
        "size, in bytes.",
    )
    max_history_bytes: Bytes = setting(
        _SESSION.max_history_bytes,
        "Limits for a session",
        "Largest temporary file that holds the past of a session's objects, in bytes. It is used for "
        "corrections of a file and with propagation on request.",
    )

    max_upload_bytes: Annotated[ByteSize, Field(ge=1)] = setting(
        _VIDEO.max_upload_bytes,
        "Limits for a video",
        "Largest video file that a client may upload, in bytes; also of pictures and packets that wait on disk.",
    )
    max_frame_pixels: Positive = setting(
        _VIDEO.max_frame_pixels, "Limits for a video", "Largest frame: height times width, in pixels."
    )
    max_side: Positive = setting(
        _VIDEO.max_side, "Limits for a video", "Largest height or width of a frame, in pixels."
    )
    max_frames: Count = setting(_VIDEO.max_frames, "Limits for a video", "Frames in one clip. 0: no limit.")
    max_duration_seconds: Seconds = setting(
        _VIDEO.max_duration_seconds,
        "Limits for a video",
        "Length of one clip in seconds, by the time stamp of its last frame. 0: no limit.",
    )
    max_decoded_pixels: Count = setting(
        _VIDEO.max_decoded_pixels, "Limits for a video", "Pixels of all frames of one clip together. 0: no limit."
    )
    decoder_memory_bytes: Annotated[ByteSize, Field(ge=512 * _MIB)] = setting(
        _VIDEO.decoder_memory_bytes, "Limits for a video", "Address space of one decoding process, in bytes."
    )
    decoder_cpu_seconds: Count = setting(
        _VIDEO.decoder_cpu_seconds,
        "Limits for a video",
        "Processor time of one decoding process, in seconds. 0: no limit.",
    )
    first_frame_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _VIDEO.first_frame_timeout_seconds,
        "Limits for a video",
        "Seconds from the end of an upload to its first decoded frame.",
    )

    source_schemes: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Fetching videos",
        "Kinds of URLs that the server fetches videos from (config.source_url): http, https, file. Empty: it "
        "fetches nothing.",
    )
    source_hosts: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Fetching videos",
        "Hosts to fetch videos from, by name or by pattern (*.example.org). A host with a private address "
        "must be given by its full name.",
    )
    source_directories: Annotated[tuple[Path, ...], NoDecode] = setting(
        (),
        "Fetching videos",
        "Folders from which video files may be read. Links that lead out of them are not followed.",
    )
    source_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _FETCH.timeout_seconds, "Fetching videos", "Seconds to fetch a whole video. max_upload_bytes limits its size."
    )

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Logging", "The least important messages that are logged."
    )
    log_json: bool = setting(False, "Logging", "Write the log as JSON, one object on each line.")

    @field_validator("tls_certificate", "tls_key", "tls_client_ca", "token_file", mode="before")
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
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return value

    @model_validator(mode="after")
    def _check_security(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        encrypted = self.tls_certificate is not None
        authenticated = self.token_file is not None or self.tls_client_ca is not None
        if not (is_loopback(self.address) or self.insecure or (encrypted and authenticated)):
            raise ValueError(
                f"other machines can reach {self.address}: give tls_certificate and tls_key, and token_file (or "
                "tls_client_ca); or listen on 127.0.0.1; or give insecure if you trust the network"
            )
        return self

    @property
    def video_limits(self) -> VideoLimits:
        """The limits for one video."""
        names = {f.name for f in dataclasses.fields(VideoLimits)} - {"strict_sandbox"}
        return VideoLimits(**{name: getattr(self, name) for name in names}, strict_sandbox=self.sandbox == "strict")

    @property
    def fetch_rules(self) -> FetchRules:
        """What the server may fetch by URL."""
        return FetchRules(self.source_schemes, self.source_hosts, self.source_directories, self.source_timeout_seconds)

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
