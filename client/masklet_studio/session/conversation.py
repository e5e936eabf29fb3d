"""A tab's WebSocket: what it asks is done and answered, while what waits for it is sent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from masklet.errors import MaskletError
from masklet_studio.answers import error_to_dict
from masklet_studio.session.fields import Request
from masklet_studio.session.tab import Socket

MAX_UNANSWERED = 64
"""Requests of one tab that are worked on; further ones are read when some are answered."""

logger = logging.getLogger("masklet.studio")


class PageSocket(Socket, Protocol):
    """A WebSocket with the page at its other end."""

    async def receive(self) -> Any:
        """Wait for the tab's next message, as ASGI has it."""
        ...


class Listening(Protocol):
    """A tab that events and answers are sent to."""

    def event(self, event: dict[str, Any]) -> None:
        """Send an event, after those that wait."""
        ...

    async def write(self) -> None:
        """Send what waits, until the tab is gone."""
        ...

    def close(self) -> None:
        """Send nothing more: the tab is gone."""
        ...


def _take_none(_data: bytes) -> None:
    """A page that sends bytes where none are taken gets no answer."""


@dataclass(frozen=True)
class Conversation:
    """What is done with a tab's messages.

    Attributes:
        do: Does what a request asks; returns what the reply has beside its id. Raises `MaskletError` or `OSError` where
            it cannot be done.
        left: Called at once when the tab is gone, before its last requests are done.
        told: By verb, takes requests that have no reply.
        take: Takes bytes.
    """

    do: Callable[[Request], Awaitable[dict[str, Any]]]
    left: Callable[[], None]
    told: dict[str, Callable[[Request], None]]
    take: Callable[[bytes], None] = _take_none


async def serve(socket: PageSocket, tab: Listening, conversation: Conversation) -> None:
    """Serve a tab until it is gone.

    Raises:
        Exception: Whatever says that the tab is gone.
    """
    reading = asyncio.create_task(_read(socket, tab, conversation))
    writing = asyncio.create_task(tab.write())
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        conversation.left()
        tab.close()
        for task in (reading, writing):
            task.cancel()
        results = await asyncio.gather(reading, writing, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _read(socket: PageSocket, tab: Listening, conversation: Conversation) -> None:
    answering: set[asyncio.Task[None]] = set()
    try:
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            if message.get("bytes") is not None:
                conversation.take(message["bytes"])
                continue
            request = _parse(message.get("text") or "")
            told = conversation.told.get(str(request.get("do")))
            if told is not None:
                told(request)
                continue
            # Answers do not wait for one another: a tab can stop a run, and ping, while a prompt is worked on.
            task = asyncio.create_task(_answer(request, tab, conversation))
            answering.add(task)
            task.add_done_callback(answering.discard)
            if len(answering) >= MAX_UNANSWERED:
                await asyncio.wait(answering, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # What was asked for is done even if the tab is closed meanwhile.
        await asyncio.gather(*answering, return_exceptions=True)


async def _answer(request: Request, tab: Listening, conversation: Conversation) -> None:
    reply: dict[str, Any] = {"event": "reply", "id": request.get("id")}
    try:
        done = await conversation.do(request)
    except Exception as error:
        if not isinstance(error, (MaskletError, OSError)):
            logger.exception("the request %r failed", request.get("do"))
        tab.event({**reply, "ok": False, "error": error_to_dict(error)})
    else:
        tab.event({**reply, "ok": True, **done})


def _parse(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except ValueError:
        request = None
    # What is no request gets the answer that its verb is unknown.
    return request if isinstance(request, dict) else {}
