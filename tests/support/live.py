"""A page that looks at a live video of a studio, as a test hears it; and what is to be seen there."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from websockets.sync.client import connect

from masklet_studio.live.tab import HEAD
from masklet_studio.project.records import MaskRecord
from tests.support import e2e
from tests.support.studio import RunningStudio, records
from tests.support.tab import ANSWER_SECONDS, Event, Tab

# There and back, so that objects never jump where the pictures begin anew.
LOOP = [*e2e.frames(), *e2e.frames()[-2:0:-1]]


@dataclass(frozen=True)
class Shown:
    """A picture with its masks, as it came to the page."""

    number: int
    jpeg: bytes
    masks: dict[int, MaskRecord]

    @property
    def index(self) -> int:
        """Which frame of the clip it is."""
        return frame_of(self.jpeg)


def frame_of(jpeg: bytes) -> int:
    """The frame of `e2e.frames` that a picture is."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        return _nearest(np.asarray(picture.convert("RGB")))


def _nearest(pixels: npt.NDArray[np.uint8]) -> int:
    far = [np.abs(one.astype(np.int16) - pixels).mean() for one in e2e.frames()]
    return int(np.argmin(far))


class LivePage(Tab):
    """One tab. It says that it has drawn each picture as soon as the test has taken it, unless it is told not to."""

    def __init__(self, socket: Any) -> None:
        self.draws = True
        self.camera: Callable[[], bytes] | None = None  # gives a picture whenever the studio asks for one
        self.shown: list[Shown] = []
        super().__init__(socket)

    def take_event(self, event: Event) -> None:
        if event["event"] == "more" and self.camera is not None:
            self.send_bytes(self.camera())

    def take_bytes(self, message: bytes) -> None:
        if message[0] == 1:
            self._change(message)
            return
        _, _, _, number, _, length = HEAD.unpack_from(message)
        masks = {one.object_id: one for one in records(message[HEAD.size + length :])}
        self.shown.append(Shown(number, message[HEAD.size : HEAD.size + length], masks))
        if self.draws:
            self.send("drawn", number=number)

    def _change(self, message: bytes) -> None:
        for one in records(message):
            for shown in self.shown:
                if shown.number == one.frame:
                    shown.masks[one.object_id] = one

    def look(self, pictures: int = 1, seconds: float = ANSWER_SECONDS) -> list[Shown]:
        """Take in messages until so many more pictures have come; returns them."""
        end, before = time.monotonic() + seconds, len(self.shown)
        while len(self.shown) < before + pictures:
            self.hear(max(0.01, end - time.monotonic()))
        return self.shown[before:]

    def until(self, right: Callable[[Shown], bool], seconds: float = ANSWER_SECONDS) -> Shown:
        """Take in pictures until one is right."""
        end = time.monotonic() + seconds
        while True:
            found = self.look(1, max(0.01, end - time.monotonic()))[-1]
            if right(found):
                return found

    def click(self, blob: int, label: int = 1, **fields: Any) -> dict[str, Any]:
        """Add an object, unless there is one, and click a blob on the picture that was seen last."""
        object_id = blob + 1
        shown = self.look()[-1]
        x, y = e2e.center(blob, shown.index)
        return self.do("prompt", object=object_id, frame=shown.number, points=[[x, y, label]], box=None, **fields)


def begin(studio: RunningStudio, **source: Any) -> str:
    """Begin a live session; returns its id."""
    answer = studio.post("/api/live", **source)
    assert answer.status == 200, answer.body
    live_id: str = answer.json["id"]
    return live_id


@contextlib.contextmanager
def look_at(studio: RunningStudio, live_id: str) -> Iterator[LivePage]:
    """A tab that looks at a live session."""
    address = f"ws://{studio.host}/api/live/{live_id}/session"
    with connect(address, max_size=None, compression=None) as socket:
        yield LivePage(socket)
