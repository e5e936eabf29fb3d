"""The annotation session of a video on the server: opened when it is needed, and told what the project knows.

A session ends: the server stops, the network fails, nobody works for a while. The project is what counts, and a session
is brought to the project's state whenever something is asked of it. So undo, a restart of the server and a restart of
the studio need nothing of their own.

How prompts are told, where SAM 2 has rules of its own:

- A prompt on a frame that was not tracked makes a conditioning frame.
- Clicks on a frame that was tracked change the mask that was tracked there. Such a correction is lost when the frame is
  tracked again. Before tracking, the corrected mask therefore becomes the prompt of its frame.
- A new session has no memory of what was tracked. Tracking that goes on from a mask gives it that mask as a prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from masklet import AnnotateOptions, FrameResult, ObjectResult, Prompt, rle
from masklet._aio.annotation import AsyncAnnotation
from masklet.errors import InvalidArgument, MaskletError, NotFound
from masklet.rle import Rle
from masklet_studio.project.history import GivenPrompt, StudioState
from masklet_studio.server_link import ServerLink

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]
_Told = tuple[object, ...]
_WINDOW = 8  # results on their way: few, because those of a run that is broken off are tracked again
# A short break is bridged. After a longer one the page is told, and a new session is told everything again.
_RESUME_SECONDS = 2.0


@dataclass(frozen=True)
class Wanted:
    """What the project knows, as far as the server needs it.

    Attributes:
        size: Height and width of the video.
        state: Objects and prompts.
        mask: Gives the mask that is stored for an object on a frame, ``bool[H, W]``; None where there is none, or an
            empty one.
    """

    size: tuple[int, int]
    state: StudioState
    mask: Callable[[int, int], Mask | None]

    def of(self, object_id: int, segment: range) -> dict[int, GivenPrompt]:
        """The prompts of one object within some frames, by frame."""
        return {
            frame: prompt
            for (owner, frame), prompt in self.state.prompts.items()
            if owner == object_id and frame in segment
        }


@dataclass(frozen=True)
class Run:
    """A range of frames that is tracked in one direction.

    Attributes:
        object_ids: What is tracked.
        start: The first frame.
        stop: The last frame; below `start` where time runs backward.
        backward: Whether time runs backward.
    """

    object_ids: tuple[int, ...]
    start: int
    stop: int
    backward: bool


@dataclass
class _Session:
    """A session, and what was told to it.

    Attributes:
        annotation: The call.
        told: By object and frame, what the session was told.
        loose: Corrections that the session would lose if it tracked their frame again.
        tracked: By object, the frames that were tracked since their prompt was told.
        segments: By object, the frames of which the session knows something.
    """

    annotation: AsyncAnnotation
    told: dict[tuple[int, int], _Told] = field(default_factory=dict)
    loose: set[tuple[int, int]] = field(default_factory=set)
    tracked: dict[int, set[int]] = field(default_factory=dict)
    segments: dict[int, range] = field(default_factory=dict)

    def was_tracked(self, key: tuple[int, int]) -> bool:
        return key[1] in self.tracked.get(key[0], ())

    def knows(self, object_id: int) -> bool:
        return object_id in self.tracked

    def prepare(self, frame: int) -> None:
        # A session that has ended is seen by the next request, which opens another one.
        with contextlib.suppress(MaskletError):
            self.annotation.prepare(frame)

    async def enter(self, object_id: int, segment: range) -> None:
        """Have the session know of an object only what is true within some frames."""
        if self.segments.get(object_id, segment) != segment:
            await self.remove(object_id)
        self.segments[object_id] = segment

    async def prompt(self, prompt: Prompt, told: _Told) -> ObjectResult:
        key = (prompt.object_id, prompt.frame_index)
        result = await self.annotation.prompt(prompt)
        self.tracked.setdefault(prompt.object_id, set())
        self.told[key] = told
        return result.object

    async def clear(self, key: tuple[int, int]) -> None:
        await self.annotation.clear_prompts(*key)
        self.told.pop(key, None)
        self.loose.discard(key)
        self.tracked[key[0]].discard(key[1])

    async def remove(self, object_id: int) -> None:
        if self.knows(object_id):
            await self.annotation.remove_object(object_id)
        self.tracked.pop(object_id, None)
        self.told = {key: told for key, told in self.told.items() if key[0] != object_id}
        self.loose = {key for key in self.loose if key[0] != object_id}


class Engine:
    """One video's session on the server. Requests take turns; see `turn`.

    Args:
        server: The server.
        video: The file, or the folder of pictures.
        model: The model; empty: the server's default.
    """

    def __init__(self, server: ServerLink, video: Path, model: str = "") -> None:
        self._server = server
        self._video = video
        self._model = model
        self._session: _Session | None = None
        self._looked_at: int | None = None
        self._stale: set[int] = set()
        self._lock = asyncio.Lock()
        self._waiting = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a session, as far as is known."""
        return self._session is not None

    @property
    def is_loading(self) -> bool:
        """Whether the server is still being started, which takes seconds."""
        return not self._server.is_there

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a turn, so that a long one should make a pause."""
        return self._waiting > 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have the session for oneself inside the block."""
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()

    def forget(self, object_id: int) -> None:
        """Have the session learn an object anew before it is used again, because its past has changed."""
        self._stale.add(object_id)

    def look(self, frame: int) -> None:
        """Have the server prepare a frame that a person looks at; a session that opens later is told, too."""
        self._looked_at = frame
        if self._session is not None:
            self._session.prepare(frame)

    def stop(self) -> None:
        """End the run, if there is one, after the frame that is on its way."""
        if self._session is not None:
            self._session.annotation.stop()

    async def open(self) -> None:
        """Open the session, if there is none, and wait until the server has the first frame.

        Raises:
            MaskletError: The server is not there, or cannot take the video.
        """
        async with self.turn():
            await self._opened()

    async def close(self) -> None:
        """End the session; it is opened again when it is needed."""
        session, self._session = self._session, None
        if session is not None:
            await session.annotation.close()

    async def _opened(self) -> _Session:
        if self._session is None:
            options: AnnotateOptions = {"window": _WINDOW, "resume_seconds": _RESUME_SECONDS}
            if self._model:
                options["model"] = self._model
            client = await self._server.client()
            annotation = client.annotate(str(self._video), **options)
            self._session = _Session(annotation)
            try:
                await annotation.video()
            except BaseException:
                await self.close()
                raise
            if self._looked_at is not None:
                self._session.prepare(self._looked_at)
        return self._session

    async def _ask(self, work: Callable[[_Session], Awaitable[T]]) -> T:
        """Do something with the session. If the session has ended meanwhile, it is opened again, once."""
        was_open = self._session is not None
        try:
            return await work(await self._opened())
        except (InvalidArgument, NotFound):
            raise
        except MaskletError:
            await self.close()
            if not was_open:
                raise
        return await work(await self._opened())

    # Prompts

    async def show(self, prompt: GivenPrompt, wanted: Wanted) -> ObjectResult:
        """What the model makes of a prompt; to be called in a turn.

        Args:
            prompt: What a person says of an object on a frame.
            wanted: What the project knew before.

        Raises:
            InvalidArgument: The prompt does not fit the video.
            MaskletError: The server is not there, or cannot do it.
        """

        async def work(session: _Session) -> ObjectResult:
            await self._freshen(session)
            await session.enter(prompt.object_id, wanted.state.segment(prompt.object_id, prompt.frame))
            return await _show(session, prompt, wanted)

        return await self._ask(work)

    async def _freshen(self, session: _Session) -> None:
        for object_id in sorted(self._stale):
            await session.remove(object_id)
            self._stale.discard(object_id)

    # Tracking

    async def run(self, run: Run, wanted: Wanted) -> AsyncIterator[FrameResult]:
        """Track a range of frames; to be called in a turn.

        Raises:
            MaskletError: The server is not there, or cannot do it.
        """

        async def work(session: _Session) -> _Session:
            await self._freshen(session)
            for object_id in run.object_ids:
                segment = wanted.state.segment(object_id, run.start)
                await session.enter(object_id, segment)
                await _tell(session, object_id, wanted.of(object_id, segment), wanted)
                await _continue_from(session, object_id, run.start, wanted)
            return session

        try:
            session = await self._ask(work)
            frames = session.annotation.propagate(
                run.start, abs(run.stop - run.start), "backward" if run.backward else "forward", run.object_ids
            )
            async with contextlib.aclosing(cast("AsyncGenerator[FrameResult, None]", frames)) as results:
                async for frame in results:
                    for object_id in frame.objects:
                        session.tracked.setdefault(object_id, set()).add(frame.frame_index)
                    yield frame
        except (InvalidArgument, NotFound):
            raise
        except MaskletError:
            await self.close()
            raise


