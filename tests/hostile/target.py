"""A server that is attacked, the client that attacks it, and an honest one beside it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import re
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

GIB = 1024**3
GROUP = Path("/sys/fs/cgroup/memory/masklet-attacks")
_ENTER_GROUP = f'if [ -w {GROUP}/cgroup.procs ]; then echo $$ > {GROUP}/cgroup.procs; fi; exec "$@"'
Outcome = Counter[str]


class Target:
    """A running ``masklet serve`` with two clients: mallory, who attacks, and bob, who wants an answer.

    Attributes:
        address: Where it listens.
        pid: The server's process id.
        peak_bytes: Most memory of server and decoders together so far.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        tokens = folder / "tokens"
        tokens.write_text("mallory m\nbob b\n")
        command = [sys.executable, "-c", "from masklet.cli import main; main()", "serve", "--device", "cpu"]
        command += ["--address", "127.0.0.1:0", "--token-file", str(tokens), *settings]
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", _ENTER_GROUP, "sh", *command], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        banner = re.search(r"listening on (\S+)", self._process.stdout.readline())
        assert banner is not None, (folder / "log").read_text()
        self.address = banner[1]
        self.pid = self._process.pid
        self.tokens = tokens
        self.log = folder / "log"
        self.peak_bytes = 0

    def lives(self) -> bool:
        return self._process.poll() is None

    def family(self) -> list[int]:
        """Process ids of the server, its fork server and its decoders."""
        found, parents = {self.pid}, dict[int, int]()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        for _ in range(3):
            found |= {pid for pid, parent in parents.items() if parent in found}
        return sorted(found)

    def memory(self) -> int:
        """Bytes that the family has, each page once."""
        total = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                line = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += int(line[1]) * 1024 if line else 0
        return total

    def ended_calls(self) -> Outcome:
        """How mallory's calls have ended, as the server's log tells."""
        return Counter(re.findall(r"rpc method=\S+ client=mallory code=(\w+)", self.log.read_text()))

    async def watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, await asyncio.to_thread(self.memory))
            await asyncio.sleep(0.1)

    def close(self) -> None:
        with self._process:
            self._process.kill()


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


class HonestClient:
    """Bob, in a process of his own, so that the attacker's work does not take his time; see `tests.hostile.honest`."""

    def __init__(self, target: Target) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.honest", target.address, "b"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def track(self) -> dict[str, Any]:
        """Track the series once."""
        return dict(json.loads(await asyncio.to_thread(self._ask)))

    def _ask(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("track\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class HealthWatch:
    """Asks for the server's health ten times a second, in a process of its own; see `tests.hostile.health`."""

    def __init__(self, target: Target) -> None:
        command = [sys.executable, "-m", "tests.hostile.health", target.address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ended(self) -> str:
        """Stop asking; returns how it went."""
        answers, _ = self._process.communicate(timeout=30)
        return answers.strip()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Comparison:
    """The honest client's times without an attack and beside it, by turns, because others use the machine, too."""

    def __init__(self) -> None:
        self._p99: dict[bool, list[float]] = {False: [], True: []}
        self._masks: set[str] = set()
        self.errors: Outcome = Counter()

    def add(self, answer: dict[str, Any], *, beside: bool) -> None:
        if "error" in answer:
            self.errors[answer["error"]] += 1
            return
        # The first frame waits for a decoder and for the prompt.
        self._p99[beside].append(float(np.percentile(answer["seconds"][1:], 99)))
        self._masks.add(answer["masks"])

    def __str__(self) -> str:
        alone, beside = (float(np.median(self._p99[which] or [math.nan])) * 1e3 for which in (False, True))
        masks = "masks equal" if len(self._masks) == 1 else f"{len(self._masks)} KINDS OF MASKS"
        failed = f"; THE HONEST CLIENT GOT {dict(self.errors)}" if self.errors else ""
        rounds = f"{len(self._p99[False])} and {len(self._p99[True])} rounds"
        ratio = f"{beside / alone:.2f} x, {rounds}"
        return f"p99 alone {alone:.0f} ms, beside {beside:.0f} ms ({ratio}), {masks}{failed}"
