"""Tracking as a task of its own: it makes way for prompts, survives a restart of the server, and can be stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

from masklet import FrameResult
from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, NotFound
from masklet_studio.answers import error_to_dict
from masklet_studio.project.records import PROMPTED, MaskRecord, record_of
from masklet_studio.session.board import Board, TrackingStatus
from masklet_studio.session.engine import Engine, Run

RETRY_SECONDS = 1.0
"""How long to wait for a server that is not there before it is tried again."""
GIVE_UP_SECONDS = 600.0
"""How long a server may be gone before a run is given up."""
_PACE_OVER = 20  # frames

logger = logging.getLogger("masklet.studio")


class Tracker:
    """Runs one track at a time over a video.

    Args:
        board: Where results go.
        engine: Gives them.
    """

    def __init__(self, board: Board, engine: Engine) -> None:
        self._board = board
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._operation = 0

    @property
    def is_running(self) -> bool:
        """Whether something is tracked now."""
        return self._task is not None and not self._task.done()

    async def start(self, object_ids: list[int] | None, start: int, direction: str) -> int:
        """Begin to track; a run that is under way ends first.

        Args:
            object_ids: What is tracked; None: all that has a prompt, or a mask on the first frame.
            start: The first frame.
            direction: "forward", "backward" or "both".

        Returns:
            The number of the operation.

        Raises:
            FailedPrecondition: There is nothing to track.
        """
        await self.stop()
        project = self._board.project
        chosen = self._trackable(object_ids, start)
        marks = project.state.marks
        first, last = marks.first or 0, self._board.last_frame if marks.last is None else marks.last
        last = min(last, self._board.last_frame)
        cuts = sorted({cut for one in chosen for cut in project.state.cuts.get(one, ())})
        legs: list[Run] = []
        if direction in ("forward", "both") and start <= last:
            legs += _forward(chosen, start, last, cuts)
        if direction in ("backward", "both") and start > first:
            legs += _backward(chosen, start, first, cuts)
        if not legs:
            raise FailedPrecondition(
                f"there is no frame to track {direction} from frame {start}: the marks allow {first} to {last}"
            )
        fields = {"objects": list(chosen), "direction": direction, "from": start, "first": first, "last": last}
        self._operation = project.do("track", fields)
        self._stopping = False
        self._board.tell_changes()
        self._task = asyncio.create_task(self._run(legs))
        return self._operation

    def _trackable(self, object_ids: list[int] | None, start: int) -> tuple[int, ...]:
        state = self._board.project.state
        prompted = {owner for owner, _ in state.prompts}
        can = [one for one in state.objects if one in prompted or self._board.visible_mask(one, start) is not None]
        for object_id in object_ids or ():
            if object_id not in state.objects:
                raise NotFound(f"there is no object {object_id}")
            if object_id not in can:
                raise FailedPrecondition(f"object {object_id} has no prompt; click it on a frame first")
        chosen = tuple(sorted(can if object_ids is None else object_ids))
        if not chosen:
            raise FailedPrecondition("no object has a prompt; add an object and click it first")
        return chosen

    async def stop(self) -> None:
        """End the run, if there is one, and wait until it has ended. What it has found stays."""
        self._stopping = True
        if self._task is not None:
            if not self._task.done():
                self._engine.stop()
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """End the run at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, legs: list[Run]) -> None:
        status = self._board.tracking = TrackingStatus(running=True)
        try:
            for leg in legs:
                status.direction = "backward" if leg.backward else "forward"
                status.frame, status.to = leg.start, leg.stop
                self._board.tell_tracking()
                await self._track(leg, status)
        except MaskletError as error:
            status.error = error_to_dict(error)
        except OSError as error:
            status.error = {"message": f"the project cannot be written: {error}", "field": None}
        except Exception as error:
            logger.exception("tracking failed")
            status.error = {"message": f"the studio failed: {type(error).__name__}: {error}", "field": None}
        finally:
            status.running = False
            self._board.tell_tracking()
            self._board.save_soon()

    async def _track(self, leg: Run, status: TrackingStatus) -> None:
        """Track a leg to its end, in as many turns as it takes."""
        times: deque[float] = deque(maxlen=_PACE_OVER)
        at, gone_since = leg.start, 0.0
        done: set[int] = set()
        while not self._stopping and (leg.stop not in done):
            try:
                async with self._engine.turn():
                    objects = tuple(one for one in leg.object_ids if one in self._board.project.state.objects)
                    if not objects:
                        return
                    async for frame in self._engine.run(Run(objects, at, leg.stop, leg.backward), self._board.wanted()):
                        gone_since = 0.0
                        self._board.tell_connection(None)
                        self._take(frame, leg, done)
                        at = status.frame = frame.frame_index
                        done.add(at)
                        times.append(time.monotonic())
                        status.frames_per_second = _pace(times)
                        self._board.tell_tracking()
                        if self._stopping or self._engine.is_wanted:
                            break
                    else:
                        if leg.stop not in done and not self._stopping and not self._engine.is_wanted:
                            return  # the video has fewer frames than was told
            except (InvalidArgument, NotFound):
                raise
            except MaskletError as error:
                if isinstance(error, FailedPrecondition) and gone_since:
                    raise  # a new session says the same
                gone_since = gone_since or time.monotonic()
                self._board.tell_connection(error)
                if time.monotonic() - gone_since > GIVE_UP_SECONDS:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    def _take(self, frame: FrameResult, leg: Run, done: set[int]) -> None:
        """Store the results of a frame, except masks that tracking goes by: prompts, and that of the first frame."""
        if frame.frame_index in done:  # where a turn before this one ended
            return
        project = self._board.project
        records: list[MaskRecord] = []
        for object_id, result in frame.objects.items():
            if object_id not in project.state.objects:
                continue
            known = project.mask(object_id, frame.frame_index)
            prompted = (object_id, frame.frame_index) in project.state.prompts
            if known is not None and (prompted or (frame.frame_index == leg.start and known.area)):
                continue
            records.append(record_of(result, frame.frame_index, self._operation, PROMPTED if prompted else 0))
        if records:
            project.store(records)
            self._board.tell_masks(records)


def _forward(object_ids: tuple[int, ...], start: int, stop: int, cuts: list[int]) -> list[Run]:
    """Runs to later frames, each of which ends before an object becomes another one."""
    starts = [start, *(cut for cut in cuts if start < cut <= stop)]
    ends = [*(following - 1 for following in starts[1:]), stop]
    return [Run(object_ids, *ends_of, backward=False) for ends_of in zip(starts, ends, strict=True)]


def _backward(object_ids: tuple[int, ...], start: int, stop: int, cuts: list[int]) -> list[Run]:
    """Runs to earlier frames, each of which ends where an object was another one before."""
    ends = [*(cut for cut in reversed(cuts) if stop < cut <= start), stop]
    starts = [start, *(end - 1 for end in ends[:-1])]
    return [Run(object_ids, *ends_of, backward=True) for ends_of in zip(starts, ends, strict=True)]


def _pace(times: deque[float]) -> float:
    if len(times) < 2 or times[-1] == times[0]:
        return 0.0
    return round((len(times) - 1) / (times[-1] - times[0]), 2)
