"""The image encoder's features of the frames that one stream used last."""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.engine.network.tensors import Features
from masklet_server.engine.network.workers import Task


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """What the image encoder made of a frame.

    Attributes:
        features: The frame's features.
        seconds: The encoder's time for the frame. If it encoded several frames in a pass, each has an equal share.
    """

    features: Features
    seconds: float


class RecentFeatures:
    """The features of the frames that one stream used last: for further clicks, and for frames encoded ahead.

    Only the engine's thread reads and writes features. Between two jobs of the stream, the session may ask which frames
    are there.

    Args:
        capacity: Largest number of frames.
    """

    def __init__(self, capacity: int = 1) -> None:
        self._capacity = capacity
        self._frames: dict[int, EncodedFrame | Task[EncodedFrame]] = {}

    def __contains__(self, frame_index: int) -> bool:
        return frame_index in self._frames

    def get(self, frame_index: int) -> EncodedFrame | None:
        """The frame's features, once they are encoded; None if they are neither there nor on their way.

        Raises:
            Exception: The frame could not be encoded; it is no longer on its way.
        """
        found = self._frames.get(frame_index)
        if not isinstance(found, Task):
            return found
        try:
            encoded = self._frames[frame_index] = found.result()
        except BaseException:
            del self._frames[frame_index]
            raise
        return encoded

    def put(self, frame_index: int, encoded: EncodedFrame | Task[EncodedFrame]) -> None:
        """Add features, which may still be on their way, and drop the oldest ones beyond the capacity."""
        self._frames.pop(frame_index, None)
        self._frames[frame_index] = encoded
        while len(self._frames) > self._capacity:
            del self._frames[next(iter(self._frames))]
