"""A loop over results with a bar that shows how far it is."""

from __future__ import annotations

from collections.abc import Iterator

from masklet._progress import bar
from masklet._protocol.results import FrameResult
from masklet._sync.tracking import Tracking


def progress(tracking: Tracking, description: str = "tracking") -> Iterator[FrameResult]:
    """The results of a running call, with a bar that shows how far it is: in a notebook, or on a terminal.

    Elsewhere, such as in a program whose output goes into a file, nothing is shown.

        for frame in masklet.progress(client.track("clip.mp4", prompt)):
            ...

    Args:
        tracking: What `Client.track` or `Client.live` returned.
        description: What stands beside the bar.

    Yields:
        The results, as they come.

    Raises:
        MaskletError: The server reports an error.
    """
    with bar(description) as advance:
        for done, frame in enumerate(tracking, start=1):
            video = tracking.video_so_far
            advance(done, video.frame_count if video is not None else 0)
            yield frame
