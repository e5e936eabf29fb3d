"""The frames that can still be corrected, bounded in number and in bytes, and the times that prompts may name."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from masklet.errors import InvalidArgument
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.session.automatic.frame_reader import TakenFrame
from masklet_server.session.automatic.redecoded_frames import EarlierFrames


@dataclass(eq=False)
class KeptFrame:
    """A tracked frame that can still be corrected.

    Attributes:
        taken: The frame, with its pixels.
        clip_length: As when it was tracked.
        revision: How often it was sent again.
    """

    taken: TakenFrame
    clip_length: int | None
    revision: int = 0

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

    Attributes:
        earlier: The frames before them, where these can be had again: of a spooled clip.
        nbytes: Of the frames' pixels.

    Args:
        window: How many at most; 0: none.
        max_bytes: What their pixels may take, and what memory banks hold for their sake.
    """

    def __init__(self, window: int, max_bytes: int) -> None:
        self.window = window
        self._max_bytes = max_bytes
        self.earlier: EarlierFrames | None = None
        self.nbytes = 0
        self._frames: deque[KeptFrame] = deque()
        self._last_step = -1
        self._last_dropped = -1

    def __len__(self) -> int:
        return len(self._frames)

    def make_room(self, banks: Collection[MemoryBank]) -> None:
        """The next frame is about to be tracked: have the banks keep what correcting it, too, will take."""
        for bank in banks:
            bank.correction_window = min(len(self) + 1, self.window)

    def add(self, taken: TakenFrame, clip_length: int | None, banks: Collection[MemoryBank]) -> None:
        """A frame was tracked; the oldest ones go as far as the bounds say, and their part of the banks with them."""
        if not self.window:
            return
        self._frames.append(KeptFrame(taken, clip_length))
        self.nbytes += taken.frame.pixels.nbytes
        self._last_step = taken.step
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

    async def fetch(self, frame_index: int) -> KeptFrame | None:
        """As `find`; a frame that is kept no longer is decoded again where that is possible.

        Raises:
            MaskletError: It can't be decoded again.
        """
        if self.earlier is not None and 0 <= frame_index <= self._last_dropped:
            return await self._again(self.earlier, frame_index)
        return self.find(frame_index)

    async def after(self, kept: KeptFrame) -> KeptFrame | None:
        """The frame that was tracked next; None after the last one.

        Raises:
            MaskletError: It can't be decoded again.
        """
        if self.is_last(kept):
            return None
        following = next((later for later in self._frames if later.taken.step == kept.taken.step + 1), None)
        if following is None and self.earlier is not None:
            return await self._again(self.earlier, kept.index + 1)
        if self.earlier is not None:
            await self.earlier.close()  # from here on they are kept
        return following

    async def _again(self, earlier: EarlierFrames, frame_index: int) -> KeptFrame:
        frame, clip_length, revision = await earlier.frame(frame_index)
        return KeptFrame(TakenFrame(frame, frame_index), clip_length, revision)

    def is_last(self, kept: KeptFrame) -> bool:
        """Whether no frame was tracked after it."""
        return kept.taken.step == self._last_step

    def is_kept(self, kept: KeptFrame) -> bool:
        """Whether the frame was not decoded again."""
        return kept.index > self._last_dropped

    def reach(self, kept: KeptFrame) -> int:
        """How many of the last frames a bank that is tracked up to that frame must be able to correct."""
        return max(1, sum(one.taken.step <= kept.taken.step for one in self._frames))

    def sent_again(self, kept: KeptFrame) -> int:
        """Count it; the frame's new revision."""
        kept.revision += 1
        if self.earlier is not None and not self.is_kept(kept):
            self.earlier.note(kept.index, kept.revision)
        return kept.revision

    def refusal(self, frame_index: int) -> InvalidArgument | None:
        """Why a tracked frame can't be corrected any longer, or None where it can; fields as seen from the request."""
        if frame_index > self._last_dropped or self.earlier is not None:
            return None
        which = f"frames {self._frames[0].first_index} to {self._frames[-1].index} can" if self._frames else "none can"
        return InvalidArgument.of(
            "prompt.frame_index",
            f"is {frame_index}, which was tracked too long ago to be corrected; {which}. Of a clip that is sent as a "
            "file, or with PROPAGATION_ON_REQUEST, every frame can be",
        )

    def clear(self) -> None:
        """Let all of them go."""
        self._frames.clear()
        self.nbytes = 0

    def _drop(self) -> None:
        dropped = self._frames.popleft()
        self.nbytes -= dropped.taken.frame.pixels.nbytes
        self._last_dropped = dropped.index
        if self.earlier is not None:
            self.earlier.note(dropped.index, dropped.revision, dropped.clip_length)


class Timetable:
    """The times of frames taken, to find the one that is nearest to a time; 16 bytes for each.

    Attributes:
        is_complete: No frame will follow.

    Args:
        most: Frames to remember.
    """

    def __init__(self, most: int) -> None:
        self.is_complete = False
        self._most = max(most, 2)
        self._times = array("q")
        self._indices = array("q")
        self._forgot = False

    def add(self, frame_index: int, pts_nanoseconds: int, *, forget: bool = True) -> None:
        """A frame was taken; the oldest one is forgotten if there are too many, unless all are to be remembered."""
        self._times.append(pts_nanoseconds)
        self._indices.append(frame_index)
        if forget and len(self._times) > self._most:
            self._forgot = True
            del self._times[0], self._indices[0]

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
        last = self._times[-1]
        is_ahead = pts_nanoseconds > last and not self.is_complete
        if is_ahead and (upcoming is None or abs(upcoming - pts_nanoseconds) < pts_nanoseconds - last):
            return None
        times = np.frombuffer(self._times, np.int64)
        time = np.int64(min(max(pts_nanoseconds, int(times.min())), int(times.max())))
        # What overflows as a signed number is right as an unsigned one.
        distances = np.where(times > time, times - time, time - times).view(np.uint64)
        return self._indices[int(distances.argmin())]  # the first of the smallest ones

    def check(self, pts_nanoseconds: int) -> None:
        """Make sure that no frame which is forgotten may be nearest to a time.

        Raises:
            InvalidArgument: One may; fields as seen from the request.
        """
        if self._forgot and pts_nanoseconds < min(self._times):
            oldest, frame_index = self._times[0], self._indices[0]
            raise InvalidArgument.of(
                "prompt.pts_seconds",
                f"is {pts_nanoseconds / 1e9:g}, which lies before the frames that can still be corrected; the oldest "
                f"is frame {frame_index} at {oldest / 1e9:g} s",
            )
