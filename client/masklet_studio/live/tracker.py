"""The tracking of a live session: a live call on the server, begun again by itself where the server goes away."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import masklet
from masklet import AsyncLive, FrameResult, ObjectResult, PromptResult
from masklet.errors import DeadlineExceeded, FailedPrecondition, MaskletError, Unavailable
from masklet_studio.live.pictures import Picture
from masklet_studio.server_link import ServerLink

QUICK_SECONDS = 0.06
"""A server that gives a result in less time has a second picture under way, so that it need not wait for one. With a
slower server that picture would only grow old."""
MAX_EARLY = 8
"""Clicks that are kept while there is no server."""
CORRECTION_WINDOW = 16
"""Pictures back to which a click can belong."""
RETRY_SECONDS = 2.0
"""How long to wait before a server is tried again."""
KEEP_ALIVE_SECONDS = 15.0
"""How often the server hears that the video goes on, while the camera gives nothing."""
ANSWER_SECONDS = 10.0
"""The longest time to wait for what the server makes of a click."""

logger = logging.getLogger("masklet.studio")


@dataclass(frozen=True, eq=False)
class LivePrompt:
    """What a person has said of an object, on a picture that they saw.

    Attributes:
        object_id: The object.
        number: The picture's number.
        points: x, y and 1 or 0 of each click.
        box: x0, y0, x1, y1; None where there is none.
    """

    object_id: int
    number: int
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What the server has found on a picture.

    Attributes:
        picture: The picture.
        objects: Results by object. Where `is_new` is false, only those that have changed.
        is_new: Whether this is the first result of the picture; else a click has changed it afterwards.
        prompts: What was said of objects on this picture.
    """

    picture: Picture
    objects: Mapping[int, ObjectResult]
    is_new: bool
    prompts: Sequence[LivePrompt] = ()


class Listener(Protocol):
    """Takes what the tracking of a live session finds."""

    def found(self, found: Found) -> None:
        """Take what the server found on a picture."""
        ...

    def server_is(self, error: MaskletError | None, lost: Sequence[int]) -> None:
        """Take note that the server is there (None), or why it is not, and which objects it has lost by that."""
        ...


