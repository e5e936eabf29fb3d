"""Tracking for tools that ask for one picture at a time, and for each object by itself.

The objects that were shown on one picture share one live session. It ends when nobody has asked for a while, or when
the server ends it; the next request begins another one, from the last mask of each object.
"""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from masklet import Client, Live
from masklet._protocol.results import FrameResult, ObjectResult
from masklet._protocol.segmentation import ImageId
from masklet.errors import Cancelled, DeadlineExceeded, FailedPrecondition, Unavailable
from masklet.prompts import Prompt

if TYPE_CHECKING:
    import PIL.Image

# What is raised where the server, or the way to it, has ended a session that was all right before.
_ENDED = (Cancelled, DeadlineExceeded, FailedPrecondition, Unavailable)
_KEEP_ALIVE_SECONDS = 15.0  # a server ends a silent stream after a minute, unless its operator has set another time


class Picture:
    """A picture that a tool has handed over.

    Args:
        image: The picture.

    Attributes:
        image: The picture.
        session: Tracks the objects that were shown on it; None while there are none.
        segmentation: The server's name for the picture, if it was segmented.
    """

    def __init__(self, image: PIL.Image.Image) -> None:
        self.image = image.convert("RGB")
        self.session: SharedSession | None = None
        self.segmentation: ImageId | None = None

    @property
    def width(self) -> int:
        """The number of columns of pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """The number of rows of pixels."""
        return self.image.height


@dataclass(frozen=True)
class _Seen:
    """Where an object was seen last.

    Attributes:
        order: The number of the picture, in the order in which pictures were tracked.
        picture: The picture.
        given: The arguments of the prompt that shows the object there.
    """

    order: int
    picture: Picture
    given: dict[str, Any]


class SharedSession:
    """The objects that were shown on one picture.

    Any thread may ask; requests are answered one after the other.

    Args:
        client: The connection to the server.
        model: A model's name; empty: the server's default.
        picture: On which the objects are shown.
    """

    def __init__(self, client: Client, model: str, picture: Picture) -> None:
        self._client, self._model, self._start = client, model, picture
        self._lock = threading.Lock()
        self._seen: dict[int, _Seen] = {}
        self._live: Live | None = None
        self._order = 0
        self._last: tuple[Picture, FrameResult] | None = None
        self._asked = time.monotonic()

    @property
    def has_begun(self) -> bool:
        """Whether a picture was tracked, so that no object can be added any more."""
        return self._order > 0

    def add(self, given: dict[str, Any]) -> int:
        """Show an object on the first picture.

        Args:
            given: Arguments of `masklet.Prompt` that show it, such as its mask.

        Returns:
            The object's number.

        Raises:
            InvalidArgument: They are wrong.
        """
        with self._lock:
            object_id = len(self._seen) + 1
            Prompt(object_id=object_id, **given)
            self._seen[object_id] = _Seen(0, self._start, given)
            return object_id

    def result(self, picture: Picture, object_id: int) -> ObjectResult | None:
        """One object on one picture. The first request for a picture tracks all objects on it.

        Args:
            picture: The next picture, or the last one again.
            object_id: What `add` returned.

        Raises:
            MaskletError: The server cannot be reached, or reports an error.
        """
        with self._lock:
            self._asked = time.monotonic()
            if self._last is None or self._last[0] is not picture:
                self._last = (picture, self._track(picture))
            return self._last[1].objects.get(object_id)

    def _track(self, picture: Picture) -> FrameResult:
        if self._live is not None:
            try:
                return self._step(self._live, picture)
            except _ENDED:
                self._end()
        self._live = self._begin()
        return self._step(self._live, picture)

    def _step(self, live: Live, picture: Picture) -> FrameResult:
        frame = _next(live, picture)
        self._order += 1
        for object_id, found in frame.objects.items():
            if found.visible:
                self._seen[object_id] = _Seen(self._order, picture, {"mask": found.mask})
        return frame

    def _begin(self) -> Live:
        """A session in which every object is known from where it was seen last."""
        orders = sorted({seen.order for seen in self._seen.values()})
        pictures = {seen.order: seen.picture for seen in self._seen.values()}
        prompts = [
            Prompt(object_id=object_id, frame_index=orders.index(seen.order), **seen.given)
            for object_id, seen in self._seen.items()
        ]
        live = self._client.live(prompts, delivery="lossless", model=self._model)
        try:
            for order in orders:
                _next(live, pictures[order])
        except BaseException:
            live.close()
            raise
        return live

    def _end(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None

    def end(self) -> None:
        """End the session on the server; the next request begins another one."""
        with self._lock:
            self._end()

    def look_after(self, idle_seconds: float) -> None:
        """Tell the server that the session goes on, or end it if nobody has asked for `idle_seconds`."""
        if not self._lock.acquire(blocking=False):  # somebody is asking right now
            return
        try:
            if self._live is None:
                return
            if time.monotonic() - self._asked > idle_seconds:
                self._end()
            else:
                self._live.keep_alive()
        finally:
            self._lock.release()


class SharedSessions:
    """All sessions of a function, and the thread that keeps them alive.

    A session ends when nothing refers to it any more.

    Args:
        client: The connection to the server.
        model: A model's name; empty: the server's default.
        idle_seconds: After so long without a request a session ends on the server.
    """

    def __init__(self, client: Client, model: str, *, idle_seconds: float) -> None:
        self._client, self._model, self._idle_seconds = client, model, idle_seconds
        self._sessions: weakref.WeakSet[SharedSession] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, picture: Picture) -> SharedSession:
        """The session for objects that are shown on a picture; a new one if the picture has none that can take more."""
        if picture.session is not None and not picture.session.has_begun:
            return picture.session
        session = SharedSession(self._client, self._model, picture)
        self._sessions.add(session)
        if self._thread is None:
            self._thread = threading.Thread(
                target=_look_after,
                args=(self._sessions, self._closed, self._idle_seconds),
                name="masklet-sessions",
                daemon=True,
            )
            self._thread.start()
        return session

    def close(self) -> None:
        """End all sessions and the thread."""
        self._closed.set()
        for session in list(self._sessions):
            session.end()


def _look_after(sessions: weakref.WeakSet[SharedSession], closed: threading.Event, idle_seconds: float) -> None:
    while not closed.wait(min(_KEEP_ALIVE_SECONDS, idle_seconds / 4)):
        for session in list(sessions):
            session.look_after(idle_seconds)


def _next(live: Live, picture: Picture) -> FrameResult:
    live.send(picture.image)
    frame = next(live, None)
    if frame is None:
        raise Unavailable("the session has ended")
    return frame
