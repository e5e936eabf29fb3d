"""Settings of listening, models, security and the log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, Field
from pydantic_settings import NoDecode

from masklet_server.settings.types import MIB, Bytes, Seconds, setting


class ListeningSettings(BaseModel):
    """Where the server listens, and how it stops."""

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
    max_message_bytes: Annotated[ByteSize, Field(ge=MIB, le=2**31 - 1)] = setting(
        32 * MIB,
        "Listening",
        "Largest gRPC message in either direction, in bytes. It bounds the size of a picture that a client sends.",
    )


class ModelSettings(BaseModel):
    """Which models compute, and where."""

    models: Annotated[tuple[str, ...], NoDecode] = setting(
        ("nano",),
        "Models",
        "Models to load, by name; the first is the default model. `masklet models list` shows the names. NAME@SIZE "
        "loads a model for another size of its input, such as sam2.1-tiny@512.",
    )
    device: str = setting(
        "auto",
        "Models",
        "Device that computes: auto (a GPU if there is one), cpu, cuda or cuda:N. Several GPUs: all, or cuda:0,cuda:1. "
        "Each has all models, and each session runs on one of them.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Models",
        "Number format of the computation. auto: on a GPU bfloat16, or float16 where that is measured to be faster; on "
        "a CPU the quicker one.",
    )
    runtime: Literal["auto", "torch", "openvino"] = setting(
        "auto",
        "Models",
        "Library that computes on a CPU. auto: for each part of the network the quicker one, if OpenVINO is installed; "
        "with dtype float32 torch alone, which gives SAM 2's masks bit for bit.",
    )
    tune: bool = setting(
        True,
        "Models",
        "On a GPU, measure at the first start how the model computes fastest there (attention kernels, number format, "
        "CUDA graphs, batches), and keep the choice in MASKLET_CACHE. Ways that give other masks are never taken; with "
        "dtype float32 nothing is measured. It has not run on a GPU yet.",
    )
    cuda_graphs: bool = setting(
        False,
        "Models",
        "Record steps as CUDA graphs, whatever is faster; then nothing is measured. Not tried on a GPU yet.",
    )
    picture_cache_bytes: Bytes = setting(
        512 * MIB,
        "Models",
        "Memory for pictures that were encoded for SegmentImage and may be asked about again, in bytes.",
    )


class SecuritySettings(BaseModel):
    """Who may call, and how decoders are confined."""

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
    trust_gateway: bool = setting(
        False,
        "Security",
        "Callers are gateways (masklet gateway), which say for whom they call: limits for each client then count the "
        "gateways' clients. Only where nobody but gateways can reach the address.",
    )
    sandbox: Literal["strict", "best-effort"] = setting(
        "best-effort",
        "Security",
        "strict: do not start where a layer of the decoders' sandbox is missing; `masklet doctor` names it.",
    )


class LoggingSettings(BaseModel):
    """What the server says about its work."""

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Logging", "The least important messages that are logged."
    )
    otlp_endpoint: str = setting(
        "",
        "Logging",
        "http://HOST:PORT (https for TLS) where spans of calls are sent by OTLP over gRPC. Empty: none are. Needs the "
        "extra otel.",
    )
    log_json: bool = setting(False, "Logging", "Write the log as JSON, one object on each line.")