async def _show(session: _Session, prompt: GivenPrompt, wanted: Wanted) -> ObjectResult:
    key = (prompt.object_id, prompt.frame)
    told = session.told.get(key)
    if told is not None and session.was_tracked(key) and key not in session.loose:
        # SAM 2 would show a correction of such a frame, and then not keep it.
        await session.clear(key)
    elif prompt.corrects and told is None:
        if session.was_tracked(key):
            session.loose.add(key)
        elif (mask := wanted.mask(*key)) is not None:
            # The session has not tracked this frame: the mask that is corrected comes first.
            await session.prompt(Prompt(prompt.object_id, prompt.frame, mask=mask), ("base",))
    return await session.prompt(wire_prompt(prompt, wanted.size), _said(prompt))


async def _tell(session: _Session, object_id: int, prompts: dict[int, GivenPrompt], wanted: Wanted) -> None:
    """Tell the session an object's prompts in the form that tracking keeps."""
    for key in [key for key in session.told if key[0] == object_id]:
        if key[1] not in prompts and session.told[key][0] != "continued":
            await session.clear(key)
    for frame, prompt in prompts.items():
        key = (object_id, frame)
        told = session.told.get(key)
        corrected = wanted.mask(*key) if prompt.corrects else None
        said: _Told = _said(prompt) if corrected is None else ("corrected", *_said(prompt))
        if told == said or (told == _said(prompt) and key not in session.loose):
            continue
        if told is not None or session.was_tracked(key):
            await _clear(session, key)
        wire = wire_prompt(prompt, wanted.size) if corrected is None else Prompt(object_id, frame, mask=corrected)
        await session.prompt(wire, said)


