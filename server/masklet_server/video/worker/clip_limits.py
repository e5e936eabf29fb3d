"""Compares the frames of one clip with the limits, one after the other. Runs in the decoding process."""

from __future__ import annotations

from fractions import Fraction

from masklet_server.video.limits import VideoLimits
from masklet_server.video.worker.pixels import check_size
from masklet_server.video.worker.refusal import Refusal

# Results have time stamps of 64 bits, in nanoseconds.
_MAX_SECONDS = (2**63 - 1) // 1_000_000_000


class ClipLimits:
    """The limits of one clip, and what it has cost so far.

    Attributes:
        count: Frames so far.

    Args:
        limits: What decoding may cost.
    """

    def __init__(self, limits: VideoLimits) -> None:
        self.count = 0
        self._undecoded = 0
        self._limits = limits
        self._pixels = 0
        self._size = (0, 0)
        self._first_seconds = Fraction(0)

    def check_header(self, height: int, width: int, *, count: int, seconds: float) -> None:
        """Compare what the header says.

        Raises:
            Refusal: It is beyond a limit.
        """
        check_size(height, width, self._limits, what="the video")
        self._check_duration(seconds)
        self._check_count(count)

    def check_frame(self, coded: tuple[int, int], *, shown: tuple[int, int], seconds: Fraction) -> None:
        """Count the next frame.

        Args:
            coded: Height and width before the frame is turned.
            shown: Height and width as it is shown.
            seconds: Its time.

        Raises:
            Refusal: It is beyond a limit, or has another size than the first one.
        """
        if self.count == 0:
            self._first_seconds, self._size = seconds, shown
        self._check_count(self.count + self._undecoded + 1)
        check_size(*coded, self._limits, what=f"frame {self.count}")
        self._check_same_size(shown)
        if abs(seconds) > _MAX_SECONDS:
            raise Refusal(
                "DataLoss",
                f"frame {self.count} has the time stamp {float(seconds):.3g} s; results can have at most "
                f"{_MAX_SECONDS} s",
            )
        self._check_duration(float(seconds - self._first_seconds))
        self._pixels += coded[0] * coded[1]
        if 0 < self._limits.max_decoded_pixels < self._pixels:
            raise Refusal(
                "ResourceExhausted",
                f"the video's frames have {self._pixels} pixels or more in all; max_decoded_pixels is "
                f"{self._limits.max_decoded_pixels}. Send it in parts or scale it down first",
            )
        self.count += 1

    def check_undecoded(self, count: int) -> None:
        """Count frames that could not be decoded: results name each of them.

        Raises:
            Refusal: The video has too many frames.
        """
        self._undecoded += count
        self._check_count(self.count + self._undecoded)

    def check_end(self, damage: str) -> None:
        """The clip has no more frames.

        Args:
            damage: What is missing of it; empty if nothing is.

        Raises:
            Refusal: It breaks off, or has no frame at all.
        """
        because = f": {damage}" if damage else ""
        if self.count == 0:
            raise Refusal("DataLoss", f"the video has no frame that can be decoded{because}")
        if damage:
            raise Refusal("DataLoss", f"the video breaks off after {self.count} frames{because}; send the whole file")

    def _check_same_size(self, shown: tuple[int, int]) -> None:
        if shown != self._size:
            raise Refusal(
                "InvalidArgument",
                f"frame {self.count} is {shown[1]}x{shown[0]} pixels, the frames before it "
                f"{self._size[1]}x{self._size[0]}; a video must keep its size: split it there and send each part in "
                "its own stream",
                "video_chunk",
            )

    def _check_duration(self, seconds: float) -> None:
        if 0 < self._limits.max_duration_seconds < seconds:
            raise Refusal(
                "ResourceExhausted",
                f"the video lasts {seconds:.3f} s; max_duration_seconds is "
                f"{self._limits.max_duration_seconds:g}. Send it in parts",
            )

    def _check_count(self, count: int) -> None:
        if 0 < self._limits.max_frames < count:
            raise Refusal(
                "ResourceExhausted",
                f"the video has {count} frames or more; max_frames is {self._limits.max_frames}. Send it in parts",
            )
