"""The tracked frames that can still be corrected, and what objects' memories must keep for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from masklet.errors import InvalidArgument, ResourceExhausted
from masklet_server.budgets.budget import Share
from masklet_server.budgets.shares import UNBOUNDED
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.session.automatic.redecoded_frames import RedecodedFrames
from masklet_server.session.automatic.timetable import Timetable
from masklet_server.session.jobs import TrackedFrame
from masklet_server.session.restoring.state import WindowFrame
from masklet_server.video.frame import KeyFrame


class CorrectionWindow:
    """The last tracked frames, with their pixels, bounded in number and in bytes.

    A frame is kept even if no object was tracked on it, because a new object may begin there. Frames that have left the
    window can be corrected too if they can be decoded again.

    Attributes:
        size: Number of frames in the window, at most; 0: no tracked frame can be corrected.
        times: The times of the frames taken so far.
        redecoded: Decodes the frames that have left the window; None if that is impossible.
        nbytes: Size of the pixels of all frames in the window.
        is_restored: The session was restored from a snapshot, which does not have the frames before the window.

    Args:
        size: Number of frames, at most.
        max_bytes: Bound of the frames' pixels together with what memory banks keep for corrections.
        memory: Where they are counted. If it has no more, the window has fewer frames.
    """

    def __init__(self, size: int, max_bytes: int, memory: Share = UNBOUNDED.corrections) -> None:
        self._memory = memory
        self._counted = 0
        self.size = size
        self.times = Timetable(size)
        self.redecoded: RedecodedFrames | None = None
        self.nbytes = 0
        self.is_restored = False
        self._max_bytes = max_bytes
        self._frames: deque[TrackedFrame] = deque()
        self._revisions: dict[int, int] = {}
        self._last_step = -1
        self._last_dropped = -1

    def __len__(self) -> int:
        return len(self._frames)

    def clear(self) -> None:
        """Let all frames of the window go."""
        self._frames.clear()
        self._revisions.clear()
        self.nbytes = 0
        self._memory.give_back(self._counted)
        self._counted = 0

    async def end_redecoding(self) -> None:
        """End the process that decodes frames again, if there is one."""
        if self.redecoded is not None:
            await self.redecoded.close()

    # Which frames it has

    def note_time(self, frame_index: int, pts_nanoseconds: int) -> None:
        """Remember the time of a frame that is about to be tracked, as long as the frame can be corrected."""
        self.times.add(frame_index, pts_nanoseconds, forget=self.redecoded is None)

    def add(self, frame: TrackedFrame, banks: Collection[MemoryBank]) -> None:
        """A frame was tracked. The oldest frames leave the window as the bounds demand, in the banks too."""
        if not self.size:
            return
        self._frames.append(frame)
        self._revisions[frame.index] = 0
        self.nbytes += frame.frame.pixels.nbytes
        self._last_step = frame.step
        if len(self) > self.size:
            self._drop()
        for bank in banks:
            bank.keep(len(self))
        while self._frames and not self._has_room(banks):
            self._drop()
            for bank in banks:
                bank.keep(len(self))

    def _has_room(self, banks: Collection[MemoryBank]) -> bool:
        """Count what the window takes now; False if that is too much."""
        wanted = self.nbytes + sum(bank.correction_nbytes for bank in banks)
        if wanted > self._max_bytes:
            return False
        try:
            if wanted > self._counted:
                self._memory.take(wanted - self._counted)
            else:
                self._memory.give_back(self._counted - wanted)
        except ResourceExhausted:
            return False
        self._counted = wanted
        return True

    def dump(self, size: int) -> list[WindowFrame]:
        """The last frames of the window, at most so many."""
        return [
            WindowFrame(one.index, one.step, list(one.skipped), one.clip_length, self._revisions[one.index])
            for one in list(self._frames)[max(0, len(self) - size) :]
        ]

    def key_frame(self, frame_index: int) -> KeyFrame | None:
        """Where decoding can begin that is to give a frame of the window; None: not known."""
        frame = self.find(frame_index)
        return None if frame is None else frame.frame.key_frame

    def restore(self, frames: Sequence[tuple[TrackedFrame, int]], last_index: int, last_step: int) -> None:
        """Begin with the frames of a session that is restored.

        Args:
            frames: The frames that can be corrected, and how often each was sent again.
            last_index: Index of the last frame that was tracked.
            last_step: Number of frames that were tracked before it.
        """
        self.is_restored = True
        for frame, revision in frames:
            self._frames.append(frame)
            self._revisions[frame.index] = revision
            self.nbytes += frame.frame.pixels.nbytes
        self._last_step = last_step
        self._last_dropped = frames[0][0].first_index - 1 if frames else last_index

    def narrow(self, size: int, banks: Collection[MemoryBank]) -> None:
        """Keep fewer frames from now on, in the banks too.

        Args:
            size: At most so many.
            banks: The memories of all objects.
        """
        if self.size <= size:
            return
        self.size = size
        while len(self) > size:
            self._drop()
        for bank in banks:
            bank.keep(len(self))
        self._has_room(banks)

    def _drop(self) -> None:
        frame = self._frames.popleft()
        self.nbytes -= frame.frame.pixels.nbytes
        self._last_dropped = frame.index
        revision = self._revisions.pop(frame.index)
        if self.redecoded is not None:
            self.redecoded.note(frame.index, revision, frame.clip_length)

    def find(self, frame_index: int) -> TrackedFrame | None:
        """The frame of the window that takes a prompt for the given frame, which may be a skipped one."""
        if frame_index <= self._last_dropped:
            return None
        return next((frame for frame in self._frames if frame.index >= frame_index), None)

    async def fetch(self, frame_index: int) -> TrackedFrame | None:
        """As `find`. A frame that has left the window is decoded again, if that is possible.

        Raises:
            MaskletError: The frame can't be decoded again.
        """
        if self.redecoded is not None and 0 <= frame_index <= self._last_dropped:
            return await self.redecoded.fetch(frame_index)
        return self.find(frame_index)

    async def after(self, frame: TrackedFrame) -> TrackedFrame | None:
        """The frame that was tracked next; None after the last one.

        Raises:
            MaskletError: The frame can't be decoded again.
        """
        if self.is_last(frame):
            return None
        following = next((later for later in self._frames if later.step == frame.step + 1), None)
        if following is None and self.redecoded is not None:
            return await self.redecoded.fetch(frame.index + 1)
        await self.end_redecoding()  # all later frames are in the window
        return following

    def is_last(self, frame: TrackedFrame) -> bool:
        """Whether no frame was tracked after it."""
        return frame.step == self._last_step

    def must_redecode(self, frame_index: int) -> bool:
        """Whether the frame can be corrected only after it is decoded again."""
        return self.redecoded is not None and self.find(frame_index) is None

    def count_revision(self, frame: TrackedFrame) -> int:
        """The frame is about to be sent again; how often that has happened, this time included."""
        if frame.index in self._revisions:
            self._revisions[frame.index] += 1
            return self._revisions[frame.index]
        assert self.redecoded is not None, "the frame has left the window, so it was decoded again"
        return self.redecoded.count_revision(frame.index)

    def refusal(self, frame_index: int) -> InvalidArgument | None:
        """Why a tracked frame can't be corrected any more, or None if it can; the field is named as in the request."""
        if frame_index > self._last_dropped or self.redecoded is not None:
            return None
        which = f"frames {self._frames[0].first_index} to {self._frames[-1].index} can" if self._frames else "none can"
        return InvalidArgument.of(
            "prompt.frame_index",
            f"is {frame_index}, which was tracked too long ago to be corrected; {which}. {self._advice}",
        )

    @property
    def _advice(self) -> str:
        if self.is_restored:
            return (
                "The session was restored from a snapshot, which has no frames before these; to correct further ones "
                "after a server's end, set correction_window in config"
            )
        return "Every frame can be corrected in a clip that is sent as a file, and with PROPAGATION_ON_REQUEST"

    # What memory banks must keep

    def before_tracking(self, banks: Collection[MemoryBank]) -> None:
        """The next frame is about to be tracked: the banks must keep what correcting it needs too."""
        for bank in banks:
            bank.correction_window = min(len(self) + 1, self.size)

    def before_tracking_again(self, frame: TrackedFrame, banks: Collection[MemoryBank]) -> None:
        """A frame is about to be tracked again: the banks must keep what correcting the frames up to it needs."""
        for bank in banks:
            bank.correction_window = max(1, sum(one.step <= frame.step for one in self._frames))
