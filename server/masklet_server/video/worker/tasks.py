"""What a decoding process may have to do: decode a clip, pictures, packets, or single pictures."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Iterator
from fractions import Fraction

from PIL import Image

from masklet_media.picture_pages import has_pages
from masklet_server.video.info import VideoInfo
from masklet_server.video.messages import (
    DecodePacket,
    DecodePicture,
    DecodingFailed,
    EndOfInput,
    FrameDecoded,
    FrameUndecoded,
    OpenCodec,
    PacketDecoded,
    Redecode,
    VideoOpened,
)
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.clip_decoder import Clip
from masklet_server.video.worker.connection import ServerConnection
from masklet_server.video.worker.packet_decoder import PacketDecoder
from masklet_server.video.worker.page_decoder import PageClip
from masklet_server.video.worker.pixels import check_size, read_picture, shrink
from masklet_server.video.worker.refusal import Refusal, out_of_memory
from masklet_server.video.worker.shown_frame import ShownFrame, decoder_threads

_NANOSECOND = Fraction(1, 1_000_000_000)
_START_BYTES = 16
# Files whose size FFmpeg needs before it reads them: APNG and MXF.
_WHOLE_FILES = (b"\x89PNG", b"\x06\x0e\x2b\x34")


class Stopwatch:
    """Measures how long each frame takes to make, without the pauses."""

    def __init__(self) -> None:
        self._paused = 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time that passes within does not count."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - start

    def timed(self, frames: Iterator[ShownFrame]) -> Iterator[tuple[ShownFrame, float]]:
        """Each frame, and the seconds that it took to make."""
        while True:
            start = time.perf_counter() - self._paused
            if (frame := next(frames, None)) is None:
                return
            yield frame, time.perf_counter() - self._paused - start


def decode_clip(server: ServerConnection, upload_fd: int, redecode: Redecode | None) -> None:
    """Send every frame of the clip that arrives in a file, or of what has arrived, those from one frame on."""
    watch = Stopwatch()

    def wait_for_bytes() -> None:
        with watch.paused():
            server.receive_one()

    upload = server.upload = ArrivingFile(upload_fd, wait_for_bytes)
    if redecode is not None:
        upload.arrived, upload.complete = redecode.size, True
    clip = _open_clip(server, upload, seeks=redecode is not None)
    frames = clip.frames() if redecode is None else _redecoded(clip, redecode)
    for index, (frame, seconds) in enumerate(watch.timed(frames)):
        if index == 0:
            server.channel.send(VideoOpened(clip.info(frame), clip.time_base))
        _send_undecoded(server, frame.undecoded)
        server.send_frame(frame, server.put(frame.pixels), seconds, checksum=zlib.crc32(frame.pixels))
    _send_undecoded(server, clip.undecoded)


def _open_clip(server: ServerConnection, upload: ArrivingFile, *, seeks: bool) -> Clip | PageClip:
    """The clip of a file whose first bytes say what it is.

    Raises:
        Refusal: It is empty, is no video, is not allowed, or is beyond the limits.
    """
    start = upload.wait_for_start(_START_BYTES)
    if not start:
        raise Refusal("InvalidArgument", "is empty: no byte of video was sent before end_of_video", "video_chunk")
    if has_pages(start):
        return PageClip(upload, server.limits, image_size=server.image_size)
    if start.startswith(_WHOLE_FILES):
        upload.wait_for_end()
    return Clip(upload, server.limits, image_size=server.image_size, threads=decoder_threads(), seeks=seeks)


def _send_undecoded(server: ServerConnection, times: tuple[int, ...]) -> None:
    for pts in times:
        server.channel.send(FrameUndecoded(pts))


def _redecoded(clip: Clip | PageClip, redecode: Redecode) -> Iterator[ShownFrame]:
    if redecode.seek is None:
        return clip.frames(skip=redecode.skip)
    clip.seek(redecode.seek.pts)
    return clip.frames(since=redecode.seek.since)


def decode_pictures(server: ServerConnection, *, live: bool) -> None:
    """Send every picture that comes, at the model's size. All are as large as the first one, unless they are live."""
    first: tuple[int, int] | None = None
    pixels, most = 0, server.limits.max_decoded_pixels
    while (message := _next_picture(server)) is not None:
        start = server.channel.line_read_at
        try:
            picture = _read(server, message, "frame.data")
        except Refusal as refusal:
            raise Refusal(refusal.kind, f"frame {message.index}: {refusal.message}", refusal.field) from refusal
        if first is None:
            first = picture.size
            server.channel.send(VideoOpened(VideoInfo(picture.height, picture.width), _NANOSECOND))
        if picture.size != first and not live:
            raise Refusal(
                "InvalidArgument",
                f"frame {message.index} is {picture.width}x{picture.height} pixels, the first one was "
                f"{first[0]}x{first[1]}; send pictures of one size, or set config.live",
                "frame.data",
            )
        pixels += picture.width * picture.height
        if 0 < most < pixels:
            raise Refusal(
                "ResourceExhausted",
                f"the video's pictures have {pixels} pixels or more in all; max_decoded_pixels is {most}. "
                "Send fewer or smaller pictures",
            )
        shown = ShownFrame(message.pts, picture.height, picture.width, shrink(picture, server.image_size), 0)
        slot = server.put_now(shown.pixels)
        server.send_frame(shown, slot, time.perf_counter() - start)
    if first is None:
        raise Refusal("InvalidArgument", "no picture was sent; send at least one before end_of_video", "frame")


