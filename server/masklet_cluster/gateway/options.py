"""What a gateway allows, beside what every server allows."""

from __future__ import annotations

from dataclasses import dataclass


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
