"""The settings of a gateway."""

from __future__ import annotations

from dataclasses import dataclass

SETTINGS = (
    "address",
    "metrics_address",
    "health_address",
    "grace_seconds",
    "max_message_bytes",
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "token_file",
    "insecure",
    "max_sessions",
    "max_sessions_per_client",
    "max_requests",
    "max_requests_per_client",
    "receive_seconds",
    "requests_per_second",
    "upload_bytes_per_second",
    "idle_timeout_seconds",
    "log_level",
    "log_json",
    "otlp_endpoint",
)
"""The settings of a server that a gateway has, too."""
# Servers have their own limits, so a gateway has none by itself, but for what it holds in memory: 64 pictures.
DEFAULTS = {"max_sessions": 0, "max_sessions_per_client": 0, "max_requests": 64, "max_requests_per_client": 16}
"""The defaults of a gateway that are not those of a server."""


@dataclass(frozen=True)
class GatewayOptions:
    """What a gateway allows.

    Attributes:
        idle_timeout_seconds: How long a stream may be open without its first message.
        direct: Tell clients the workers' addresses, so that they can go there themselves.
        worker_token: The gateway's own token at the workers, in place of the client's. Empty: the client's is passed
            on.
    """

    idle_timeout_seconds: float = 60.0
    direct: bool = False
    worker_token: str = ""
