"""The frames that can still be corrected, bounded in number and in bytes, and the times that prompts may name."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from masklet.errors import InvalidArgument
from masklet_server.engine.bank import MemoryBank
from masklet_server.session.frames import TakenFrame


@dataclass(eq=False)
class KeptFrame:
    """A tracked frame that can still be corrected.

    Attributes:
        taken: The frame, with its pixels.
        clip_length: As when it was tracked.
        revision: How often it was sent again.
        corrected: Ids of the objects that were corrected here.
    """

    taken: TakenFrame
    clip_length: int | None
    revision: int = 0
    corrected: set[int] = field(default_factory=set)

    @property
    def index(self) -> int:
        """The frame's own."""
        return self.taken.frame.index

    @property
    def first_index(self) -> int:
        """Of the skipped frames before it, whose prompts it takes, or its own."""
        return min(self.taken.skipped, default=self.index)


class KeptFrames:
    """The last tracked frames. All of them are kept, also where nothing was followed: a new object may begin there.

    Args:
        window: How many at most; 0: none.
        max_bytes: What their pixels may take, and what memory banks hold for their sake.
    """

    def __init__(self, window: int, max_bytes: int) -> None:
        self.window = window
        self._max_bytes = max_bytes
        self._frames: deque[KeptFrame] = deque()
        self._last_dropped = -1

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def nbytes(self) -> int:
        """Of the frames' pixels."""
        return sum(kept.taken.frame.pixels.nbytes for kept in self._frames)

    def make_room(self, banks: Collection[MemoryBank]) -> None:
        """The next frame is about to be tracked: have the banks keep what correcting it, too, will take."""
        for bank in banks:
            bank.correction_window = min(len(self) + 1, self.window)

    def add(self, taken: TakenFrame, clip_length: int | None, banks: Collection[MemoryBank]) -> None:
        """A frame was tracked; the oldest ones go as far as the bounds say, and their part of the banks with them."""
        if not self.window:
            return
        self._frames.append(KeptFrame(taken, clip_length))
        if len(self) > self.window:
            self._drop()
        for bank in banks:
            bank.keep(len(self))
        while self._frames and self.nbytes + sum(bank.correction_nbytes for bank in banks) > self._max_bytes:
            self._drop()
            for bank in banks:
                bank.keep(len(self))

    def find(self, frame_index: int) -> KeptFrame | None:
        """The kept frame that takes a prompt for the frame of that index, which may have been skipped."""
        if frame_index <= self._last_dropped:
            return None
        return next((kept for kept in self._frames if kept.index >= frame_index), None)

    def after(self, kept: KeptFrame) -> KeptFrame | None:
        """The frame that was tracked next; None after the last one."""
        return next((later for later in self._frames if later.taken.step == kept.taken.step + 1), None)

    def refusal(self, frame_index: int) -> InvalidArgument | None:
        """Why a tracked frame can't be corrected any longer, or None where it can; fields as seen from the request."""
        if frame_index > self._last_dropped:
            return None
        which = f"frames {self._frames[0].first_index} to {self._frames[-1].index} can" if self._frames else "none can"
        return InvalidArgument.of(
            "prompt.frame_index",
            f"is {frame_index}, which was tracked too long ago to be corrected; {which}. A clip can be sent with "
            "PROPAGATION_ON_REQUEST, which takes prompts on any frame at any time",
        )

    def clear(self) -> None:
        """Let all of them go."""
        self._frames.clear()

    def _drop(self) -> None:
        self._last_dropped = self._frames.popleft().index


class Timetable:
    """The times of the last frames taken, to find the one that is nearest to a time.

    Attributes:
        is_complete: No frame will follow.

    Args:
        most: Frames to remember.
    """

    def __init__(self, most: int) -> None:
        self.is_complete = False
        self._times: deque[tuple[int, int]] = deque(maxlen=max(most, 2))
        self._forgot = False

    def add(self, frame_index: int, pts_nanoseconds: int) -> None:
        """A frame was taken."""
        self._forgot = self._forgot or len(self._times) == self._times.maxlen
        self._times.append((pts_nanoseconds, frame_index))

    def nearest(self, pts_nanoseconds: int, upcoming: int | None = None) -> int | None:
        """Index of the frame nearest to a time, the earlier of two equally near.

        Args:
            pts_nanoseconds: The time.
            upcoming: The time of the frame that will be taken next, or None where that is not known.

        Returns:
            None while a frame that is still to be taken may be nearer.
        """
        if not self._times:
            return None
        last = self._times[-1][0]
        is_ahead = pts_nanoseconds > last and not self.is_complete
        if is_ahead and (upcoming is None or abs(upcoming - pts_nanoseconds) < pts_nanoseconds - last):
            return None
        _, frame_index = min((abs(time - pts_nanoseconds), index) for time, index in self._times)
        return frame_index

    def check(self, pts_nanoseconds: int) -> None:
        """Make sure that no frame which is forgotten may be nearest to a time.

        Raises:
            InvalidArgument: One may; fields as seen from the request.
        """
        if self._forgot and pts_nanoseconds < min(time for time, _ in self._times):
            oldest, frame_index = self._times[0]
            raise InvalidArgument.of(
                "prompt.pts_seconds",
                f"is {pts_nanoseconds / 1e9:g}, which lies before the frames that can still be corrected; the oldest "
                f"is frame {frame_index} at {oldest / 1e9:g} s",
            )
