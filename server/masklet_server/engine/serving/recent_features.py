"""The image encoder's features of the frames that one stream used last."""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.engine.network.tensors import Features


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """What the image encoder made of a frame.

    Attributes:
        features: Its.
        seconds: The encoder's time, shared with the frames of the stream that were encoded with it.
    """

    features: Features
    seconds: float


class RecentFeatures:
    """The features of the frames that one stream had encoded last: for the next click on one, and the frames to come.

    Only the engine's thread uses what is in it. Whoever asks for a stream's jobs may look between two of them which
    frames are there.

    Args:
        capacity: Frames.
    """

    def __init__(self, capacity: int = 1) -> None:
        self._capacity = capacity
        self._frames: dict[int, EncodedFrame] = {}

    def __contains__(self, frame_index: int) -> bool:
        return frame_index in self._frames

    def get(self, frame_index: int) -> EncodedFrame | None:
        """The frame's, if it is among them."""
        return self._frames.get(frame_index)

    def put(self, frame_index: int, encoded: EncodedFrame) -> None:
        """Keep these in place of the oldest."""
        self._frames.pop(frame_index, None)
        self._frames[frame_index] = encoded
        while len(self._frames) > self._capacity:
            del self._frames[next(iter(self._frames))]
