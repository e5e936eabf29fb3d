"""Which frames a propagation goes over."""

from __future__ import annotations

from masklet.prompts import MAX_ID


def frame_range(start: int, max_frames: int | None, *, reverse: bool) -> range:
    """Frames in the order of `SAM2VideoPredictor.propagate_in_video`.

    Args:
        start: The first one.
        max_frames: Beyond the first one, at most; None: all there are.
        reverse: Towards the start of the video. From frame 0 there is nothing to go back to, not even that frame.

    Returns:
        Forward it does not know where the video ends, and goes on beyond.
    """
    if not reverse:
        return range(start, MAX_ID + 1 if max_frames is None else start + max_frames + 1)
    if start == 0:
        return range(0)
    return range(start, (0 if max_frames is None else max(0, start - max_frames)) - 1, -1)
