"""How far a writer has come: a recording that tells which of its frames was read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from masklet._protocol.results import FrameResult, ObjectResult
from masklet.recording import Recording

Progress = Callable[[int, int], None]
"""Called with the number of frames that are done, and of all frames. A writer that reads twice begins twice at 1."""


class WatchedRecording(Recording):
    """A recording that tells how many of its frames are done, whenever it is read from the beginning.

    Args:
        recording: The results, which both share.
        progress: Called after each frame.
    """

    def __init__(self, recording: Recording, progress: Progress) -> None:
        super().__init__(video=recording.video, source=recording.source)
        vars(self).update(vars(recording))
        self._progress = progress

    def __iter__(self) -> Iterator[FrameResult]:
        for done, frame in enumerate(super().__iter__(), start=1):
            yield frame
            self._progress(done, len(self))

    def masklet(self, object_id: int) -> Iterator[tuple[int, ObjectResult]]:
        """As `Recording.masklet`; frames without the object count as done with the next one."""
        for done, found in enumerate(super().masklet(object_id), start=1):
            yield found
            self._progress(done, len(self))
