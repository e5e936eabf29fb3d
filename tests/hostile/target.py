"""A server that is attacked, the client that attacks it, and an honest one beside it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from masklet.v1 import common_pb2, image_pb2
from tests.support.processes import descendants

GIB = 1024**3
# The memory of the smallest machine that the default settings are for.
MOST_BYTES = 4 * GIB
# The kernel bounds a server that is started in a control group.
_ENTER_GROUP = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
Outcome = Counter[str]


class Target:
    """A running ``masklet serve`` with two clients: mallory, who attacks, and bob, who wants an answer.

    Attributes:
        address: Where it listens.
        pid: The server's process id.
        tokens: The file with both clients' tokens.
        log: The file with the server's log.
        peak_bytes: Most memory of server and decoders together so far.

    Args:
        folder: For the server's files.
        settings: Of the server, as on its command line.
        group: Folder of a control group in which the server starts; None: `watch` alone bounds its memory.
    """

    def __init__(self, folder: Path, *settings: str, group: Path | None = None) -> None:
        tokens = folder / "tokens"
        tokens.write_text("mallory m\nbob b\n")
        command = [sys.executable, "-c", "from masklet.cli import main; main()", "serve", "--device", "cpu"]
        command += ["--address", "127.0.0.1:0", "--token-file", str(tokens), *settings]
        with (folder / "log").open("w") as log:
            if group is not None:
                command = ["sh", "-c", _ENTER_GROUP, str(group), *command]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        banner = re.search(r"listening on (\S+)", self._process.stdout.readline())
        assert banner is not None, (folder / "log").read_text()
        self.address = banner[1]
        self.pid = self._process.pid
        self.tokens = tokens
        self.log = folder / "log"
        self.peak_bytes = 0

    def lives(self) -> bool:
        """Whether the server runs."""
        return self._process.poll() is None

    def family(self) -> list[int]:
        """Process ids of the server, which comes first, of its fork server and of its decoders."""
        return [self.pid, *descendants(self.pid)]

    def memory(self) -> int:
        """Bytes that the family has. Where that is above the peak so far, each page counts once."""
        family = self.family()
        total = sum(_bytes(f"/proc/{pid}/status", "VmRSS") for pid in family)
        if total <= self.peak_bytes:  # the kernel needs milliseconds to find out which pages are shared
            return total
        return sum(_bytes(f"/proc/{pid}/smaps_rollup", "Pss") for pid in family)

    def ended_calls(self) -> Outcome:
        """How mallory's calls have ended, as the server's log tells."""
        return Counter(re.findall(r"rpc method=\S+ client=mallory code=(\w+)", self.log.read_text()))

    async def watch(self) -> None:
        """Measure the memory again and again. A server that has more than `MOST_BYTES` is ended, as Linux would."""
        while True:
            self.peak_bytes = max(self.peak_bytes, await asyncio.to_thread(self.memory))
            if self.peak_bytes > MOST_BYTES:
                self._process.kill()
                return
            await asyncio.sleep(0.1)

    def close(self) -> None:
        """End the server, and what it started: a process that is stopped does not end with the server."""
        for pid in reversed(self.family()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.communicate()


def _bytes(path: str, name: str) -> int:
    """A number of kilobytes in one of Linux's files about a process; 0 if the process has ended."""
    try:
        line = re.search(rf"^{name}:\s+(\d+)", Path(path).read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(line[1]) * 1024 if line else 0


def jpeg(side: int = 128, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(file, "JPEG", **options)
    return file.getvalue()


CLICK = [common_pb2.Point(x=40, y=40, label=common_pb2.POINT_LABEL_FOREGROUND)]


def asking(picture: bytes) -> image_pb2.SegmentImageRequest:
    return image_pb2.SegmentImageRequest(
        picture=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=picture),
        prompts=[image_pb2.SegmentPrompt(points=CLICK)],
    )


def as_client(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@contextlib.asynccontextmanager
async def connect(target: Target, number: int = 0) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1), ("masklet.number", number)]
    async with grpc.aio.insecure_channel(target.address, options=options) as channel:
        yield channel


async def ended(call: Any, seconds: float = 90) -> str:
    """How a call ends, by its status and the setting that it names."""
    try:
        code = await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(call.code())), seconds)
    except asyncio.TimeoutError:
        call.cancel()
        return "still running"
    details = await call.details()
    names = re.findall(r"\b(?:max|min|picture|decoder|idle|receive|first)_\w+|token\b|scans\b", details or "")
    return f"{code.name} ({names[-1]})" if names else str(code.name)


async def read_all(call: Any) -> None:
    """Read what a stream sends, to its end. Its status comes after all that it has sent."""
    while await call.read() is not grpc.aio.EOF:
        pass
