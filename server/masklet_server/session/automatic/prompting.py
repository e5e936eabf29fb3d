"""What a client says of objects where propagation is automatic: taken into the book, or refused."""

from __future__ import annotations

from masklet.errors import FailedPrecondition, NotFound
from masklet_server.masks.pool import MaskPool
from masklet_server.session import events
from masklet_server.session.automatic.tracked_objects import check_prompted_frames
from masklet_server.session.automatic.tracker import Tracker
from masklet_server.session.prompts import GivenPrompt, PromptBook


class Prompting:
    """Takes prompts, and takes them back.

    Args:
        book: Where prompts wait.
        tracker: Knows the objects.
        pool: Reads masks.
    """

    def __init__(self, book: PromptBook, tracker: Tracker, pool: MaskPool) -> None:
        self._book = book
        self._tracker = tracker
        self._pool = pool

    async def take(self, event: events.PromptObject | events.RemoveObject | events.ClearPrompts) -> None:
        """Do what the client says.

        Raises:
            MaskletError: It can't be done; nothing is changed.
        """
        match event:
            case events.PromptObject():
                await self._prompt(event)
            case events.RemoveObject():
                self._remove(event.object_id)
            case events.ClearPrompts():
                self._clear(event.object_id, event.frame_index)

    async def _prompt(self, event: events.PromptObject) -> None:
        given = event.prompt
        if given.mask is not None:
            await self._pool.run(given.check_mask)
        if event.on_next_frame:
            given = given.on_frame(self._book.next_frame)
        self._check_conditioning(given)
        self._book.add(given, self._tracker.objects)

    def _check_conditioning(self, given: GivenPrompt) -> None:
        timed = given.pts_nanoseconds is not None
        if not timed and given.frame_index < self._book.next_frame:
            return  # a correction
        followed = self._tracker.objects.get(given.object_id)
        prompted = 0 if followed is None else len(followed.prompted_frames) + followed.is_prompted_now
        waiting = self._book.frames_of(given.object_id) | (set() if timed else {given.frame_index})
        times = self._book.times_of(given.object_id) + timed
        check_prompted_frames(given.object_id, prompted + len(waiting) + times)

    def _remove(self, object_id: int) -> None:
        waiting = self._book.drop(object_id)
        if not self._tracker.remove(object_id) and not waiting:
            raise NotFound(f"object {object_id} is not followed, and no prompt for it waits")

    def _clear(self, object_id: int, frame_index: int) -> None:
        if self._book.drop(object_id, frame_index):
            return
        if self._tracker.was_prompted(object_id, frame_index):
            raise FailedPrecondition(
                f"the prompt for object {object_id} on frame {frame_index} was applied already: correct the object by "
                "another prompt, or remove it and prompt it anew; with PROPAGATION_ON_REQUEST prompts can be taken back"
            )
        raise NotFound(f"no prompt for object {object_id} on frame {frame_index} waits")
