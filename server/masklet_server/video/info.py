"""What is known of a video once its first frame is decoded."""

from __future__ import annotations

from dataclasses import dataclass


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