class LiveTracker:
    """Sends pictures to the server, no faster than it answers, and hears what it finds.

    Where the server goes away, a new call begins as soon as it is back, with the last picture that was tracked and the
    masks on it. So tracking goes on as after a gap in the video.

    Args:
        server: The server.
        model: The model; empty: the server's default.
        listener: Takes what is found.
    """

    def __init__(self, server: ServerLink, model: str, listener: Listener) -> None:
        self._server = server
        self._model = model
        self._listener = listener
        self._call: _Call | None = None
        self._last: Found | None = None
        self._early: deque[tuple[Picture, LivePrompt]] = deque(maxlen=MAX_EARLY)
        self._removed: set[int] = set()
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def is_there(self) -> bool:
        """Whether there is a server that tracks."""
        return self._call is not None

    async def room(self) -> None:
        """Wait until the server can take a picture; returns at once while there is no server."""
        while self._call is not None and not self._call.has_room:
            self._changed.clear()
            await self._changed.wait()

    async def send(self, picture: Picture) -> bool:
        """Send a picture; False where there is no server to send it to."""
        call = self._call
        if call is None:
            return False
        try:
            await call.send(picture)
        except FailedPrecondition:
            return False  # the call is over, which its loop tells
        return True

    async def prompt(self, prompt: LivePrompt, picture: Picture | None) -> bool:
        """Say what an object is, and wait until the server has taken it.

        Args:
            prompt: What was said.
            picture: What it was said of, if that is known; kept with the prompt while there is no server.

        Returns:
            Whether it was taken. False: it is kept, and taken as soon as there is a server.

        Raises:
            MaskletError: It cannot be done.
        """
        if self._call is not None:
            await self._call.prompt(prompt)
            return True
        if picture is None:
            raise Unavailable("the model server is away; click again when it is back")
        _check(prompt, picture)
        self._early.append((picture, prompt))
        return False

    def remove(self, object_id: int) -> None:
        """Stop tracking an object, also where it was clicked early."""
        self._removed.add(object_id)
        left_early = [(picture, prompt) for picture, prompt in self._early if prompt.object_id != object_id]
        self._early = deque(left_early, maxlen=MAX_EARLY)
        if self._last is not None:
            left = {one: result for one, result in self._last.objects.items() if one != object_id}
            self._last = replace(self._last, objects=left)
        if self._call is not None:
            self._call.remove(object_id)

    async def close(self) -> None:
        """End the call. May be called twice."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._track()
                error: MaskletError = Unavailable("the server has ended the stream")
            except MaskletError as failure:
                error = failure
            except Exception as failure:
                logger.exception("live tracking failed")
                error = Unavailable(f"the studio failed: {type(failure).__name__}: {failure}")
            self._listener.server_is(error, ())
            await asyncio.sleep(RETRY_SECONDS)

    async def _track(self) -> None:
        client = await self._server.client()
        await client.info()  # says whether the server is there: a call would be told only by its first result
        start, lost = _start_of(self._last, self._early)
        said = list(self._early)
        prompts = [prompt for _, prompts in start for prompt in prompts]
        call = _Call(self._hear)
        live = client.live(
            prompts, delivery="latest", correction_window=CORRECTION_WINDOW, on_prompt=call.prompted,
            on_error=call.refused, model=self._model, resume=False,  # the camera is seen meanwhile
        )  # fmt: skip
        work = call.hear(live), call.begin([picture for picture, _ in start], said)
        hearing, beginning = (asyncio.create_task(one) for one in work)
        try:
            await asyncio.wait({hearing, beginning}, return_when=asyncio.FIRST_COMPLETED)
            if beginning.done():
                beginning.result()
                self._early = deque((one for one in self._early if one not in said), maxlen=MAX_EARLY)
                self._call = call
                self._changed.set()
                self._listener.server_is(None, lost)
            await hearing
        finally:
            self._call = None
            self._changed.set()
            call.end()
            beginning.cancel()
            hearing.cancel()
            await asyncio.gather(hearing, beginning, return_exceptions=True)
            await live.close()

    def _hear(self, found: Found | None) -> None:
        """Take what a call has found; None: it has room again."""
        if found is not None:
            objects = {one: result for one, result in found.objects.items() if one not in self._removed}
            found = replace(found, objects=objects)
            if found.is_new or self._last is None:
                self._last = found
            elif self._last is not None and self._last.picture is found.picture:
                self._last = replace(self._last, objects={**self._last.objects, **objects})
            self._listener.found(found)
        self._changed.set()


class _Call:
    """One live call: its pictures by the server's numbers, and the prompts that wait for their answer."""

    def __init__(self, heard: _Heard) -> None:
        self._heard = heard
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
        self._sent_at = 0.0

    async def begin(self, pictures: Sequence[Picture], said: Sequence[tuple[Picture, LivePrompt]]) -> None:
        """Send the pictures that were seen before, on which the prompts of this call are.

        One goes after the other, because pictures that wait may be skipped.
        """
        self._begins_at = len(pictures)
        for index, picture in enumerate(pictures):
            self._said[index] = [prompt for seen, prompt in said if seen is picture]
            await self.send(picture)
            while self._under_way:
                self._answered.clear()
                await self._answered.wait()

    @property
    def has_room(self) -> bool:
        return len(self._under_way) < (2 if self._took < QUICK_SECONDS else 1)

    async def send(self, picture: Picture) -> None:
        assert self._live is not None
        index, self._next = self._next, self._next + 1
        self._pictures[index] = picture
        self._under_way.add(index)
        while len(self._pictures) > CORRECTION_WINDOW:
            self._pictures.popitem(last=False)
        self._sent_at = asyncio.get_running_loop().time()
        await self._live.send(
            picture.jpeg, pts_seconds=picture.pts_seconds, capture_time_nanoseconds=picture.taken_nanoseconds
        )

    async def prompt(self, prompt: LivePrompt) -> None:
        assert self._live is not None
        index = next((i for i, one in self._pictures.items() if one.number == prompt.number), None)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, answered))
        # On a picture that is too long ago the object cannot begin: then it is the next one.
        self._live.prompt(_wire(prompt), frame_index=index)
        try:
            await asyncio.wait_for(answered, ANSWER_SECONDS)
        except asyncio.TimeoutError:
            raise DeadlineExceeded("the server has not answered the click; click again") from None

    def remove(self, object_id: int) -> None:
        assert self._live is not None
        self._live.remove_object(object_id)

    def prompted(self, result: PromptResult) -> None:
        """Take what the model makes of a prompt."""
        for waiting in self._waiting:
            prompt, answered = waiting
            if prompt.object_id == result.object.object_id:
                self._waiting.remove(waiting)
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
        is_new = frame.revision == 0 and frame.frame_index >= self._begins_at
        self._heard(Found(picture, frame.objects, is_new, prompts))

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


class _Heard(Protocol):
    def __call__(self, found: Found | None, /) -> None: ...


def _wire(prompt: LivePrompt, frame_index: int = 0) -> masklet.Prompt:
    return masklet.Prompt(
        prompt.object_id, frame_index, point_coords=[(x, y) for x, y, _ in prompt.points] or None,
        point_labels=[label for _, _, label in prompt.points] or None, box=prompt.box,
    )  # fmt: skip


def _check(prompt: LivePrompt, picture: Picture) -> None:
    """Refuse a prompt that the server would refuse later, when nobody waits for the answer any more."""
    _wire(prompt).check_size(picture.height, picture.width)


def _start_of(
    last: Found | None, early: Sequence[tuple[Picture, LivePrompt]]
) -> tuple[list[tuple[Picture, list[masklet.Prompt]]], list[int]]:
    """What a call begins with: pictures, each with its prompts; and the objects that are lost with the call before.

    These are the last picture that was tracked with the masks on it, and the pictures that were clicked since.
    """
    start: list[tuple[Picture, list[masklet.Prompt]]] = []
    objects = {} if last is None else last.objects
    masks = [masklet.Prompt(one, mask=result.mask) for one, result in objects.items() if result.area]
    if last is not None and masks:
        start.append((last.picture, masks))
    for picture, prompt in early:
        if not start or start[-1][0] is not picture:
            start.append((picture, []))
        start[-1][1].append(_wire(prompt, len(start) - 1))
    clicked = {prompt.object_id for _, prompt in early}
    return start, [one for one, result in objects.items() if not result.area and one not in clicked]