def decode_packets(server: ServerConnection) -> None:
    """Send every frame of the packets that come, at the model's size, and tell of each packet that is decoded."""
    decoder: PacketDecoder | None = None
    count = 0
    while True:
        while not server.packets:
            server.receive_one()
        message = server.packets.popleft()
        if isinstance(message, OpenCodec):
            decoder = PacketDecoder(message, server.limits, image_size=server.image_size)
            continue
        if decoder is None:
            break  # the end, without any packet
        frames = decoder.decode(message.data, message.index) if isinstance(message, DecodePacket) else decoder.drain()
        for frame, seconds in Stopwatch().timed(frames):
            if count == 0:
                server.channel.send(VideoOpened(decoder.info(frame), _NANOSECOND))
            server.send_frame(frame, server.put(frame.pixels), seconds)
            count += 1
        if isinstance(message, EndOfInput):
            break
        server.channel.send(PacketDecoded(message.index))
    if count == 0:
        raise Refusal(
            "DataLoss",
            "no frame could be decoded from the packets: there was no key frame, or all packets were damaged",
        )


def decode_single_pictures(server: ServerConnection) -> None:
    """Send every picture that comes at full size; one that is refused does no harm to the next."""
    while (message := _next_picture(server)) is not None:
        server.channel.send(_answer(server, message))


def _answer(server: ServerConnection, message: DecodePicture) -> FrameDecoded | DecodingFailed:
    try:
        picture = _read(server, message, "data")
        slot = server.put_now(picture.tobytes())
    except Refusal as refusal:
        return refusal.as_message()
    except MemoryError:
        return out_of_memory(server.limits).as_message()
    return FrameDecoded(slot, 0, picture.height, picture.width)


def _next_picture(server: ServerConnection) -> DecodePicture | None:
    """Wait for the next picture; None after the last one."""
    message = server.channel.receive()
    if isinstance(message, EndOfInput):
        return None
    if not isinstance(message, DecodePicture):
        raise ValueError(f"unexpected message {type(message).__name__}")
    return message


def _read(server: ServerConnection, message: DecodePicture, field: str) -> Image.Image:
    """The picture in RGB, as shown; `field` is the request's field that has its data."""
    if message.format != "encoded":
        check_size(message.height, message.width, server.limits, what="the picture")
    return read_picture(message, server.limits, field=field)
