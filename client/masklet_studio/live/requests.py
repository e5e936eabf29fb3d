"""What a tab can ask of a live session, and the pictures that it sends if it gives its camera."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from masklet.colours import colour_of
from masklet.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from masklet_studio.live.camera import PageCamera
from masklet_studio.live.live_session import LiveSession
from masklet_studio.live.pictures import LivePrompt
from masklet_studio.live.tab import LiveTab
from masklet_studio.project.history import StudioObject
from masklet_studio.session import conversation, fields
from masklet_studio.session.conversation import Conversation, PageSocket
from masklet_studio.session.fields import MAX_OBJECT, Request

MAX_OBJECTS = 64
"""Objects of a live session at once."""
Reply = dict[str, Any]


async def serve(session: LiveSession, socket: PageSocket) -> None:
    """Serve a tab until it is closed.

    Args:
        session: What it looks at.
        socket: The tab.

    Raises:
        Exception: Whatever says that the tab is gone.
    """
    tab = LiveTab(socket)
    session.join(tab)
    requests = _Requests(session, tab)
    talk = Conversation(requests.do, requests.leave, {"drawn": requests.drawn}, requests.push)
    await conversation.serve(socket, tab, talk)


class _Requests:
    """What one tab asks."""

    def __init__(self, session: LiveSession, tab: LiveTab) -> None:
        self._session = session
        self._tab = tab
        self._gives_camera = False
        self._verbs: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "add_object": self._add_object,
            "change_object": self._change_object,
            "remove_object": self._remove_object,
            "prompt": self._prompt,
            "undo": self._undo,
            "redo": self._redo,
            "record": self._record,
            "give_camera": self._give_camera,
            "ping": self._ping,
        }

    async def do(self, request: Request) -> Reply:
        """Do what a request asks; returns what the reply has beside its id.

        Raises:
            MaskletError: It cannot be done.
            OSError: The recording cannot be written.
        """
        verb = self._verbs.get(str(request.get("do")))
        if verb is None:
            known = ", ".join([*self._verbs, "drawn"])
            raise InvalidArgument.of("do", f"is {request.get('do')!r:.60}, must be one of {known}")
        return await verb(request)

    def drawn(self, request: Request) -> None:
        """Take note that the tab has drawn a picture; comes with every picture, and has no answer."""
        self._tab.drawn(fields.whole(request, "number", 0, 2**32 - 1))

    def leave(self) -> None:
        """Take note that the tab is gone."""
        self._session.leave(self._tab)
        if self._gives_camera and isinstance(self._session.camera, PageCamera):
            self._session.camera.leave()

    def push(self, jpeg: bytes) -> None:
        """Take a picture of the tab's camera."""
        camera = self._session.camera
        if not self._gives_camera or not isinstance(camera, PageCamera):
            return  # such as the last picture of a tab that was refused
        try:
            camera.push(jpeg)
        except InvalidArgument as error:
            self._tab.event({"event": "say", "message": error.message})

    async def _add_object(self, request: Request) -> Reply:
        objects = self._session.objects
        if len(objects) >= MAX_OBJECTS:
            raise ResourceExhausted(f"a live session has at most {MAX_OBJECTS} objects; remove one first")
        object_id = self._session.next_object()
        colour = "#{:02x}{:02x}{:02x}".format(*colour_of(object_id))
        await self._session.describe(_described(request, StudioObject(object_id, "", "", colour)))
        return {"object": object_id}

    async def _change_object(self, request: Request) -> Reply:
        await self._session.describe(_described(request, self._object(request)))
        return {}

    async def _remove_object(self, request: Request) -> Reply:
        self._session.forget(self._object(request).object_id)
        return {}

    async def _prompt(self, request: Request) -> Reply:
        one = self._object(request)
        box = fields.box(request)
        points = tuple((x, y, int(label)) for x, y, label in fields.points(request))
        if not points and box is None:
            raise InvalidArgument.of("points", "must have a click, or box must be given")
        number = fields.whole(request, "frame", 0, 2**32 - 1)
        corners = None if box is None else (box[0], box[1], box[2], box[3])
        prompt = LivePrompt(one.object_id, number, points, corners)
        taken = await self._session.prompt(prompt)
        return {
            "pending": not taken,
            "message": None if taken else "Kept. Its mask comes as soon as the model is there.",
        }

    async def _undo(self, _request: Request) -> Reply:
        return {"did": await self._session.undo()}

    async def _redo(self, _request: Request) -> Reply:
        return {"did": await self._session.redo()}

    async def _record(self, request: Request) -> Reply:
        if request.get("on") is True:
            await self._session.record()
        elif request.get("on") is False:
            await self._session.recording.stop()
        else:
            raise InvalidArgument.of("on", f"is {request.get('on')!r:.60}, must be true or false")
        return {}

    async def _give_camera(self, _request: Request) -> Reply:
        camera = self._session.camera
        if not isinstance(camera, PageCamera):
            raise FailedPrecondition(f"this session has the pictures of {camera.name}")
        camera.take(lambda: self._tab.event({"event": "more"}))
        self._gives_camera = True
        return {}

    @staticmethod
    async def _ping(_request: Request) -> Reply:
        return {}

    def _object(self, request: Request) -> StudioObject:
        object_id = fields.whole(request, "object", 1, MAX_OBJECT)
        if object_id not in self._session.objects:
            raise NotFound(f"there is no object {object_id}")
        return self._session.objects[object_id]


def _described(request: Request, now: StudioObject) -> StudioObject:
    return StudioObject(
        now.object_id,
        fields.text(request, "name", now.name),
        fields.text(request, "class", now.class_name),
        fields.colour(request, "colour", now.colour),
    )
