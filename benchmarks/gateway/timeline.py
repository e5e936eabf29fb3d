"""When each thing happened between the death of a worker and the next new mask of a stream."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import grpc

from masklet.v1 import tracking_pb2
from masklet_cluster.placement.placement import Lease, LeaseRequest, Placement, WorkerReport
from masklet_server.rpc.auth import current_client

What = Literal["broken", "lost", "asked", "leased", "connected", "resumed", "video", "mask", "result"]

STEPS: dict[str, tuple[What | Literal["killed"], What]] = {
    "the gateway notices": ("killed", "broken"),
    "the client notices": ("broken", "lost"),
    "it waits, and asks again": ("lost", "asked"),
    "a worker is chosen": ("asked", "leased"),
    "connection to the worker": ("leased", "connected"),
    "the session is found there": ("connected", "resumed"),
    "the video is sent again": ("resumed", "video"),
    "frames are tracked again, and a new one": ("video", "mask"),
    "the mask goes to the client": ("mask", "result"),
}
"""The steps of a failover: from what to what each of them lasts, in order."""


@dataclass(frozen=True)
class Mark:
    """Something has happened to a stream.

    Attributes:
        at: When, on `time.monotonic`.
        what: What it was.
        frame: The frame of a mask; the last frame that a resumed session has tracked before; else -1.
    """

    at: float
    what: What
    frame: int = -1


@dataclass
class Failover:
    """One stream that went on after its worker was killed.

    Attributes:
        steps: Seconds of each of `STEPS`.
        tries: How often a worker was asked for.
        repeated: How many frames were tracked again, whose masks the client had.
    """

    steps: dict[str, float]
    tries: int
    repeated: int

    @property
    def seconds(self) -> float:
        """From the kill to the next new mask."""
        return sum(self.steps.values())


@dataclass
class Timeline:
    """What happened, by the stream; threads may share it."""

    marks: dict[str, list[Mark]] = field(default_factory=lambda: defaultdict(list))
    kills: list[float] = field(default_factory=list)

    def add(self, stream: str, what: What, frame: int = -1) -> None:
        """It happens now."""
        self.marks[stream].append(Mark(time.monotonic(), what, frame))

    def all_go_on(self) -> bool:
        """Whether each stream that broke has had a new result since, or has ended."""
        return all(
            next((one.what for one in reversed(marks) if one.what in ("lost", "result")), "") != "lost"
            for marks in list(self.marks.values())
        )

    def failovers(self) -> list[Failover]:
        """Every stream that its client saw break, and go on."""
        return [one for marks in self.marks.values() for one in self._of(marks)]

    def _of(self, marks: Sequence[Mark]) -> Iterator[Failover]:
        for place, mark in enumerate(marks):
            killed = max((one for one in self.kills if one <= mark.at), default=None)
            if mark.what != "lost" or killed is None:
                continue
            found = _between(marks[place:], ("lost", "asked", "leased", "connected", "resumed"))
            broken = next((one for one in reversed(marks[:place]) if one.what == "broken" and one.at >= killed), None)
            if found is None or broken is None:
                continue
            after = marks[marks.index(found["resumed"]) :]
            after = after[: next((at for at, one in enumerate(after) if one.what == "lost"), None)]
            result = next((one for one in after if one.what == "result"), None)
            mask = next((one for one in after if one.what == "mask"), None)
            if result is None or mask is None:
                continue  # it was lost once more
            video = [one for one in after if one.what == "video" and one.at <= mask.at]
            found |= {"killed": Mark(killed, "broken"), "broken": broken, "mask": mask, "result": result}
            found["video"] = video[-1] if video else found["resumed"]
            steps = {name: max(0.0, found[end].at - found[start].at) for name, (start, end) in STEPS.items()}
            tries = sum(mark.at <= one.at <= mask.at and one.what == "asked" for one in marks)
            yield Failover(steps, tries, max(0, mask.frame - found["resumed"].frame - 1))


def _between(marks: Sequence[Mark], whats: Sequence[What]) -> dict[str, Mark] | None:
    """The marks of the try that succeeded; None: there was none."""
    resumed = next((place for place, one in enumerate(marks) if one.what == "resumed"), None)
    if resumed is None:
        return None
    found: dict[str, Mark] = {"lost": marks[0]}
    for one in marks[: resumed + 1]:
        if one.what in whats and one.what != "lost":
            found[one.what] = one
    return found if len(found) == len(whats) else None


class WatchedPlacement:
    """Another placement, whose leases are watched. Streams are known by the names of their tokens.

    Args:
        inner: Places streams.
        timeline: What happens goes there.
    """

    def __init__(self, inner: Placement, timeline: Timeline) -> None:
        self._inner = inner
        self._timeline = timeline

    async def start(self) -> None:
        """Begin to look at the workers."""
        await self._inner.start()

    async def close(self) -> None:
        """Close all connections to workers."""
        await self._inner.close()

    def workers(self) -> Sequence[WorkerReport]:
        """What is known of each worker now."""
        return self._inner.workers()

    @contextlib.asynccontextmanager
    async def lease(self, request: LeaseRequest) -> AsyncIterator[Lease]:
        """A place for one stream, until the block ends."""
        stream, add = current_client.get(), self._timeline.add
        add(stream, "asked")
        async with self._inner.lease(request) as lease:
            add(stream, "leased")
            watched: Any = _Channel(lease.channel, lambda what, frame=-1: add(stream, what, frame))
            yield replace(lease, channel=watched)


class _Channel:
    """A channel whose streams are watched."""

    def __init__(self, inner: grpc.aio.Channel, add: Callable[..., None]) -> None:
        self._inner = inner
        self._add = add

    def stream_stream(self, method: str) -> Callable[..., Any]:
        make: Any = self._inner.stream_stream(method)
        return lambda **options: _Call(make(**options), self._add)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Call:
    """A call whose messages are watched in both directions."""

    def __init__(self, inner: Any, add: Callable[..., None]) -> None:
        self._inner = inner
        self._add = add
        self._is_connected = False

    @property
    def _cython_call(self) -> _Call:
        return self

    async def wait_for_connection(self) -> None:
        await self._inner.wait_for_connection()
        if not self._is_connected:
            self._is_connected = True
            self._add("connected")

    async def send_serialized_message(self, message: bytes) -> None:
        await self._inner._cython_call.send_serialized_message(message)  # noqa: SLF001 - as the gateway does it
        if tracking_pb2.TrackRequest.FromString(message).HasField("video_chunk"):
            self._add("video")

    async def read(self) -> Any:
        try:
            message = await self._inner.read()
        except grpc.aio.AioRpcError:
            self._add("broken")
            raise
        if message is grpc.aio.EOF:
            if await self._inner.code() is not grpc.StatusCode.OK:
                self._add("broken")
            return message
        response = tracking_pb2.TrackResponse.FromString(message)
        if response.HasField("resumed"):
            told = response.resumed
            is_restored = told.how == tracking_pb2.RESUMPTION_RESTORED and told.HasField("rewound_to_frame")
            self._add("resumed", told.rewound_to_frame if is_restored else -1)
        elif response.HasField("frame_result"):
            self._add("mask", response.frame_result.frame_index)
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
