"""Frames of a codec's packets that come without a container, by PyAV. Runs in the decoding process.

These rules are kept here:

- No frame is shown before the first key frame, because it would be full of errors.
- A packet that cannot be decoded is skipped, and so is a frame that FFmpeg marks as damaged. Frames that refer to them
  look as the codec conceals the damage, until the next key frame.
- The size may change at any key frame.
- Frames come as soon as they are decoded: there are no frame-parallel threads, which would hold some frames back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import av
import av.video.codeccontext
from av.codec.context import ThreadType
from av.codec.hwaccel import HWAccel

from masklet_server.video.formats import LATEST_DECODING, PACKET_DECODERS
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import OpenCodec
from masklet_server.video.worker.hardware import with_hardware
from masklet_server.video.worker.pixels import FrameResizer, check_size
from masklet_server.video.worker.refusal import Refusal
from masklet_server.video.worker.shown_frame import ShownFrame, decoder_threads, max_coded_pixels, show


class PacketDecoder:
    """A decoder of one stream's packets.

    Args:
        codec: Which codec the packets have.
        limits: What decoding may cost.
        image_size: Side of the frames that come out.

    Raises:
        Refusal: The codec can't be opened, because its extradata are wrong.
    """

    def __init__(self, codec: OpenCodec, limits: VideoLimits, *, image_size: int) -> None:
        self._codec = codec
        self._resizer = FrameResizer(image_size, limits.scaling)
        self._limits = limits
        self._has_key_frame = False
        self._parsed_index = 0  # the packet in which the access unit begins that the parser holds
        try:
            self._context = with_hardware(limits.hwaccel == "cuda", self._opened, again=lambda: None)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            raise Refusal(
                "InvalidArgument", f"is not valid for {codec.name}: {error.strerror}", "packet.extradata"
            ) from error

    def _opened(self, accelerated: HWAccel | None) -> av.VideoCodecContext:
        decoder = PACKET_DECODERS[self._codec.name]
        context = cast("av.VideoCodecContext", av.CodecContext.create(decoder, "r", hwaccel=accelerated))
        if self._codec.extradata:
            context.extradata = self._codec.extradata
        left_out = LATEST_DECODING.get(self._codec.decoding, {})
        context.options = {"max_pixels": str(max_coded_pixels(self._limits)), **left_out}
        context.thread_type = ThreadType.SLICE
        context.thread_count = decoder_threads()
        context.open()
        return context

    def decode(self, data: bytes, index: int) -> Iterator[ShownFrame]:
        """The frames that can be shown by now. The `pts` of each is the index of the packet in which it begins.

        Raises:
            Refusal: A frame is larger than the limits allow.
        """
        if not self._codec.is_fragment:
            yield from self._decode(av.Packet(data), index)
            return
        for packet in self._parse(data):
            yield from self._decode(packet, self._parsed_index)
            self._parsed_index = index

    def drain(self) -> Iterator[ShownFrame]:
        """The frames that the decoder still holds back; no packet may follow."""
        if self._codec.is_fragment:
            for packet in self._parse(None):
                yield from self._decode(packet, self._parsed_index)
        yield from self._decode(None, 0)

    def info(self, first: ShownFrame) -> VideoInfo:
        """What is known of the stream from its first frame."""
        return VideoInfo(
            height=first.height,
            width=first.width,
            container="packets",
            codec=self._codec.name,
            rotation_degrees=first.rotation_degrees,
        )

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
            return  # this packet is damaged; from the next key frame on, frames are right again
        for frame in frames:
            self._has_key_frame = self._has_key_frame or frame.key_frame
            if self._has_key_frame and not frame.is_corrupt:
                yield self._show(frame, index)

    def _show(self, frame: av.VideoFrame, index: int) -> ShownFrame:
        check_size(
            frame.height,
            frame.width,
            self._limits,
            what="a frame of the packets",
        )
        return show(index if frame.pts is None else frame.pts, frame, self._resizer)
