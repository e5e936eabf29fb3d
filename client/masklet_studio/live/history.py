"""What was done in a live session, so that it can be undone and done again.

A camera does not run backward. To undo a click means: from now on the object is what it was before the click. So each
change keeps how tracking of the object begins anew without it: a picture, and the mask that the object had there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from masklet_studio.live.pictures import Found, LivePrompt, Picture
from masklet_studio.project.history import StudioObject

MAX_CHANGES = 100
"""Changes that can be undone; each may hold a picture."""
MAX_PICTURE_BYTES = 64 << 20
"""Bytes of the pictures that they hold; where there are more, the oldest changes are forgotten."""


@dataclass(frozen=True, eq=False)
class Start:
    """How tracking of an object begins.

    Attributes:
        picture: The picture.
        prompt: What the object is there.
    """

    picture: Picture
    prompt: LivePrompt


@dataclass(frozen=True, eq=False)
class Held:
    """An object at a moment.

    Attributes:
        described: What it is called; None where there is no such object.
        start: How tracking of it begins anew; None where it is not tracked.
    """

    described: StudioObject | None
    start: Start | None = None


@dataclass(frozen=True, eq=False)
class Change:
    """One thing that a person has done to an object.

    Attributes:
        verb: What was done, such as "prompt".
        object_id: The object.
        before: What the object was.
        after: What it is since. Tracking goes on where its `start` is that of `before`.
        prompt: What a person has said, if that was it.
    """

    verb: str
    object_id: int
    before: Held
    after: Held
    prompt: LivePrompt | None = None


class LiveHistory:
    """The changes of a live session, and which of them are undone."""

    def __init__(self) -> None:
        self._done: list[Change] = []
        self._undone: list[Change] = []

    @property
    def undoable(self) -> Change | None:
        """The change that is undone next."""
        return self._done[-1] if self._done else None

    @property
    def redoable(self) -> Change | None:
        """The change that is done again next."""
        return self._undone[-1] if self._undone else None

    def add(self, change: Change) -> None:
        """Take a change that was done. What was undone before can be done again no more."""
        self._undone.clear()
        self._done.append(change)
        del self._done[:-MAX_CHANGES]
        while self._picture_bytes() > MAX_PICTURE_BYTES:
            del self._done[0]

    def _picture_bytes(self) -> int:
        starts = (held.start for change in self._done for held in (change.before, change.after))
        pictures = {id(start.picture): start.picture for start in starts if start is not None}
        return sum(len(one.jpeg) for one in pictures.values())

    def undid(self) -> None:
        """Take note that `undoable` was undone."""
        self._undone.append(self._done.pop())

    def redid(self) -> None:
        """Take note that `redoable` was done again."""
        self._done.append(self._undone.pop())

    def learn(self, found: Found) -> None:
        """Take note of what the server made of prompts: done again, they give the same masks.

        A click that corrects says too little of an object to begin with.
        """
        for index, change in enumerate(self._done):
            prompt, start = change.prompt, change.after.start
            if prompt is None or start is None or prompt not in found.prompts:
                continue
            result = found.objects.get(change.object_id)
            if result is not None and result.area:
                learned = replace(start.prompt, points=(), box=None, mask=result.rle)
                self._done[index] = replace(change, after=replace(change.after, start=Start(start.picture, learned)))
