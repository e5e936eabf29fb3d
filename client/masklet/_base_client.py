"""What both clients are: a connection to one server."""

from __future__ import annotations

from masklet._connection import Connection
from masklet._endpoint import DEFAULT_ADDRESS, Endpoint, Pem


class BaseClient:
    """A connection to a masklet server; `Client` says what its arguments are."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        timeout: float | None = 60.0,
        secure: bool | None = None,
    ) -> None:
        endpoint = Endpoint.of(
            address,
            token=token,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
            secure=secure,
        )
        self._connection = Connection(endpoint, timeout)
