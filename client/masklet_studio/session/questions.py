"""What the page can ask of a video that changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from masklet.errors import InvalidArgument
from masklet_studio.project.records import MaskRecord
from masklet_studio.session import fields, review
from masklet_studio.session.board import Board
from masklet_studio.session.fields import Request, range_of
from masklet_studio.session.tab import Tab

MAX_FRAMES_AT_ONCE = 300
"""Frames whose masks one request may ask for."""
_RECORDS_IN_A_MESSAGE = 64
Reply = dict[str, Any]


class Questions:
    """Answers what changes nothing.

    Args:
        board: The video's state.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._project = board.project
        self._answers: dict[str, Callable[[Request, Tab], Awaitable[Reply]]] = {
            "masks": self._masks,
            "review": self._review,
            "doubtful": self._doubtful,
            "ping": self._ping,
        }

    @property
    def known(self) -> tuple[str, ...]:
        """The verbs that are questions."""
        return tuple(self._answers)

    async def answer(self, request: Request, tab: Tab) -> Reply:
        """The answer to a question, whose verb is `known`.

        Raises:
            InvalidArgument: A field is wrong.
        """
        return await self._answers[request["do"]](request, tab)

    async def _masks(self, request: Request, tab: Tab) -> Reply:
        first, last = range_of(request, self._board.last_frame)
        if last - first >= MAX_FRAMES_AT_ONCE:
            raise InvalidArgument.of("to", f"is {last}, must be below {first} + {MAX_FRAMES_AT_ONCE}")
        sent: list[bytes] = []
        count = 0
        for frame in range(first, last + 1):
            for object_id in self._project.state.objects:
                stored = self._project.mask(object_id, frame)
                if stored is not None:
                    sent.append(self._project.bytes_of(stored))
            if len(sent) >= _RECORDS_IN_A_MESSAGE or (frame == last and sent):
                count += len(sent)
                await tab.stored(b"".join(sent))
                sent = []
        return {"masks": count}

    async def _review(self, _request: Request, _tab: Tab) -> Reply:
        return {
            "frames": [
                {"frame": doubt.frame, "object": doubt.object_id, "why": doubt.why, "score": doubt.score}
                for doubt in await self._doubts()
            ]
        }

    async def _doubtful(self, request: Request, _tab: Tab) -> Reply:
        after = fields.whole(request, "after", -1, self._board.last_frame)
        found = await self._doubts()
        places = [index for index, doubt in enumerate(found) if doubt.frame == after]
        following = found[places[-1] + 1 :] if places else found
        if not following:
            return {"frame": None, "object": None, "why": "there is no other doubtful frame"}
        return {"frame": following[0].frame, "object": following[0].object_id, "why": following[0].why}

    async def _doubts(self) -> list[review.Doubt]:
        work = []
        for object_id in self._project.state.objects:
            prompted = {frame for owner, frame in self._project.state.prompts if owner == object_id}
            work.append((object_id, self._project.masks(object_id), prompted))

        def find() -> list[review.Doubt]:
            found = [
                doubt
                for object_id, masks, prompted in work
                for doubt in review.doubts(
                    object_id, masks, prompted, lambda stored: MaskRecord.unpack(self._project.bytes_of(stored))
                )
            ]
            return sorted(found, key=lambda doubt: (-doubt.score, doubt.frame, doubt.object_id))

        return await asyncio.to_thread(find)

    async def _ping(self, _request: Request, _tab: Tab) -> Reply:
        return {}
