"""What a client does while it is there: a clip, a live stream, or a person who clicks."""

from __future__ import annotations

import contextlib
import io
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal

import av
import cv2
import numpy as np
import numpy.typing as npt

import masklet
from tests.faults.history import History

Kind = Literal["clip", "live", "clicks"]
KINDS: tuple[Kind, ...] = ("clip", "live", "clicks")
HEIGHT, WIDTH = 240, 320
_RADIUS = 30


@dataclass(frozen=True)
class Work:
    """What clients do.

    Attributes:
        clip_frames: Frames of a clip.
        live_seconds: How long a live stream lasts.
        live_rate: Its frames a second.
        clicks: How many clicks a person makes.
        think_seconds: What a person thinks between an answer and the next click, on average.
        is_exact: Calls are deterministic, so that results can be held against a reference to the bit.
        model: The model's name; empty: the server's default.
    """

    clip_frames: int = 48
    live_seconds: float = 5.0
    live_rate: float = 10.0
    clicks: int = 5
    think_seconds: float = 1.0
    is_exact: bool = False
    model: str = ""

    @property
    def live_frames(self) -> int:
        """Frames of a live stream."""
        return max(1, round(self.live_seconds * self.live_rate))


@dataclass
class Visit:
    """A client, and what it saw.

    Attributes:
        number: Which client.
        kind: What it does.
        due: When it is to come, in seconds since the beginning.
        late: By how many seconds it came later.
        history: Its results.
        latencies: Seconds of each result: of a clip, from the call to the first result, and then from result to result;
            of a live stream, from capture to result; of clicks, from click to mask.
        seconds: From its coming to its end.
        skipped: Frames of a live stream that were skipped.
        error: The name of the error that it ended with.
    """

    number: int
    kind: Kind
    due: float
    late: float = 0.0
    history: History = field(default_factory=History)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    skipped: int = 0
    error: str = ""

    @property
    def frames(self) -> int:
        """Results that are frames."""
        return sum(one.revision == 0 for one in self.history.results)

    def run(self, address: str, work: Work, seed: int) -> None:
        """Connect, do it, and keep what was seen; errors are kept, too.

        Args:
            address: The server, or a gateway.
            work: What is done.
            seed: Of the times that people think.
        """
        begun = time.monotonic()
        acts: dict[Kind, Callable[[masklet.Client, Work], None]] = {
            "clip": self._clip,
            "live": self._live,
            "clicks": partial(self._clicks, random.Random(seed)),
        }
        try:
            with masklet.Client(address, connect_timeout=0) as client:
                acts[self.kind](client, work)
            self.history.end = "done"
        except masklet.MaskletError as error:
            self.error = type(error).__name__
            self.history.end = f"{self.error}: {error}"
        self.seconds = time.monotonic() - begun

    def _clip(self, client: masklet.Client, work: Work) -> None:
        self.history.given, self.history.frame_count = 1, work.clip_frames
        last = time.monotonic()
        tracking = client.track(
            clip(work.clip_frames), prompt(), on_prompt=self.history.add, deterministic=work.is_exact, model=work.model
        )
        for frame in tracking:
            now = time.monotonic()
            self.latencies.append(now - last)
            last = now
            self.history.add(frame)

    def _live(self, client: masklet.Client, work: Work) -> None:
        self.history.given, self.history.frame_count = 1, work.live_frames
        delivery: masklet.Delivery = "lossless" if work.is_exact else "latest"
        live = client.live(
            prompt(), delivery=delivery, on_prompt=self.history.add, deterministic=work.is_exact, model=work.model
        )
        with live:
            thread = threading.Thread(target=self._film, args=(live, work), daemon=True)
            thread.start()
            for frame in live:
                self.history.add(frame)
                self.skipped += len(frame.skipped_frame_indices)
                self.latencies.append(frame.latency_seconds or 0.0)
            thread.join()

    def _film(self, live: masklet.Live, work: Work) -> None:
        begun = time.monotonic()
        with contextlib.suppress(masklet.FailedPrecondition):  # the stream has ended, and its loop says why
            for index in range(work.live_frames):
                due = begun + index / work.live_rate
                time.sleep(max(0.0, due - time.monotonic()))
                captured = time.time_ns() - max(0, int((time.monotonic() - due) * 1e9))
                live.send(jpeg(index), capture_time_nanoseconds=captured)
            live.end()

    def _clicks(self, chance: random.Random, client: masklet.Client, work: Work) -> None:
        options: masklet.AnnotateOptions = {"deterministic": work.is_exact, "model": work.model}
        with client.annotate(clip(work.clip_frames), **options) as annotation:
            for number in range(work.clicks):
                index = number * 7 % work.clip_frames
                self.history.given += 1
                asked = time.monotonic()
                self.history.add(annotation.prompt(prompt(index)))
                self.latencies.append(time.monotonic() - asked)
                time.sleep(chance.expovariate(1 / work.think_seconds) if work.think_seconds else 0.0)


def center(index: int) -> tuple[float, float]:
    """Where the disc of the clip is."""
    return WIDTH / 2 + 60 * np.sin(index / 9), HEIGHT / 2 + 40 * np.cos(index / 7)


def prompt(index: int = 0) -> masklet.Prompt:
    """A click on the disc."""
    return masklet.Prompt(1, index, point_coords=[center(index)])


def picture(index: int) -> npt.NDArray[np.uint8]:
    """A bright disc over a ground with some texture, ``uint8[H, W, 3]``."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    ground = 90 + 40 * np.sin(x / 23) * np.cos(y / 31)
    cx, cy = center(index)
    gray = np.where(np.hypot(x - cx, y - cy) < _RADIUS, 235, ground).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


@cache
def jpeg(index: int) -> bytes:
    """A frame as a camera sends it."""
    return bytes(cv2.imencode(".jpg", picture(index))[1])


@cache
def clip(frames: int) -> bytes:
    """The frames as H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()
