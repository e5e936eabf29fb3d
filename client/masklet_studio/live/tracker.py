"""The tracking of a live session: a live call on the server, begun again by itself where the server goes away."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import masklet
from masklet.errors import FailedPrecondition, MaskletError, Unavailable
from masklet_studio.live.call import CORRECTION_WINDOW, LiveCall, wire_prompt
from masklet_studio.live.pictures import Found, LivePrompt, Picture
from masklet_studio.server_link import ServerLink

MAX_EARLY = 8
"""Clicks that are kept while there is no server."""
RETRY_SECONDS = 2.0
"""How long to wait before a server is tried again."""

logger = logging.getLogger("masklet.studio")


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
        self._call: LiveCall | None = None
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
            self._removed.discard(prompt.object_id)
            await self._call.prompt(prompt)
            return True
        if picture is None:
            raise Unavailable("the model server is away; click again when it is back")
        _check(prompt, picture)
        self._removed.discard(prompt.object_id)
        self._early.append((picture, prompt))
        return False

    async def begin_again(self, prompt: LivePrompt, picture: Picture) -> None:
        """Track an object from a picture on that was seen, without anything that was tracked of it before.

        A picture that the server remembers no longer is sent again. So tracking goes on as after a gap in the video.

        Raises:
            MaskletError: It cannot be done.
        """
        self.remove(prompt.object_id)
        self._removed.discard(prompt.object_id)
        if self._call is None:
            self._early.append((picture, prompt))
        else:
            await self._call.begin_again(prompt, picture)

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
        call = LiveCall(self._hear, {prompt.object_id for prompt in prompts})
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


def _check(prompt: LivePrompt, picture: Picture) -> None:
    """Refuse a prompt that the server would refuse later, when nobody waits for the answer any more."""
    wire_prompt(prompt).check_size(picture.height, picture.width)


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
        start[-1][1].append(wire_prompt(prompt, len(start) - 1))
    clicked = {prompt.object_id for _, prompt in early}
    return start, [one for one, result in objects.items() if not result.area and one not in clicked]
