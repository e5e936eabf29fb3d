"""Frames of a codec's packets that come without a container, by PyAV. Runs in the decoding process.

What is decided here:

- Nothing is shown before the first key frame, so that who joins late sees no debris.
- A packet that cannot be decoded is skipped, and so is a frame that FFmpeg marks as damaged: they cost frames. What
  refers to them looks as the codec conceals it until the next key frame.
- The size may change at any key frame.
- Frames come as soon as they are decoded: no frame-parallel threads, which would hold some back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import av
import av.video.codeccontext
from av.codec.context import ThreadType

from masklet_server.video.formats import PACKET_DECODERS
from masklet_server.video.messages import Refusal
from masklet_server.video.worker.clip_decoder import ShownFrame, decoder_threads, max_coded_pixels, show
from masklet_server.video.worker.pixels import FrameResizer, check_size


class PacketDecoder:
    """A decoder of one stream's packets.

    Args:
        codec: One of `PACKET_DECODERS`.
        extradata: What the codec needs beforehand; may be empty.
        limits: Fields of `VideoLimits`.
        image_size: Side of the frames that come out.
        is_fragment: Packets are cut anywhere.

    Raises:
        Refusal: The codec does not open, for want of proper extradata.
    """

    def __init__(
        self, codec: str, extradata: bytes, limits: dict[str, Any], *, image_size: int, is_fragment: bool
    ) -> None:
        self.codec = codec
        self._resizer = FrameResizer(image_size)
        self._limits = limits
        self._is_fragment = is_fragment
        self._joined = False
        self._begun_in = 0  # the packet in which the access unit begins that the parser holds
        self._context = cast("av.VideoCodecContext", av.CodecContext.create(PACKET_DECODERS[codec], "r"))
        if extradata:
            self._context.extradata = extradata
        self._context.options = {"max_pixels": str(max_coded_pixels(limits))}
        self._context.thread_type = ThreadType.SLICE
        self._context.thread_count = decoder_threads()
        try:
            self._context.open()
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            raise Refusal("InvalidArgument", f"does not suit {codec}: {error.strerror}", "packet.extradata") from error

    def decode(self, data: bytes, index: int) -> Iterator[ShownFrame]:
        """The frames that can be shown by now; the `pts` of each is the index of the packet that it began in.

        Raises:
            Refusal: A frame is larger than the limits allow.
        """
        if not self._is_fragment:
            yield from self._decode(av.Packet(data), index)
            return
        for packet in self._parse(data):
            yield from self._decode(packet, self._begun_in)
            self._begun_in = index

    def drain(self) -> Iterator[ShownFrame]:
        """The frames that are still held back; nothing may follow."""
        if self._is_fragment:
            for packet in self._parse(None):
                yield from self._decode(packet, self._begun_in)
        yield from self._decode(None, 0)

    def _parse(self, data: bytes | None) -> list[Any]:
        try:
            return list(self._context.parse(data))
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            return []

    def _decode(self, packet: Any, index: int) -> Iterator[ShownFrame]:
        if packet is not None:
            packet.pts = packet.dts = index
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            return  # this packet is damaged; the next key frame mends it
        for frame in frames:
            self._joined = self._joined or frame.key_frame
            if self._joined and not frame.is_corrupt:
                yield self._show(frame, index)

    def _show(self, frame: av.VideoFrame, index: int) -> ShownFrame:
        check_size(
            frame.height,
            frame.width,
            max_pixels=self._limits["max_frame_pixels"],
            max_side=self._limits["max_side"],
            what="a frame of the packets",
        )
        return show(index if frame.pts is None else frame.pts, frame, self._resizer)
