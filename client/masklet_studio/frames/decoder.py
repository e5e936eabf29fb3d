"""The gateway's side of a decoding process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from masklet.errors import DataLoss, FailedPrecondition
from masklet_studio.frames import messages
from masklet_studio.frames.facts import VideoFacts

COUNTING_SECONDS = 1800.0
"""The longest time in which a video's frames may be counted."""
FRAME_SECONDS = 120.0
"""The longest time in which a frame may be decoded."""


class Decoder:
    """Decodes one video in a process of its own, which is started when it is needed.

    Args:
        path: A video file, or a folder of pictures.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: asyncio.subprocess.Process | None = None
        self._facts: VideoFacts | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def facts(self) -> VideoFacts:
        """What is known of the video; waits until its frames are counted.

        Raises:
            DataLoss: The video cannot be decoded.
        """
        if self._facts is None:
            async with self._turn:
                if self._facts is None:
                    await self._start()
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
        async with self._turn:
            if self._process is None or self._process.returncode is not None:
                await self._start()
            async with self._watched(f"frame {index}"):
                assert self._process is not None
                assert self._process.stdin is not None
                self._process.stdin.write(messages.pack({"frame": index, "width": width}))
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
        await self._end()

    async def _start(self) -> None:
        if self._closed:
            raise FailedPrecondition("the video is closed")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "masklet_studio.frames.decoder_main", str(self._path.absolute()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with self._watched("the number of frames"):
            message, payload = await self._read(COUNTING_SECONDS)
        if message["kind"] == "failure":
            await self._end()
            raise DataLoss(message["error"])
        self._facts = _facts(message, payload)

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

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # The pipes are closed by this: otherwise they are closed when they are collected, with a warning.
        with contextlib.suppress(ConnectionError):
            await process.communicate()


async def _next(stdout: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    text, payload = messages.lengths(await stdout.readexactly(messages.HEAD.size))
    message: dict[str, Any] = json.loads(await stdout.readexactly(text))
    return message, await stdout.readexactly(payload)


def _facts(message: dict[str, Any], payload: bytes) -> VideoFacts:
    times = array("d")
    times.frombytes(payload)
    return VideoFacts(message["width"], message["height"], message["frame_rate"], tuple(times), message["damage"])
