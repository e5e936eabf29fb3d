"""What the page can ask of a video: each verb checked, done, written to the project, and told to all tabs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from masklet.colours import colour_of
from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, NotFound, ResourceExhausted
from masklet_studio.project.history import GivenPrompt
from masklet_studio.project.records import ABSENT, EDITED, PROMPTED, VISIBLE, MaskRecord, record_of
from masklet_studio.session import fields
from masklet_studio.session.board import Board
from masklet_studio.session.engine import Engine, wire_prompt
from masklet_studio.session.fields import MAX_OBJECT, Request, frame_of, range_of
from masklet_studio.session.questions import Questions
from masklet_studio.session.tab import Tab
from masklet_studio.session.tracker import Tracker

_DRAWN_IOU, _DRAWN_SCORE = 1.0, 10.0  # of a mask that a person drew
_AT_ONCE = frozenset({"add_object", "change_object", "marks"})
"""Changes that touch no mask and ask the server nothing: they do not wait for a prompt that the model works on."""
Reply = dict[str, Any]


class Verbs:
    """Does what the page asks, one change after the other.

    Args:
        board: The video's state, and who is told.
        engine: The video's session on the server.
        tracker: Tracks.
        on_pending: Called when a prompt may count again that never got its mask; `show_pending` then makes it.
    """

    def __init__(self, board: Board, engine: Engine, tracker: Tracker, on_pending: Callable[[], object]) -> None:
        self._board = board
        self._project = board.project
        self._engine = engine
        self._tracker = tracker
        self._on_pending = on_pending
        self._questions = Questions(board)
        self._turn = asyncio.Lock()
        self._changes: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "add_object": self._add_object,
            "change_object": self._change_object,
            "remove_object": self._remove_object,
            "prompt": self._prompt,
            "edit_mask": self._edit_mask,
            "track": self._track,
            "marks": self._marks,
            "delete_masks": self._delete_masks,
            "exchange": self._exchange,
            "copy_mask": self._copy_mask,
            "undo": self._undo,
            "redo": self._redo,
        }

    async def do(self, request: Request, tab: Tab) -> Reply:
        """Do what a request asks.

        Args:
            request: As it came from the page.
            tab: The tab that asks.

        Returns:
            What the reply has beside its id.

        Raises:
            MaskletError: It cannot be done; nothing has changed then.
            OSError: The project cannot be written.
        """
        verb = request.get("do")
        if verb in _AT_ONCE:
            return await self._changes[verb](request)
        if verb in self._changes:
            async with self._turn:
                return await self._changes[verb](request)
        if verb == "stop":
            await self._tracker.stop()
            return {}
        if verb == "look":
            self._engine.look(frame_of(request, "frame", self._board.last_frame))
            return {}
        if verb in self._questions.known:
            return await self._questions.answer(request, tab)
        known = ", ".join([*self._changes, "stop", "look", *self._questions.known])
        raise InvalidArgument.of("do", f"is {verb!r:.60}, must be one of {known}")

    # Objects

    async def _add_object(self, request: Request) -> Reply:
        object_id = self._project.next_object
        if object_id > MAX_OBJECT:
            raise ResourceExhausted(f"a video can have {MAX_OBJECT} objects in all; begin another project")
        self._project.do(
            "add_object",
            self._described(request, object_id, "", "", "#{:02x}{:02x}{:02x}".format(*colour_of(object_id))),
        )
        self._board.tell_changes()
        self._board.redraw({object_id})
        return {"object": object_id}

    async def _change_object(self, request: Request) -> Reply:
        now = self._project.state.objects[self._object(request)]
        self._project.do("change_object", self._described(request, now.object_id, now.name, now.class_name, now.colour))
        self._board.tell_changes()
        return {}

    @staticmethod
    def _described(request: Request, object_id: int, name: str, class_name: str, colour: str) -> dict[str, Any]:
        return {
            "object": object_id,
            "name": fields.text(request, "name", name),
            "class": fields.text(request, "class", class_name),
            "colour": fields.colour(request, "colour", colour),
        }

    async def _remove_object(self, request: Request) -> Reply:
        object_id = self._object(request)
        self._project.do("remove_object", {"object": object_id})
        self._engine.forget(object_id)
        self._board.tell_changes()
        self._board.tell_invalid(object_id, 0, self._board.last_frame)
        return {}

    # Masks on a frame

    async def _prompt(self, request: Request) -> Reply:
        object_id, frame = self._object(request), frame_of(request, "frame", self._board.last_frame)
        mask = None if request.get("mask") is None else fields.counts(request, "mask", self._board.size)[0]
        given = self._given(object_id, frame, fields.points(request), fields.box(request), mask)
        if given is None:
            return self._clear(object_id, frame)
        wire_prompt(given, self._board.size)
        said = {
            "object": object_id,
            "frame": frame,
            "points": [list(point) for point in given.points],
            "box": given.box and list(given.box),
            "mask": given.mask,
            "corrects": given.corrects,
        }
        if self._engine.is_loading:
            return self._keep(said, "The model is being loaded. The mask comes by itself.")
        async with self._engine.turn():
            try:
                result = await self._engine.show(given, self._board.wanted())
            except (InvalidArgument, NotFound, ResourceExhausted):
                raise
            except MaskletError as error:
                self._board.tell_connection(error)
                return self._keep(said, error.message)
            record = record_of(result, frame, self._project.next_number, PROMPTED)
            self._project.do("prompt", said, [record])
        self._board.tell_connection(None)
        self._board.tell_masks([record])
        self._board.tell_changes()
        return {"pending": False}

    def _keep(self, said: dict[str, Any], message: str) -> Reply:
        """Keep what a person has said; `show_pending` makes its mask when the server is there."""
        self._project.do("prompt", said)
        self._board.tell_changes()
        return {"pending": True, "message": message}

    def _given(
        self, object_id: int, frame: int, points: list[list[float]], box: list[float] | None, mask: str | None
    ) -> GivenPrompt | None:
        """The prompt that a request makes; None where it takes the prompts back."""
        if not points and box is None and not mask:
            return None
        known = self._project.state.prompts.get((object_id, frame))
        if known is None:
            corrects = self._board.visible_mask(object_id, frame) is not None
        else:
            corrects = known.corrects or known.mask is not None
        return GivenPrompt(
            object_id, frame, self._project.next_number, tuple((x, y, int(label)) for x, y, label in points),
            None if box is None else (box[0], box[1], box[2], box[3]), mask or None, corrects and not mask,
        )  # fmt: skip

    def _clear(self, object_id: int, frame: int) -> Reply:
        """Take back an object's prompts on a frame, and the mask that they made."""
        if (object_id, frame) in self._project.state.prompts:
            left = self._left_without_prompts(object_id, frame)
            said = {"object": object_id, "frame": frame, "points": [], "box": None, "mask": None, "corrects": False}
            self._project.do("prompt", said, [left])
            self._engine.forget(object_id)
            self._board.tell_invalid(object_id, frame, frame)
            self._board.tell_changes()
        return {"pending": False}

    def _left_without_prompts(self, object_id: int, frame: int) -> MaskRecord:
        """The mask as it was tracked, if the frame was tracked before it was prompted."""
        tracked = self._project.tracked_record(object_id, frame)
        number = self._project.next_number
        return self._gone(object_id, frame) if tracked is None else dataclasses.replace(tracked, revision=number)

    async def show_pending(self) -> None:
        """Have the server make the masks of prompts that were given while it was not there.

        Raises:
            MaskletError: The server is not there, or refuses a prompt.
        """
        async with self._turn:
            for key, prompt in list(self._project.state.prompts.items()):
                stored = self._project.mask(*key)
                if prompt.mask is None and (stored is None or stored.revision < prompt.operation):
                    async with self._engine.turn():
                        result = await self._engine.show(prompt, self._board.wanted())
                    record = record_of(result, prompt.frame, prompt.operation, PROMPTED)
                    self._project.store([record])
                    self._board.tell_masks([record])

    async def _edit_mask(self, request: Request) -> Reply:
        object_id, frame = self._object(request), frame_of(request, "frame", self._board.last_frame)
        counts, area = fields.counts(request, "mask", self._board.size)
        record = self._drawn(object_id, frame, counts, area)
        self._project.do("edit_mask", {"object": object_id, "frame": frame, "mask": counts or None}, [record])
        self._board.tell_masks([record])
        self._board.tell_changes()
        return {}

    async def _copy_mask(self, request: Request) -> Reply:
        object_id = self._object(request)
        source, to = frame_of(request, "from", self._board.last_frame), frame_of(request, "to", self._board.last_frame)
        record = self._project.record(object_id, source)
        if record is None or not record.area:
            raise FailedPrecondition(f"object {object_id} has no mask on frame {source} to be copied")
        counts = record.counts.decode()
        copied = self._drawn(object_id, to, counts, record.area)
        self._project.do("copy_mask", {"object": object_id, "from": source, "to": to, "mask": counts}, [copied])
        self._board.tell_masks([copied])
        self._board.tell_changes()
        return {}

    def _drawn(self, object_id: int, frame: int, counts: str, area: int) -> MaskRecord:
        height, width = self._board.size
        flags = EDITED | (PROMPTED | VISIBLE if area else 0)
        score = _DRAWN_SCORE if area else -_DRAWN_SCORE
        return MaskRecord(
            object_id, frame, self._project.next_number, flags, _DRAWN_IOU, score, area, (width, height),
            counts.encode(),
        )  # fmt: skip

    def _gone(self, object_id: int, frame: int) -> MaskRecord:
        height, width = self._board.size
        return MaskRecord(object_id, frame, self._project.next_number, ABSENT, 0.0, 0.0, 0, (width, height), b"")

    # Masks on many frames

    async def _delete_masks(self, request: Request) -> Reply:
        object_id = self._object(request)
        first, last = range_of(request, self._board.last_frame)
        await self._tracker.stop()
        inside = [frame for frame in self._project.masks(object_id) if first <= frame <= last]
        gone = [self._gone(object_id, frame) for frame in inside]
        self._project.do("delete_masks", {"object": object_id, "from": first, "to": last}, gone)
        self._board.tell_invalid(object_id, first, last)
        self._board.tell_changes()
        return {"masks": len(gone)}

    async def _exchange(self, request: Request) -> Reply:
        a, b = self._object(request, "a"), self._object(request, "b")
        first = frame_of(request, "from", self._board.last_frame)
        if a == b:
            raise InvalidArgument.of("b", f"is {b}, as a is; name two objects")
        await self._tracker.stop()
        records = [*self._taken_over(a, b, first), *self._taken_over(b, a, first)]
        now = {record.object_id: record for record in records if record.frame == first and record.area}
        masks = {one: now[one].counts.decode() if one in now else None for one in (a, b)}
        said = {"a": a, "b": b, "from": first, "mask_a": masks[a], "mask_b": masks[b]}
        self._project.do("exchange", said, records)
        for object_id in (a, b):
            self._engine.forget(object_id)
            self._board.tell_invalid(object_id, first, self._board.last_frame)
        self._board.tell_changes()
        return {"masks": len(records)}

    def _taken_over(self, object_id: int, other: int, first: int) -> list[MaskRecord]:
        """The masks of another object from a frame on, as those of this object."""
        number = self._project.next_number
        own = {frame for frame in self._project.masks(object_id) if frame >= first}
        records = []
        for frame, stored in self._project.masks(other).items():
            if frame >= first:
                own.discard(frame)
                one = MaskRecord.unpack(self._project.bytes_of(stored))
                records.append(dataclasses.replace(one, object_id=object_id, revision=number))
        return records + [self._gone(object_id, frame) for frame in sorted(own)]

    async def _marks(self, request: Request) -> Reply:
        last = self._board.last_frame
        first, end = (fields.whole_or_none(request, name, 0, last) for name in ("in", "out"))
        if first is not None and end is not None and first > end:
            raise InvalidArgument.of("out", f"is {end}, must not be before the mark in, which is {first}")
        self._project.do("marks", {"in": first, "out": end})
        self._board.tell_changes()
        return {}

    async def _track(self, request: Request) -> Reply:
        direction = fields.choice(request, "direction", ("forward", "backward", "both"))
        objects = request.get("objects")
        if objects is not None and (not isinstance(objects, list) or not objects):
            raise InvalidArgument.of("objects", "must be a list of objects, or null for all")
        for object_id in objects or ():
            self._object({"objects": object_id}, "objects")
        number = await self._tracker.start(objects, frame_of(request, "from", self._board.last_frame), direction)
        return {"revision": number}

    # Undo

    async def _undo(self, _request: Request) -> Reply:
        return await self._step(self._project.undo)

    async def _redo(self, _request: Request) -> Reply:
        return await self._step(self._project.redo)

    async def _step(self, step: Callable[[], dict[str, Any] | None]) -> Reply:
        await self._tracker.stop()
        before = set(self._project.state.objects)
        operation = step()
        if operation is None:
            raise FailedPrecondition("there is nothing to undo or to do again")
        changed = self._project.made_by(operation["n"])
        for object_id in before ^ set(self._project.state.objects):
            changed[object_id] = (0, self._board.last_frame)
        for object_id in changed:
            self._engine.forget(object_id)
        for tab in self._board.tabs:
            tab.event(self._board.state())
        for object_id, (first, last) in changed.items():
            self._board.tell_invalid(object_id, first, last)
        self._board.save_soon()
        self._on_pending()
        return {"did": operation["do"]}

    # Fields

    def _object(self, request: Request, field: str = "object") -> int:
        object_id = fields.whole(request, field, 1, MAX_OBJECT)
        if object_id not in self._project.state.objects:
            known = ", ".join(map(str, self._project.state.objects)) or "none"
            raise InvalidArgument.of(field, f"is {object_id}, which is no object; the objects are: {known}")
        return object_id
