"""What decoding one video or picture may cost. The decoding process imports this module."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from masklet_server.video.formats import Scaling


@dataclass(frozen=True)
class VideoLimits:
    """What one stream may cost. Whatever costs more ends in ResourceExhausted, with the limit's name and value.

    Attributes:
        max_upload_bytes: Size of an uploaded file, and so of the temporary file that it is written to. Also of the
            pictures or packets of one stream that wait on disk.
        max_frame_pixels: Height times width of one frame or picture.
        max_side: Height or width of one frame or picture.
        max_frames: Frames in one clip; 0: no limit.
        max_duration_seconds: Time stamp of the last frame; 0: no limit.
        max_decoded_pixels: Pixels of all frames of one clip together; 0: no limit.
        decoder_memory_bytes: Address space of the decoding process.
        decoder_cpu_seconds: Processor time of the decoding process; 0: no limit.
        picture_cpu_seconds: Processor time of a single picture; 0: no limit.
        first_frame_timeout_seconds: Time from the end of the upload to the first frame.
        decoder_start_seconds: Time in which a decoding process must start, or tell that it has ended.
        hwaccel: "cuda": frames of files and packets are decoded by the GPU's video unit, if it is there.
        strict_sandbox: Nothing is decoded where a layer of the decoders' sandbox is missing.
        scaling: How frames of files and packets are made as small as the model wants them.
    """

    max_upload_bytes: int = 2 * 1024**3
    max_frame_pixels: int = 8192 * 4320
    max_side: int = 16384
    max_frames: int = 100_000
    max_duration_seconds: float = 4 * 3600.0
    max_decoded_pixels: int = 400_000_000_000
    decoder_memory_bytes: int = 4 * 1024**3
    decoder_cpu_seconds: int = 7200
    picture_cpu_seconds: int = 15
    first_frame_timeout_seconds: float = 30.0
    decoder_start_seconds: float = 20.0
    hwaccel: Literal["none", "cuda"] = "none"
    strict_sandbox: bool = False
    scaling: Scaling = "bicubic"

    def of_live_stream(self) -> VideoLimits:
        """The same limits without those that a stream without an end would reach some day."""
        return dataclasses.replace(
            self, max_frames=0, max_duration_seconds=0.0, max_decoded_pixels=0, decoder_cpu_seconds=0
        )
