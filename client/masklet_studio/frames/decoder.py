"""The gateway's side of a decoding process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from masklet._media.uploads import picture_files
from masklet.errors import DataLoss, FailedPrecondition
from masklet_media.confinement import LAYERS, describe, environment, python
from masklet_studio.frames import messages
from masklet_studio.frames.facts import VideoFacts

COUNTING_SECONDS = 1800.0
"""The longest time in which a video's frames may be counted."""
FRAME_SECONDS = 120.0
"""The longest time in which a frame may be decoded."""

T = TypeVar("T")

logger = logging.getLogger("masklet.studio")


class Decoder:
    """Decodes one video in a process of its own, which is started when it is needed.

    Args:
        path: A video file, or a folder of pictures.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: asyncio.subprocess.Process | None = None
        self._facts: VideoFacts | None = None
        self._pictures: list[Path] = []  # where each frame has a file of its own
        self._turn = asyncio.Lock()
        self._working: asyncio.Task[Any] | None = None
        self._closed = False

    async def facts(self) -> VideoFacts:
        """What is known of the video; waits until its frames are counted.

        Raises:
            DataLoss: The video cannot be decoded.
        """
        if self._facts is None:
            await self._alone(self._count)
        assert self._facts is not None
        return self._facts

    async def frame(self, index: int, width: int) -> bytes:
        """A frame as JPEG.

        Args:
            index: Its number.
            width: Columns of the picture; 0, or more than the video has: as many as the video has.

        Raises:
            DataLoss: It cannot be decoded.
        """
        return await self._alone(lambda: self._frame(index, width))

    async def _alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something after all that was begun before, and to its end even if who asked for it gives up meanwhile."""
        await self._turn.acquire()
        self._working = working = asyncio.ensure_future(work())
        working.add_done_callback(self._done)
        return await asyncio.shield(working)

    def _done(self, working: asyncio.Task[Any]) -> None:
        self._turn.release()
        if not working.cancelled():
            working.exception()  # told to who asked, unless nobody waits any more

    async def _count(self) -> None:
        if self._facts is None:
            await self._start()

    async def _frame(self, index: int, width: int) -> bytes:
        if self._process is None or self._process.returncode is not None:
            await self._start()
        data = await self._file(index)
        async with self._watched(f"frame {index}"):
            await self._say({"frame": index, "width": width}, data)
            message, payload = await self._read()
            if message["kind"] == "facts":
                self._facts = _facts(message, payload)
                message, payload = await self._read()
        if message["kind"] == "failure":
            raise DataLoss(message["error"])
        return payload

    async def rest(self) -> None:
        """End the process once it has nothing to do; the next frame that is asked for starts it again."""
        async with self._turn:
            await self._end()

    async def close(self) -> None:
        """End the process. May be called twice."""
        self._closed = True
        self._kill()
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)
        await self._end()

    async def _start(self) -> None:
        self._check_open()
        try:
            descriptor = await asyncio.to_thread(self._open)
        except OSError as error:
            raise DataLoss(f"the video cannot be read: {error.strerror or error}") from error
        try:
            self._process = await asyncio.create_subprocess_exec(
                *python("masklet_studio.frames.decoder_main", str(descriptor)),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment(), cwd="/",
                pass_fds=() if descriptor < 0 else (descriptor,),
                start_new_session=True,  # a Ctrl-C goes to the studio alone, which ends the process
            )  # fmt: skip
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if self._closed:  # meanwhile
            self._kill()
        async with self._watched("its start"):
            message, _ = await self._read()
        tell_missing(tuple(message["missing"]))
        first = await self._file(0)
        async with self._watched("the number of frames"):
            if self._pictures:
                await self._say({"pictures": len(self._pictures)}, first)
            message, payload = await self._read(COUNTING_SECONDS)
        if message["kind"] == "failure":
            await self._end()
            raise DataLoss(message["error"])
        self._facts = _facts(message, payload)

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("the video is closed")

    def _open(self) -> int:
        """The video's descriptor; -1 for a folder of pictures, which is listed."""
        if not self._path.is_dir():
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._pictures = picture_files(self._path)
        return -1

    async def _file(self, index: int) -> bytes:
        """The frame's own file; nothing where all frames are in one."""
        if not self._pictures:
            return b""
        path = self._pictures[index]
        try:
            if path.stat().st_size > messages.MAX_PAYLOAD:
                raise DataLoss(f"{path.name} is larger than {messages.MAX_PAYLOAD} bytes")
            return await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise DataLoss(f"{path.name} cannot be read: {error.strerror or error}") from error

    async def _say(self, message: dict[str, Any], payload: bytes = b"") -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(messages.pack(message, payload))
        await self._process.stdin.drain()

    @contextlib.asynccontextmanager
    async def _watched(self, what: str) -> AsyncIterator[None]:
        """End the process if it is not done in time, or its answer is not read to its end."""
        try:
            yield
        except asyncio.TimeoutError:
            await self._end()
            raise DataLoss(f"the decoding process took too long for {what}, and was ended") from None
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            await self._end()
            raise DataLoss(
                f"the decoding process ended while it worked on {what}; the file may be damaged, or need more memory"
            ) from None
        except BaseException:
            await self._end()
            raise

    async def _read(self, seconds: float = FRAME_SECONDS) -> tuple[dict[str, Any], bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        return await asyncio.wait_for(_next(self._process.stdout), seconds)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _end(self) -> None:
        self._kill()
        process, self._process = self._process, None
        if process is None:
            return
        # The pipes are closed by this: otherwise they are closed when they are collected, with a warning.
        with contextlib.suppress(ConnectionError):
            await process.communicate()


@functools.cache  # once is enough
def tell_missing(layers: tuple[str, ...]) -> None:
    """Log the layers of the sandbox that this machine lacks."""
    for name in layers:
        logger.warning("the sandbox of the decoding processes lacks %s", describe(name) if name in LAYERS else name)


async def _next(stdout: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    text, payload = messages.lengths(await stdout.readexactly(messages.HEAD.size))
    message: dict[str, Any] = json.loads(await stdout.readexactly(text))
    return message, await stdout.readexactly(payload)


def _facts(message: dict[str, Any], payload: bytes) -> VideoFacts:
    times = array("d")
    times.frombytes(payload)
    return VideoFacts(message["width"], message["height"], message["frame_rate"], tuple(times), message["damage"])
