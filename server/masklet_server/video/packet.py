"""One packet of a codec, without a container, as a client sends it."""

from __future__ import annotations

from dataclasses import dataclass

from masklet.errors import InvalidArgument
from masklet_server.video.formats import PACKET_DECODERS
from masklet_server.video.picture import check_pts

_MAX_EXTRADATA = 1024**2


@dataclass(frozen=True, eq=False)
class Packet:
    """An access unit, or a piece of a codec's data that is cut anywhere.

    Attributes:
        data: The packet's bytes.
        codec: One of `PACKET_DECODERS`; may be empty after a stream's first packet.
        extradata: What the codec needs beforehand; only in a stream's first packet.
        pts_seconds: Time since the start of the video; None: the frame's index divided by 30.
        capture_time_nanoseconds: When the client captured it, by the client's own clock; 0: not known.
        is_fragment: The data are cut anywhere, and not at access units.

    Raises:
        InvalidArgument: A field is wrong; its path is relative to the packet, such as "codec".
    """

    data: bytes
    codec: str = ""
    extradata: bytes = b""
    pts_seconds: float | None = None
    capture_time_nanoseconds: int = 0
    is_fragment: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise InvalidArgument.of("data", "is empty")
        if self.codec and self.codec not in PACKET_DECODERS:
            raise InvalidArgument.of("codec", f"is {self.codec!r}, must be one of {', '.join(PACKET_DECODERS)}")
        if len(self.extradata) > _MAX_EXTRADATA:
            raise InvalidArgument.of("extradata", f"has {len(self.extradata)} bytes, may have at most {_MAX_EXTRADATA}")
        check_pts(self.pts_seconds)

    def __repr__(self) -> str:
        return f"Packet({self.codec or 'codec as before'}, {len(self.data)} bytes, pts_seconds={self.pts_seconds})"
