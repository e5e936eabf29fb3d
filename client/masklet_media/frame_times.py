"""Gives every frame of a video file its time, and finds the frames that were promised and not decoded.

These rules are kept:

- A frame has the presentation time of its packet. Times never go back: frames with equal stamps have equal times.
- AVI has decoding times alone. They are handed to the frames in order, because as many frames come out as go in.
- Where a container may start its clock anew in the middle (a transport stream made of two recordings), times go on by
  one frame. A jump ahead of more than ten seconds is taken for such a start, as the program ffmpeg does.
- Frames without any stamp follow at the video's frame rate.
"""

from __future__ import annotations

import heapq
from fractions import Fraction
from typing import TypeAlias

Promise: TypeAlias = tuple[int, int]
"""A frame that is promised: how often the clock had started anew, and the frame's stamp."""
# The `dts_delta_threshold` of the program ffmpeg.
_JUMP_SECONDS = 10


class FrameClock:
    """Times of frames, in units of the stream's time base.

    Attributes:
        restarts: How often the container's clock has started anew so far.

    Args:
        step: Units between two frames at the video's frame rate.
        time_base: Seconds in a unit.
        may_restart: The container's clock may start anew in the middle.
    """

    def __init__(self, step: Fraction, time_base: Fraction, *, may_restart: bool) -> None:
        self.restarts = 0
        self._step = step
        self._longest = round(_JUMP_SECONDS / time_base)
        self._may_restart = may_restart
        self._stamp: int | None = None
        self._offsets = [0]
        self._base = 0
        self._last: int | None = None
        self._without_stamp = 0

    def time_of(self, stamp: int | None) -> int:
        """The time of the next frame; `stamp` is what the container says, if it says anything."""
        if stamp is None:
            self._last = self._follow()
            return self._last
        if self._is_restart(stamp):
            self.restarts += 1
            self._offsets.append(self._follow() - stamp)
        self._stamp, self._without_stamp = stamp, 0
        time = stamp + self._offsets[-1]
        self._last = self._base = time if self._last is None else max(time, self._last)
        return self._last

    def time_of_undecoded(self, promise: Promise) -> int:
        """The time of a frame that was promised and not decoded."""
        restarts, stamp = promise
        return stamp + self._offsets[min(restarts, self.restarts)]

    def _is_restart(self, stamp: int) -> bool:
        if self._stamp is None or not self._may_restart:
            return False
        return stamp < self._stamp - self._step or stamp > self._stamp + self._longest

    def _follow(self) -> int:
        """The time one frame after the last one."""
        if self._last is None:
            return 0
        self._without_stamp += 1
        return max(self._last, self._base + round(self._without_stamp * self._step))


class PromisedFrames:
    """The frames that a container's packets promise, until the decoder gives them.

    Attributes:
        is_damaged: The decoder has failed on a packet. Without that, frames that do not come were never meant to be
            seen, such as those before the first key frame.

    Args:
        in_decoding_order: The packets have decoding times alone.
    """

    def __init__(self, *, in_decoding_order: bool) -> None:
        self.is_damaged = False
        self._in_decoding_order = in_decoding_order
        self._waiting: list[Promise] = []
        self._lost: list[Promise] = []
        self._packet_restarts = 0
        self._last_dts: int | None = None

    def add(self, pts: int | None, dts: int | None, *, may_restart: bool) -> None:
        """A packet with a frame that is to be seen goes to the decoder."""
        if may_restart and dts is not None and self._last_dts is not None and dts < self._last_dts:
            self._packet_restarts += 1
        self._last_dts = self._last_dts if dts is None else dts
        stamp = dts if self._in_decoding_order else pts
        if stamp is not None:
            heapq.heappush(self._waiting, (self._packet_restarts, stamp))

    def fail(self, dts: int | None) -> None:
        """The decoder has failed on a packet."""
        self.is_damaged = True
        if self._in_decoding_order and dts is not None and (self._packet_restarts, dts) in self._waiting:
            self._waiting.remove((self._packet_restarts, dts))
            heapq.heapify(self._waiting)
            self._lost.append((self._packet_restarts, dts))

    def stamp_of(self, pts: int | None) -> int | None:
        """The stamp of the frame that the decoder gives next; `pts` is its own."""
        if not self._in_decoding_order:
            return pts
        return self._waiting[0][1] if self._waiting else None

    def give(self, restarts: int, stamp: int | None) -> list[Promise]:
        """The decoder has given a frame. Returns the frames before it that it has not given.

        Args:
            restarts: How often the clock of the frames has started anew.
            stamp: What `stamp_of` returned.
        """
        if stamp is None:
            return []
        before = []
        while self._waiting and self._waiting[0] <= (restarts, stamp):
            key = heapq.heappop(self._waiting)
            if key != (restarts, stamp):
                before.append(key)
            elif self._in_decoding_order:
                break
        before += [key for key in self._lost if key < (restarts, stamp)]
        self._lost = [key for key in self._lost if key > (restarts, stamp)]
        return sorted(before) if self.is_damaged else []

    def rest(self) -> list[Promise]:
        """After the last frame: the frames that were not given."""
        return sorted(self._waiting + self._lost) if self.is_damaged else []
