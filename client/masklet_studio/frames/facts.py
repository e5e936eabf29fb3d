"""What is known of a video before its frames are asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoFacts:
    """The size and the times of a video's frames.

    Attributes:
        width: Columns of a frame as shown (rotation applied).
        height: Rows of a frame as shown.
        frame_rate: Average frames per second; above 0.
        times: When each frame is shown, in seconds; one entry for each frame.
        damage: Why frames are missing, in words; empty where the video is whole.
    """

    width: int
    height: int
    frame_rate: float
    times: tuple[float, ...]
    damage: str = ""

    @property
    def frame_count(self) -> int:
        """The number of frames in the video."""
        return len(self.times)

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return self.times[-1] - self.times[0] + 1 / self.frame_rate if self.times else 0.0
