"""The frames of a propagation, in order."""

from __future__ import annotations

from masklet.prompts import MAX_ID


def frame_range(start: int, max_frames: int | None, *, reverse: bool) -> range:
    """The frames that a propagation tracks, in the order of `SAM2VideoPredictor.propagate_in_video`.

    Args:
        start: The first frame.
        max_frames: Number of frames after the first one, at most; None: all.
        reverse: Go towards the start of the video. From frame 0 there are no frames, as in SAM 2.

    Returns:
        The frames. A forward range goes on beyond the end of the video, which is not known here.
    """
    if not reverse:
        return range(start, MAX_ID + 1 if max_frames is None else start + max_frames + 1)
    if start == 0:
        return range(0)
    return range(start, (0 if max_frames is None else max(0, start - max_frames)) - 1, -1)
