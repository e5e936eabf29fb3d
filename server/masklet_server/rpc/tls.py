"""TLS and mutual TLS; renewed certificates are picked up without a restart."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

from masklet.errors import InvalidArgument
from masklet_server.settings import Settings

logger = logging.getLogger(__name__)


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Credentials from the files that the settings name; None if they name none.

    Raises:
        InvalidArgument: A file cannot be read, or certificate and key do not belong together.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = _Files(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.load(),
        files.reload_if_changed,  # type: ignore[arg-type]  # None is what gRPC documents for "unchanged"
        require_client_authentication=settings.tls_client_ca is not None,
    )


class _Files:
    """The PEM files of one server, and when they were last read."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._stamps: list[tuple[int, ...]] = []

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read the files, after a check that gives clear errors."""
        self._stamps = self._current_stamps()
        # gRPC itself would only report a failed handshake, and only to the client.
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate, self._key)
        except OSError as error:
            raise InvalidArgument.of(
                "tls_certificate", f"{self._certificate} and {self._key} cannot be used: {error}"
            ) from error
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=self._read_client_ca())

    def reload_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before every handshake, on one of its threads; None: the files have not changed."""
        if self._current_stamps() == self._stamps:
            return None
        try:
            return self.load()
        except (InvalidArgument, OSError) as error:
            logger.error("the certificate stays as it was: %s", error)  # the traceback would add nothing
            return None

    def _read_client_ca(self) -> bytes | None:
        if self._client_ca is None:
            return None
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self._client_ca)
            return self._client_ca.read_bytes()
        except OSError as error:
            raise InvalidArgument.of("tls_client_ca", f"{self._client_ca} cannot be used: {error}") from error

    def _current_stamps(self) -> list[tuple[int, ...]]:
        paths = [path for path in (self._certificate, self._key, self._client_ca) if path is not None]
        return [_stamp(path) for path in paths]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
