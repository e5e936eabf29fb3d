"""What is known of a video once its first frame is decoded. The decoding process imports this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from masklet_server.video.schema import Natural, Range, Rate, Seconds, ShortText, Size


@dataclass(frozen=True)
class VideoInfo:
    """What the video's header says, and the size of its first frame.

    Attributes:
        height: Rows as shown (rotation applied).
        width: Columns as shown.
        frame_rate: Average frames per second; 0.0 if unknown.
        duration_seconds: 0.0 if unknown.
        frame_count: Frames that the header promises; 0 if unknown.
        container: FFmpeg's name of the container, "pictures" or "packets".
        codec: FFmpeg's name of the codec, or "pictures".
        rotation_degrees: Clockwise turn that was applied to show the frames: 0, 90, 180 or 270.
    """

    height: Size
    width: Size
    frame_rate: Rate = 0.0
    duration_seconds: Seconds = 0.0
    frame_count: Natural = 0
    container: ShortText = "pictures"
    codec: ShortText = "pictures"
    rotation_degrees: Annotated[int, Range(0, 270)] = 0
