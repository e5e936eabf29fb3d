"""From operations to what they make: objects, prompts and marks, with undo and redo.

Every operation has a number, higher than those before. "undo" and "redo" are operations, too, which name another one.
What is undone stays in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from masklet_studio.project.journal import Operation


@dataclass(frozen=True)
class StudioObject:
    """An object with what people call it.

    Attributes:
        object_id: 1 to 65535.
        name: What people call it.
        class_name: What kind of thing it is.
        colour: As "#rrggbb".
    """

    object_id: int
    name: str
    class_name: str
    colour: str


@dataclass(frozen=True)
class GivenPrompt:
    """All that a person has said of an object on a frame.

    Attributes:
        object_id: The object.
        frame: The frame's number.
        operation: The number of the operation that said it.
        points: x, y and 1 (foreground) or 0 (background) of each click.
        box: x0, y0, x1, y1; None where there is none.
        mask: COCO's compressed run-lengths; None where no mask is given.
        corrects: True: the object had a mask there before the first click, and the clicks change it.
    """

    object_id: int
    frame: int
    operation: int
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None
    corrects: bool = False


@dataclass
class Marks:
    """The first and the last frame of what is worked on; None: the video's own."""

    first: int | None = None
    last: int | None = None


@dataclass
class StudioState:
    """What all operations that count have made.

    Attributes:
        objects: By id.
        prompts: By object and frame.
        marks: What is worked on.
        cuts: By object, the frames at which it was exchanged with another one. What was said of it before such a frame
            says nothing of it afterwards.
    """

    objects: dict[int, StudioObject] = field(default_factory=dict)
    prompts: dict[tuple[int, int], GivenPrompt] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    cuts: dict[int, frozenset[int]] = field(default_factory=dict)

    def segment(self, object_id: int, frame: int) -> range:
        """The frames round a frame on which an object is the same thing: it was exchanged at their ends, if at all."""
        cuts = self.cuts.get(object_id, frozenset())
        first = max((cut for cut in cuts if cut <= frame), default=0)
        return range(first, min((cut for cut in cuts if cut > frame), default=sys.maxsize))

    def apply(self, operation: Operation) -> None:
        """Do what an operation says. One of a kind that is not known changes nothing here."""
        match operation["do"]:
            case "add_object" | "change_object":
                self._set_object(operation)
            case "remove_object":
                self._remove_object(operation)
            case "prompt":
                self._prompt(operation)
            case "edit_mask":
                self._set_mask(operation, operation["frame"])
            case "copy_mask":
                self._set_mask(operation, operation["to"])
            case "marks":
                self.marks = Marks(operation["in"], operation["out"])
            case "delete_masks":
                self._delete_masks(operation)
            case "exchange":
                self._exchange(operation)

    def _set_object(self, op: Mapping[str, Any]) -> None:
        self.objects[op["object"]] = StudioObject(op["object"], op["name"], op["class"], op["colour"])

    def _remove_object(self, op: Mapping[str, Any]) -> None:
        del self.objects[op["object"]]
        self.prompts = {key: prompt for key, prompt in self.prompts.items() if key[0] != op["object"]}

    def _prompt(self, op: Mapping[str, Any]) -> None:
        key = (op["object"], op["frame"])
        if not op["points"] and op["box"] is None and op["mask"] is None:
            self.prompts.pop(key, None)
            return
        self.prompts[key] = GivenPrompt(
            *key, op["n"], tuple((x, y, int(label)) for x, y, label in op["points"]),
            op["box"] and (op["box"][0], op["box"][1], op["box"][2], op["box"][3]), op["mask"], op["corrects"],
        )  # fmt: skip

    def _set_mask(self, op: Mapping[str, Any], frame: int) -> None:
        if op["mask"] is None:  # everything was erased
            self.prompts.pop((op["object"], frame), None)
        else:
            self.prompts[op["object"], frame] = GivenPrompt(op["object"], frame, op["n"], mask=op["mask"])

    def _delete_masks(self, op: Mapping[str, Any]) -> None:
        inside = range(op["from"], op["to"] + 1)
        self.prompts = {
            key: prompt for key, prompt in self.prompts.items() if key[0] != op["object"] or key[1] not in inside
        }

    def _exchange(self, op: Mapping[str, Any]) -> None:
        other = {op["a"]: op["b"], op["b"]: op["a"]}
        exchanged = {}
        for (object_id, frame), prompt in self.prompts.items():
            taken = other.get(object_id, object_id) if frame >= op["from"] else object_id
            exchanged[taken, frame] = (
                prompt
                if taken == object_id
                else GivenPrompt(taken, frame, op["n"], prompt.points, prompt.box, prompt.mask, prompt.corrects)
            )
        self.prompts = exchanged
        before = {one: self.cuts.get(one, frozenset()) for one in other}
        for one, another in other.items():
            kept = {cut for cut in before[one] if cut < op["from"]} | {
                cut for cut in before[another] if cut > op["from"]
            }
            self.cuts[one] = frozenset(kept | {op["from"]})
        for key, mask in (("a", op["mask_a"]), ("b", op["mask_b"])):
            if mask is not None:  # what the object is from here on, for tracking
                self.prompts[op[key], op["from"]] = GivenPrompt(op[key], op["from"], op["n"], mask=mask)


class History:
    """All operations of a video, and which of them count.

    Args:
        operations: Those of a journal, in order.
        newest_mask: The highest revision of a stored mask. Operations get higher numbers.

    Attributes:
        state: What the operations that count have made.
    """

    def __init__(self, operations: list[Operation], newest_mask: int = 0) -> None:
        self.state = StudioState()
        self._done: list[Operation] = []
        self._undone: list[Operation] = []
        self._counting: set[int] = set()
        self._last = 0
        self._last_object = 0
        for operation in operations:
            self._take(operation)
        self._last = max(self._last, newest_mask)
        self._replay()

    @property
    def next_number(self) -> int:
        """The number of the next operation."""
        return self._last + 1

    @property
    def next_object(self) -> int:
        """An id that no object has had."""
        return self._last_object + 1

    def counts(self, number: int) -> bool:
        """Whether the operation of this number is not undone."""
        return number in self._counting

    @property
    def undoable(self) -> Operation | None:
        """The operation that `undo` would undo."""
        return self._done[-1] if self._done else None

    @property
    def redoable(self) -> Operation | None:
        """The operation that `redo` would do again."""
        return self._undone[-1] if self._undone else None

    def add(self, operation: Operation) -> None:
        """Take an operation that was written to the journal."""
        self._take(operation)
        if operation["do"] in ("undo", "redo"):
            self._replay()
        else:
            self.state.apply(operation)

    def _take(self, operation: Operation) -> None:
        self._last = operation["n"]
        if operation["do"] == "undo":
            self._undone.append(self._done.pop())
            self._counting.remove(self._undone[-1]["n"])
            return
        if operation["do"] == "redo":
            self._done.append(self._undone.pop())
        else:
            self._undone.clear()
            self._done.append(operation)
            if operation["do"] == "add_object":
                self._last_object = max(self._last_object, operation["object"])
        self._counting.add(self._done[-1]["n"])

    def _replay(self) -> None:
        self.state = StudioState()
        for operation in self._done:
            self.state.apply(operation)
