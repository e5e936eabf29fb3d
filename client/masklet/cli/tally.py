"""What `masklet track` prints at its end: frames, objects, and what happened to them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich import box as boxes
from rich.console import Console
from rich.table import Table

from masklet.cli.console import object_label, out

if TYPE_CHECKING:
    from masklet import FrameResult

MAX_EVENTS_TOLD = 10
"""Events of each object that are printed; a long stream may have any number of them."""


class Tally:
    """Counts what is printed at the end of a run.

    Attributes:
        frames: Frames that were counted.
        skipped: Frames of a live video that came faster than they could be tracked.
        gaps: How often a live video was connected again.
        undecoded: Times in seconds of the frames that the file has and that could not be decoded.
        separate_frames: Frames whose masks were also written one by one, because they overlap.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.skipped = 0
        self.gaps = 0
        self.undecoded: tuple[float, ...] = ()
        self.separate_frames = 0
        self._begun = time.monotonic()
        self._ended = self._begun
        self._visible: dict[int, int] = {}
        self._iou_sum: dict[int, float] = {}
        self._events: dict[int, list[str]] = {}
        self._events_not_kept = 0

    def add(self, frame: FrameResult) -> None:
        """Count a frame and its objects."""
        self.frames += 1
        self.skipped += len(frame.skipped_frame_indices)
        self._ended = time.monotonic()
        for object_id, result in frame.objects.items():
            self._visible[object_id] = self._visible.get(object_id, 0) + result.visible
            self._iou_sum[object_id] = self._iou_sum.get(object_id, 0.0) + result.predicted_iou * result.visible
            if result.event is not None:
                self._note(object_id, f"{result.event.replace('_', ' ')} at frame {frame.frame_index}")

    def _note(self, object_id: int, event: str) -> None:
        told = self._events.setdefault(object_id, [])
        if len(told) < MAX_EVENTS_TOLD:
            told.append(event)
        else:
            self._events_not_kept += 1

    def print(self, console: Console | None = None) -> None:
        """Print the counts as a table, and the events.

        Args:
            console: Where to print; None: on stdout.
        """
        seconds = max(self._ended - self._begun, 1e-9)
        console = console or out()
        console.print(f"{_counted(self.frames)} in {seconds:.1f} s, {self.frames / seconds:.1f} frames/s")
        if self.skipped:
            share = self.skipped / (self.frames + self.skipped)
            console.print(
                f"{self.skipped} frames ({share:.0%}) came faster than they could be tracked, and were skipped"
            )
        if self.gaps:
            console.print(f"the stream broke off and was connected again {self.gaps} times")
        table = Table(box=boxes.SIMPLE_HEAD)
        for heading in ("object", "visible frames", "mean predicted IoU"):
            table.add_column(heading, justify="right")
        for object_id, visible in sorted(self._visible.items()):
            mean = f"{self._iou_sum[object_id] / visible:.3f}" if visible else "-"
            table.add_row(object_label(object_id), str(visible), mean)
        if self._visible:
            console.print(table)
        for object_id, told in sorted(self._events.items()):
            console.print(f"object {object_id}: {', '.join(told)}", soft_wrap=True)
        if self.separate_frames:
            console.print(
                f"in {self.separate_frames} frames masks overlap, or object ids are above 255; "
                "the folder objects has the whole mask of every object of these frames",
                soft_wrap=True,
            )
        if self.undecoded:
            times = ", ".join(f"{time:.3f}" for time in self.undecoded[:MAX_EVENTS_TOLD])
            more = ", ..." if len(self.undecoded) > MAX_EVENTS_TOLD else ""
            console.print(
                f"{len(self.undecoded)} frames of the file could not be decoded, at {times}{more} s; "
                "frame numbers count the others",
                soft_wrap=True,
            )
        if self._events_not_kept:
            console.print(f"and {self._events_not_kept} more such events")


def _counted(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"
