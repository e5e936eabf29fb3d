"""One live call on the server: its pictures by the server's numbers, and the prompts that wait for their answer."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import masklet
from masklet import AsyncLive, FrameResult, ObjectResult, PromptResult
from masklet.errors import DeadlineExceeded, MaskletError, Unavailable
from masklet.rle import decode
from masklet_studio.live.pictures import Found, LivePrompt, Picture

QUICK_SECONDS = 0.06
"""A server that gives a result in less time has a second picture under way, so that it need not wait for one. With a
slower server that picture would only grow old."""
CORRECTION_WINDOW = 16
"""Pictures back to which a click can belong."""
KEEP_ALIVE_SECONDS = 15.0
"""How often the server hears that the video goes on, while the camera gives nothing."""
ANSWER_SECONDS = 10.0
"""The longest time to wait for what the server makes of a click."""

logger = logging.getLogger("masklet.studio")


class Heard(Protocol):
    """Takes what a call has found."""

    def __call__(self, found: Found | None, /) -> None:
        """Take what was found; None: the call has room for a picture again."""
        ...


class LiveCall:
    """One live call.

    Args:
        heard: Takes what is found.
        objects: The objects that the call begins with.
    """

    def __init__(self, heard: Heard, objects: set[int]) -> None:
        self._heard = heard
        self._objects = objects  # those that the server knows
        self._live: AsyncLive | None = None
        self._pictures: OrderedDict[int, Picture] = OrderedDict()  # the newest ones
        self._next = 0
        self._begins_at = 0  # what comes before was seen before this call
        self._under_way: set[int] = set()
        self._answered = asyncio.Event()
        self._took = 1.0  # seconds from one result to the next, of late
        self._heard_at = 0.0
        self._waiting: deque[tuple[LivePrompt, asyncio.Future[None]]] = deque()
        self._said: dict[int, list[LivePrompt]] = {}  # by the server's number of the frame
        self._again: dict[int, int] = {}  # frames that were sent a second time, each for one object
        self._sending = asyncio.Lock()
        self._sent_at = 0.0
        self._pts = 0.0

    async def begin(self, pictures: Sequence[Picture], said: Sequence[tuple[Picture, LivePrompt]]) -> None:
        """Send the pictures that were seen before, on which the prompts of this call are.

        One goes after the other, because pictures that wait may be skipped.
        """
        self._begins_at = len(pictures)
        for index, picture in enumerate(pictures):
            self._said[index] = [prompt for seen, prompt in said if seen is picture and prompt.mask is None]
            await self.send(picture)
            while self._under_way:
                self._answered.clear()
                await self._answered.wait()

    @property
    def has_room(self) -> bool:
        """Whether a further picture would not wait for long."""
        return len(self._under_way) < (2 if self._took < QUICK_SECONDS else 1)

    async def send(self, picture: Picture) -> None:
        """Send the next picture; as `AsyncLive.send`."""
        async with self._sending:
            await self._send(picture)

    async def _send(self, picture: Picture) -> None:
        assert self._live is not None
        index, self._next = self._next, self._next + 1
        self._pictures[index] = picture
        self._under_way.add(index)
        while len(self._pictures) > CORRECTION_WINDOW:
            self._pictures.popitem(last=False)
        self._sent_at = asyncio.get_running_loop().time()
        self._pts = max(self._pts, picture.pts_seconds)  # a picture that is sent again is no step back in time
        await self._live.send(picture.jpeg, pts_seconds=self._pts, capture_time_nanoseconds=picture.taken_nanoseconds)

    def _index_of(self, number: int) -> int | None:
        """The server's number of a picture; None where that is too long ago."""
        return next((i for i, one in self._pictures.items() if one.number == number), None)

    async def prompt(self, prompt: LivePrompt) -> None:
        """Say what an object is, and wait until the server has taken it.

        Raises:
            MaskletError: It cannot be done.
        """
        # On a picture that is too long ago the object cannot begin: then it is the next one.
        await self._answer(self._ask(prompt, self._index_of(prompt.number)))

    def _ask(self, prompt: LivePrompt, index: int | None) -> asyncio.Future[None]:
        assert self._live is not None
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, answered))
        self._live.prompt(wire_prompt(prompt), frame_index=index)
        return answered

    @staticmethod
    async def _answer(answered: asyncio.Future[None]) -> None:
        try:
            await asyncio.wait_for(answered, ANSWER_SECONDS)
        except asyncio.TimeoutError:
            raise DeadlineExceeded("the server has not answered the click; click again") from None

    async def begin_again(self, prompt: LivePrompt, picture: Picture) -> None:
        """Track an object from a picture on that was seen; one that is too long ago is sent a second time.

        Raises:
            MaskletError: It cannot be done.
        """
        index = self._index_of(picture.number)
        if index is not None:
            await self._answer(self._ask(prompt, index))
            return
        async with self._sending:  # no newer picture may overtake it, because the server would skip it
            self._again[self._next] = prompt.object_id
            answered = self._ask(prompt, self._next)
            await self._send(picture)
            await self._answer(answered)

    def remove(self, object_id: int) -> None:
        """Have the server track an object no longer; one that it does not know it would complain of."""
        assert self._live is not None
        if object_id in self._objects or any(one.object_id == object_id for one, _ in self._waiting):
            self._objects.discard(object_id)
            self._live.remove_object(object_id)

    def prompted(self, result: PromptResult) -> None:
        """Take what the model makes of a prompt."""
        for waiting in self._waiting:
            prompt, answered = waiting
            if prompt.object_id == result.object.object_id:
                self._waiting.remove(waiting)
                self._objects.add(prompt.object_id)
                if prompt.mask is None:
                    self._said.setdefault(result.frame_index, []).append(prompt)
                if not answered.done():
                    answered.set_result(None)
                break

    def refused(self, error: MaskletError) -> None:
        """Take an error after which the stream goes on: one of a prompt, the oldest one that waits."""
        if not self._waiting:
            logger.warning("the server said of a live session: %s", error)
            return
        _, answered = self._waiting.popleft()
        if not answered.done():
            answered.set_exception(error)

    async def hear(self, live: AsyncLive) -> None:
        """Take results until the call ends."""
        self._live = live
        keeping = asyncio.create_task(self._keep_alive())
        try:
            async for frame in self._live:
                self._take(frame)
        finally:
            keeping.cancel()

    def _take(self, frame: FrameResult) -> None:
        now = asyncio.get_running_loop().time()
        self._took += (min(1.0, now - self._heard_at) - self._took) / 4
        self._heard_at = now
        self._under_way -= {frame.frame_index, *frame.skipped_frame_indices}
        self._answered.set()
        prompts = self._said.pop(frame.frame_index, ())
        picture = self._pictures.get(frame.frame_index)
        if picture is None:
            self._heard(None)
            return
        objects: Mapping[int, ObjectResult] = frame.objects
        only = self._again.get(frame.frame_index)
        if only is not None:  # the others were found there when the picture was new
            objects = {only: objects[only]} if only in objects else {}
        is_new = frame.revision == 0 and frame.frame_index >= self._begins_at and only is None
        self._heard(Found(picture, objects, is_new, prompts))

    async def _keep_alive(self) -> None:
        assert self._live is not None
        while True:
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            if asyncio.get_running_loop().time() - self._sent_at > KEEP_ALIVE_SECONDS:
                self._live.keep_alive()

    def end(self) -> None:
        """Answer the prompts that wait: their call is over."""
        while self._waiting:
            _, answered = self._waiting.popleft()
            if not answered.done():
                answered.set_exception(Unavailable("the model server went away; click again when it is back"))


def wire_prompt(prompt: LivePrompt, frame_index: int = 0) -> masklet.Prompt:
    """A prompt as the client's library takes it."""
    return masklet.Prompt(
        prompt.object_id, frame_index, point_coords=[(x, y) for x, y, _ in prompt.points] or None,
        point_labels=[label for _, _, label in prompt.points] or None, box=prompt.box,
        mask=None if prompt.mask is None else decode(prompt.mask),
    )  # fmt: skip
