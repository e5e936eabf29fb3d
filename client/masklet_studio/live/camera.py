"""Where the pictures of a live session come from: a camera or stream that a process reads, or a browser's camera."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from masklet._media.capture.source import LiveSource
from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument
from masklet_media.confinement import environment, python
from masklet_studio.frames import messages
from masklet_studio.frames.decoder import tell_missing
from masklet_studio.live.pictures import Picture, size_of_jpeg

OnState = Callable[[str, str], None]
"""Takes what the camera does ("connecting", "running", "waiting"), and a sentence for people; empty: none is needed."""
AGAIN_SECONDS = 2.0
"""How long to wait before a device is tried again that broke off."""
_PROXIES = ("http_proxy", "no_proxy")  # which FFmpeg obeys
_BROWSER = "this browser's camera"


class Camera(Protocol):
    """Gives the newest picture of a live source, whenever it is asked for."""

    name: str
    """What people call it; it has no password."""

    async def picture(self) -> Picture | None:
        """The newest picture, no picture twice; waits for one. None at the end of the source.

        Raises:
            DataLoss: The source cannot be opened, or broke off.
        """
        ...

    async def close(self) -> None:
        """Let go of the camera. May be called twice."""
        ...


def source_of(name: str) -> LiveSource:
    """The camera or stream that a name means.

    Raises:
        InvalidArgument: It is neither an address nor a device.
    """
    found = LiveSource.of(name)
    if found is None or found.kind == "pipe":
        raise InvalidArgument.of(
            "source",
            f"{name!r:.200} is neither the address of a stream (rtsp://, http://, https://, udp://, rtmp://, ...) nor "
            "a camera of this machine (/dev/video0)",
        )
    return found


class CameraProcess:
    """A camera or stream, read by a process that is started with the first picture.

    Attributes:
        name: The address or the device; without passwords.

    Args:
        source: The address or the device.
        on_state: Called with what happens to the camera.
    """

    def __init__(self, source: LiveSource, on_state: OnState) -> None:
        self.name = str(source)
        self._source = source
        self._on_state = on_state
        self._process: asyncio.subprocess.Process | None = None
        self._begun = 0

    async def picture(self) -> Picture | None:
        """The newest picture; as `Camera.picture` says."""
        while True:
            if self._process is None:
                await self._start()
            try:
                return await self._next_picture()
            except DataLoss as error:
                if not self._begun or self._source.kind != "device":
                    raise
                # A camera that was unplugged: the process that read it may not open what it is when it comes back.
                await self.close()
                self._on_state("waiting", f"{error.message}; connecting again")
                await asyncio.sleep(AGAIN_SECONDS)

    async def _next_picture(self) -> Picture | None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(messages.pack({}))
            while True:
                message, payload = await _next(self._process.stdout)
                if message["kind"] == "picture":
                    return self._picture(message, payload)
                if message["kind"] == "end":
                    if message["error"]:
                        raise DataLoss(message["error"])
                    return None
                self._hear(message)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            raise DataLoss(
                f"the process that reads {self.name} ended; the stream may be damaged, or need more memory"
            ) from None

    async def _start(self) -> None:
        self._on_state("connecting", f"Connecting to {self.name}…")
        self._process = await asyncio.create_subprocess_exec(
            *python("masklet_studio.live.camera_main"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**environment(), **{name: os.environ[name] for name in _PROXIES if name in os.environ}},
            cwd="/", start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        # Not as an argument, which every user of this machine can read: the address may have a password.
        self._process.stdin.write(messages.pack({"source": self._source.name}))

    def _hear(self, message: dict[str, Any]) -> None:
        if message["kind"] == "confined":
            tell_missing(tuple(message["missing"]))
        elif message["kind"] == "event":
            self._on_state("running" if message["event"] == "connected" else "waiting", message["message"])

    def _picture(self, message: dict[str, Any], jpeg: bytes) -> Picture:
        taken = message["taken"]
        self._begun = self._begun or taken
        pts = (taken - self._begun) / 1e9 if message["pts"] is None else message["pts"]
        return Picture(jpeg, message["width"], message["height"], taken, max(0.0, pts))

    async def close(self) -> None:
        """Let go of the camera; as `Camera.close` says."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        with contextlib.suppress(ConnectionError):
            await process.communicate()


class PageCamera:
    """A browser's camera: a tab sends a picture each time one is asked for.

    Attributes:
        name: What people call it.

    Args:
        on_state: Called with what happens to the camera.
    """

    def __init__(self, on_state: OnState) -> None:
        self.name = _BROWSER
        self._on_state = on_state
        self._ask: Callable[[], None] | None = None
        self._newest: Picture | None = None
        self._changed = asyncio.Event()
        self._begun = 0
        self._wanted = False
        self._closed = False

    @property
    def is_taken(self) -> bool:
        """Whether a tab gives its camera."""
        return self._ask is not None

    def take(self, ask: Callable[[], None]) -> None:
        """Begin to take pictures from a tab.

        Args:
            ask: Asks the tab for one picture.

        Raises:
            FailedPrecondition: Another tab gives its camera.
        """
        if self._ask is not None:
            raise FailedPrecondition("another tab gives the pictures of its camera; close that one first")
        self._ask = ask
        if self._wanted:
            ask()

    def leave(self) -> None:
        """Take note that the tab is gone that gave its camera."""
        self._ask = None
        self._on_state("waiting", "The tab that gave its camera is closed.")

    def push(self, jpeg: bytes) -> None:
        """Take a picture from the tab; it replaces one that was not used yet.

        Raises:
            InvalidArgument: It is no JPEG file, or too large.
        """
        width, height = size_of_jpeg(jpeg)
        now = time.time_ns()
        self._begun = self._begun or now
        self._wanted = False
        self._newest = Picture(jpeg, width, height, now, (now - self._begun) / 1e9)
        self._changed.set()

    async def picture(self) -> Picture | None:
        """The newest picture; as `Camera.picture` says."""
        self._wanted = True
        if self._ask is None:
            self._on_state("connecting", "Waiting for the browser's camera…")
        else:
            self._ask()
        while self._newest is None and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        picture, self._newest = self._newest, None
        return picture

    async def close(self) -> None:
        """Let go of the camera; as `Camera.close` says."""
        self._closed = True
        self._changed.set()


async def _next(stdout: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    text, payload = messages.lengths(await stdout.readexactly(messages.HEAD.size))
    message: dict[str, Any] = json.loads(await stdout.readexactly(text))
    return message, await stdout.readexactly(payload)