async def _clear(session: _Session, key: tuple[int, int]) -> None:
    if session.knows(key[0]):
        await session.clear(key)


async def _continue_from(session: _Session, object_id: int, frame: int, wanted: Wanted) -> None:
    """Give the session the mask that tracking starts from, if it does not know it."""
    key = (object_id, frame)
    if key in session.told or session.was_tracked(key):
        return
    if (mask := wanted.mask(*key)) is not None:
        await session.prompt(Prompt(object_id, frame, mask=mask), ("continued",))


def _said(prompt: GivenPrompt) -> _Told:
    return ("said", prompt.points, prompt.box, prompt.mask)


def wire_prompt(prompt: GivenPrompt, size: tuple[int, int]) -> Prompt:
    """A prompt as the client sends it, checked.

    Args:
        prompt: What a person said.
        size: Height and width of the video.

    Raises:
        InvalidArgument: It is wrong, or does not fit the video.
    """
    points = prompt.points or None
    mask = None if prompt.mask is None else rle.decode(Rle(size=list(size), counts=prompt.mask))
    wire = Prompt(
        prompt.object_id,
        prompt.frame,
        point_coords=points and [[x, y] for x, y, _ in points],
        point_labels=points and [label for _, _, label in points],
        box=prompt.box,
        mask=mask,
    )
    wire.check_size(*size)
    return wire
