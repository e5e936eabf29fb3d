"""What both clients are: a connection to one server."""

from __future__ import annotations

from masklet._media.pictures import PictureLike, picture_to_wire
from masklet._protocol.options import SegmentOptions
from masklet._protocol.segmentation import ImageId, Segmentation, segment_request
from masklet._transport.channel import Channel
from masklet._transport.endpoint import DEFAULT_ADDRESS, Endpoint, Pem, Tls
from masklet._transport.starting import CONNECT_SECONDS
from masklet.errors import InvalidArgument
from masklet.v1 import image_pb2


class BaseClient:
    """A connection to a masklet server; `Client` describes the arguments."""

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
        connect_timeout: float = CONNECT_SECONDS,
        direct: bool = False,
    ) -> None:
        tls = Tls(root_certificates, client_certificate, client_key, secure)
        if not 0 <= connect_timeout < float("inf"):
            raise InvalidArgument.of("connect_timeout", f"is {connect_timeout!r}, must be seconds, 0 or above")
        self._channel = Channel(Endpoint.of(address, token=token, tls=tls), timeout, connect_timeout, direct=direct)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._channel)!r})"

    def has_to_wait(self) -> bool:
        """Whether nobody listens at the server's address now, so that a call would wait (`connect_timeout`)."""
        return self._channel.server.is_awaited()

    @staticmethod
    def _segment_request(
        image: PictureLike | Segmentation | ImageId, options: SegmentOptions
    ) -> image_pb2.SegmentImageRequest:
        """The message of `segment`; reads the picture's file."""
        if not isinstance(image, (Segmentation, ImageId)):
            return segment_request(picture_to_wire(image), options)
        return segment_request(image, options)
