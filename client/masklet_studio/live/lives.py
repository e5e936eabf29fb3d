"""The live sessions of a studio: which cameras may be opened, which are open, and which nobody looks at any more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masklet._media.capture.source import LiveSource
from masklet.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from masklet_studio.live.archive import Archive
from masklet_studio.live.camera import Camera, CameraProcess, OnState, PageCamera, source_of
from masklet_studio.live.live_session import LiveSession
from masklet_studio.server_link import ServerLink

MAX_SESSIONS = 4
"""Live sessions at once; each takes a decoding process, and a session of the server."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class LiveRules:
    """Which cameras the page may open.

    Attributes:
        named: Cameras and streams that the operator has named; the page may open these in any case.
        any_source: Whether the page may open any other camera and address, too.
        max_recording_bytes: The most that one recording may take.
    """

    named: tuple[str, ...] = ()
    any_source: bool = True
    max_recording_bytes: int = 10 << 30


class Lives:
    """The live sessions of a studio.

    Args:
        rules: Which cameras may be opened.
        server: The server, and the model; empty: the server's default.
        archive: Where recordings go.
    """

    def __init__(self, rules: LiveRules, server: tuple[ServerLink, str], archive: Archive) -> None:
        self._rules = rules
        self._named = [source_of(name) for name in rules.named]
        self._server = server
        self._archive = archive
        self._sessions: dict[str, LiveSession] = {}
        self._sources: dict[str, str] = {}  # what each session reads
        self._watching: asyncio.Task[None] | None = None

    def told(self) -> dict[str, Any]:
        """What the page can open, and what is open, as the page has it."""
        return {
            "sessions": [one.told() for one in self._sessions.values() if not one.is_over],
            "named": [str(source) for source in self._named],
            "any_source": self._rules.any_source,
        }

    def find(self, live_id: str) -> LiveSession:
        """A live session by its id.

        Raises:
            NotFound: There is none.
        """
        if live_id not in self._sessions:
            raise NotFound("this live session is over; begin another one")
        return self._sessions[live_id]

    async def start(self, request: Mapping[str, Any]) -> LiveSession:
        """Open a camera or stream; one that is open already is found.

        Args:
            request: As it came from the page: `source` is an address or a device, `named` is the number of one that the
                operator has named, `browser` is true for the browser's own camera.

        Raises:
            InvalidArgument: The request is wrong.
            FailedPrecondition: The camera may not be opened.
            ResourceExhausted: Too many are open.
        """
        key, make = self._camera(request)
        for live_id, known in self._sources.items():
            session = self._sessions.get(live_id)
            if key and known == key and session is not None and not session.is_over:
                return session
        await self._drop([one for one in self._sessions.values() if one.is_over and not one.tabs])
        if len(self._sessions) >= MAX_SESSIONS:
            raise ResourceExhausted(f"{MAX_SESSIONS} live videos are open, the most at once; close one first")
        live_id = secrets.token_hex(6)
        self._sessions[live_id] = LiveSession(live_id, make, self._server, self._archive)
        self._sources[live_id] = key
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return self._sessions[live_id]

    def _camera(self, request: Mapping[str, Any]) -> tuple[str, Any]:
        """What a request names, and how to make its camera."""
        if request.get("browser") is True:
            return "", PageCamera
        source = self._source(request)

        def make(on_state: OnState) -> Camera:
            return CameraProcess(source, on_state)

        return source.name, make

    def _source(self, request: Mapping[str, Any]) -> LiveSource:
        number = request.get("named")
        if number is not None:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self._named):
                raise InvalidArgument.of("named", f"is {number!r:.60}, must be below {len(self._named)}")
            return self._named[number]
        name = request.get("source")
        if not isinstance(name, str) or not name.strip() or len(name) > 2000:
            raise InvalidArgument.of("source", "must be the address of a stream, or a camera of this machine")
        source = source_of(name.strip())
        if not self._rules.any_source and source not in self._named:
            raise FailedPrecondition(
                f"this studio opens only the cameras that were named when it was started, and {source} is none of "
                "them; name it on the command line, or start the studio with --any-source"
            )
        return source

    async def stop(self, live_id: str) -> None:
        """End a live session.

        Raises:
            NotFound: There is none.
        """
        await self._drop([self.find(live_id)])

    async def _drop(self, sessions: Sequence[LiveSession]) -> None:
        for session in sessions:
            self._sessions.pop(session.live_id, None)
            self._sources.pop(session.live_id, None)
            await session.close()

    async def _watch(self) -> None:
        """End sessions that nobody looks at, so that their cameras are free."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._drop([one for one in self._sessions.values() if one.is_left])

    async def close(self) -> None:
        """End all sessions, and free their cameras."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._drop(list(self._sessions.values()))
