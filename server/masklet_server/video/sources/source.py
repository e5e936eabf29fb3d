"""What every source of frames is to the rest of the server: an asynchronous series of pictures, ready for the model."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class VideoLimits:
    """What one stream may cost. Everything beyond ends in ResourceExhausted, with the limit's name and value.

    Attributes:
        max_upload_bytes: Size of an uploaded file; also bounds the temporary file it is spooled to.
        max_frame_pixels: Height times width of one frame or picture.
        max_side: Height or width of one frame or picture.
        max_frames: Frames in one clip; 0 for no limit.
        max_duration_seconds: Time stamp of the last frame; 0 for no limit.
        max_decoded_pixels: Pixels of all frames of one clip together; 0 for no limit.
        decoder_memory_bytes: Address space of the decoding process.
        decoder_cpu_seconds: Processor time of the decoding process; 0 for no limit.
        first_frame_timeout_seconds: From the end of the upload to the first frame.
    """

    max_upload_bytes: int = 2 * 1024**3
    max_frame_pixels: int = 8192 * 4320
    max_side: int = 16384
    max_frames: int = 100_000
    max_duration_seconds: float = 4 * 3600.0
    max_decoded_pixels: int = 400_000_000_000
    decoder_memory_bytes: int = 4 * 1024**3
    decoder_cpu_seconds: int = 7200
    first_frame_timeout_seconds: float = 30.0

    def of_live_stream(self) -> VideoLimits:
        """The same without those that a stream which never ends would reach."""
        return dataclasses.replace(
            self, max_frames=0, max_duration_seconds=0.0, max_decoded_pixels=0, decoder_cpu_seconds=0
        )


@dataclass(frozen=True)
class VideoInfo:
    """What the video's header says, and the first frame's size.

    Attributes:
        height: Rows as shown (rotation applied).
        width: Columns as shown.
        frame_rate: Average frames per second, 0.0 if unknown.
        duration_seconds: 0.0 if unknown.
        frame_count: Frames the header promises, 0 if unknown.
        container: FFmpeg's name of the container, or "pictures".
        codec: FFmpeg's name of the codec, or "pictures".
        rotation_degrees: Clockwise turn that was applied to show the frames: 0, 90, 180 or 270.
    """

    height: int
    width: int
    frame_rate: float = 0.0
    duration_seconds: float = 0.0
    frame_count: int = 0
    container: str = "pictures"
    codec: str = "pictures"
    rotation_degrees: int = 0


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video, at the model's size.

    Attributes:
        index: 0-based, in order of presentation.
        pts: Presentation time stamp in units of `time_base`.
        time_base: Seconds a unit.
        pixels: ``uint8[S, S, 3]`` RGB, the shown frame resized by a bicubic filter, as by SAM 2's own loaders: Pillow's
            for a picture, swscale's for a frame of a video.
        height: Rows of the frame as shown.
        width: Columns of the frame as shown.
        arrived_seconds: When its data arrived, of a clip when it was decoded, by `time.monotonic`.
        capture_time_nanoseconds: What the client said of it; 0 where it said nothing.
        decode_seconds: What reading, decoding and resizing it took.
        checksum: CRC-32 of the pixels, if it comes from a clip.
    """

    index: int
    pts: int
    time_base: Fraction
    pixels: npt.NDArray[np.uint8]
    height: int
    width: int
    arrived_seconds: float = 0.0
    capture_time_nanoseconds: int = 0
    decode_seconds: float = 0.0
    checksum: int = 0

    @property
    def pts_nanoseconds(self) -> int:
        """The time stamp in nanoseconds, rounded."""
        return round(self.pts * self.time_base * 1_000_000_000)

    def __repr__(self) -> str:
        size, shape = f"{self.width}x{self.height}", list(self.pixels.shape)
        return f"Frame(index={self.index}, pts={self.pts}*{self.time_base}s, {size}, pixels=uint8{shape})"


class FrameSource(abc.ABC):
    """Frames of one video in order, decoded in a process of their own.

    A source is an asynchronous context manager; leaving it kills its process and frees its temporary file and shared
    memory at once. What is fed may still be arriving while frames are taken. Feeding and taking happen in different
    tasks of one event loop; at most one task does each.
    """

    @abc.abstractmethod
    async def __aenter__(self) -> FrameSource: ...

    @abc.abstractmethod
    async def __aexit__(self, *exc_info: object) -> None: ...

    @abc.abstractmethod
    async def info(self) -> VideoInfo:
        """Wait for the first frame and describe the video; may be called any number of times.

        Raises:
            DataLoss: This is no video, or it has no frame that can be decoded.
            InvalidArgument: Its container or codec is not allowed.
            ResourceExhausted: It is larger than the limits allow.
        """

    @abc.abstractmethod
    async def next_frame(self) -> Frame | None:
        """Wait for the next frame; None after the last one.

        Raises:
            DataLoss, InvalidArgument, ResourceExhausted: As `info` does, for a fault further on in the video.
        """

    @abc.abstractmethod
    async def end(self) -> None:
        """Say that nothing more will be fed; may be called twice."""
