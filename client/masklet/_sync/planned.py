"""Which frames of a video are tracked, in which direction, and which corrections follow: ranges and their results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from masklet._media.uploads import picture_files
from masklet._protocol.options import AnnotateOptions, TrackOptions
from masklet._protocol.results import FrameResult, VideoInfo
from masklet.errors import InvalidArgument
from masklet.prompts import Prompt
from masklet.recording import Recording

if TYPE_CHECKING:
    from masklet._sync.annotation import Annotation
    from masklet._sync.client import Client

KNOWN_OPTIONS = frozenset(AnnotateOptions.__annotations__)
DIRECTIONS = ("forward", "backward", "both")
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)(s?)", re.ASCII)
_PICTURES_PER_SECOND = 30  # where nothing is known of times
_CLOSE = 0.0005  # seconds: times on the command line are rounded


@dataclass(frozen=True)
class Mark:
    """A place in a video: a frame, or a time.

    Attributes:
        word: What the user wrote, such as "120", "4.5s" or "1:04.5".
        field: What it is the value of, "start" or "end", for errors.

    Raises:
        InvalidArgument: The word is neither.
    """

    word: str
    field: str

    def __post_init__(self) -> None:
        if self.seconds is None and not self.word.isdecimal():
            raise InvalidArgument.of(
                self.field, f"{self.word!r} is neither a frame, such as 120, nor a time, such as 4.5s or 1:04.5"
            )

    @property
    def seconds(self) -> float | None:
        """The time; None where it is a frame."""
        match = _TIME.fullmatch(self.word)
        if match is None or not (match[2] or match[4]):
            return None
        return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3])


@dataclass(frozen=True)
class Plan:
    """What to track.

    Attributes:
        start: The first frame to give; None: the video's first one.
        end: The last frame to give; None: the video's last one.
        direction: From the prompts on: "forward", "backward" or "both".
        corrections: Prompts for frames that are tracked already. Their objects are tracked again from there.
    """

    start: Mark | None = None
    end: Mark | None = None
    direction: str = "forward"
    corrections: list[Prompt] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise InvalidArgument.of("direction", f"is {self.direction}, must be one of {', '.join(DIRECTIONS)}")

    @property
    def is_plain(self) -> bool:
        """Whether it is all frames, forward, without corrections: what `Client.track` does."""
        return self.start is None and self.end is None and self.direction == "forward" and not self.corrections


class PlannedTracking:
    """Tracks as a plan says, and gives the results in order of the frames; in place of a `Tracking`.

    The results of a range forward come at once. Otherwise they come when all is tracked, because the first frame is
    tracked last. Corrections are made by the command line.

    Args:
        client: The client of the server that tracks.
        source: The video's path.
        prompts: What to track.
        plan: Where.
        options: As for `Client.annotate`.

    Raises:
        InvalidArgument: A mark lies outside the video, or a prompt outside the range.
        OSError: The video cannot be read.
    """

    def __init__(
        self, client: Client, source: str, prompts: list[Prompt], plan: Plan, options: AnnotateOptions
    ) -> None:
        self.source = source
        self.undecoded_pts_seconds: tuple[float, ...] = ()
        times = frame_times(Path(source))
        self._range = limits(plan, times)
        self._prompts = [on_frame(prompt, times) for prompt in prompts]
        self._direction = plan.direction
        for prompt in self._prompts:
            self._check(prompt)
        self._annotation: Annotation = client.annotate(source, **options)

    def __enter__(self) -> PlannedTracking:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._annotation.close()

    @property
    def video(self) -> VideoInfo:
        """What is known of the video."""
        return self._annotation.video

    def cancel(self) -> None:
        """End the call, from any thread."""
        self._annotation.cancel()

    def __iter__(self) -> Iterator[FrameResult]:
        for prompt in self._prompts:
            self._annotation.prompt(prompt)
        frames = [prompt.frame_index for prompt in self._prompts]
        if self._direction == "forward":
            yield from self._forward(min(frames))
        else:
            yield from Recording(self._propagated(frames))

    def _propagated(self, frames: list[int]) -> Iterator[FrameResult]:
        """The results from prompted frames on, in the plan's direction."""
        if self._direction != "backward":
            yield from self._forward(min(frames))
        if self._direction != "forward":
            begin = max(frames) if self._direction == "backward" else min(frames)
            if begin > 0:
                backward = self._annotation.propagate(begin, begin - self._range[0], "backward")
                yield from (frame for frame in backward if self._holds(frame))
            elif self._direction == "backward":  # nothing is before the first frame: its own masks are the results
                yield from (frame for frame in self._annotation.propagate(0, 0, "forward") if self._holds(frame))

    def _forward(self, begin: int) -> Iterator[FrameResult]:
        end = self._range[1]
        forward = self._annotation.propagate(begin, None if end is None else end - begin, "forward")
        yield from (frame for frame in forward if self._holds(frame))

    def _holds(self, frame: FrameResult) -> bool:
        start, end = self._range
        return frame.frame_index >= start and (end is None or frame.frame_index <= end)

    def _check(self, prompt: Prompt) -> None:
        start, end = self._range
        index = prompt.frame_index
        if end is not None and index > end and self._direction != "backward":
            raise InvalidArgument.of("end", f"frame {end} is before the prompt on frame {index}; give a later one")
        if index < start and self._direction != "forward":
            raise InvalidArgument.of(
                "start", f"frame {start} is after the prompt on frame {index}; give an earlier one"
            )


def annotate_options(options: TrackOptions) -> AnnotateOptions:
    """The options of a track call that `Client.annotate` knows, too."""
    return cast("AnnotateOptions", {key: value for key, value in options.items() if key in KNOWN_OPTIONS})


def frame_times(path: Path) -> npt.NDArray[np.float64]:
    """The times of a video's frames in seconds, in order; nothing is decoded.

    Args:
        path: A video file, or a folder of pictures.

    Raises:
        InvalidArgument: It is no video.
        OSError: It cannot be read.
    """
    import av

    if path.is_dir():
        return np.arange(len(picture_files(path))) / _PICTURES_PER_SECOND
    try:
        with av.open(str(path), "r", options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise InvalidArgument.of("video", f"{path} holds no video")
            times = [float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None and p.time_base]
    except av.FFmpegError as error:
        raise InvalidArgument.of("video", f"{path} cannot be read as a video: {error.strerror}") from error
    return np.array(sorted(times))


def limits(plan: Plan, times: npt.NDArray[np.float64]) -> tuple[int, int | None]:
    """The first and the last frame to give; None: the video's last one.

    Raises:
        InvalidArgument: A mark lies outside the video, or the end is before the start.
    """
    start = 0 if plan.start is None else _index(plan.start, times, first=True)
    end = None if plan.end is None else _index(plan.end, times, first=False)
    if end is not None and end < start:
        raise InvalidArgument.of("end", f"frame {end} is before frame {start}, where the range starts")
    return start, end


def _index(mark: Mark, times: npt.NDArray[np.float64], *, first: bool) -> int:
    """The frame of a mark: of a time, the first one not before it, or the last one not after it."""
    seconds = mark.seconds
    if seconds is None:
        index = int(mark.word)
    elif first:
        index = int(np.searchsorted(times, seconds - _CLOSE))
    else:
        index = int(np.searchsorted(times, seconds + _CLOSE, side="right")) - 1
    if not 0 <= index < len(times):
        last = f"frame {len(times) - 1}, {times[-1]:.3f}s" if len(times) else "none"
        raise InvalidArgument.of(mark.field, f"{mark.word} is outside the video, whose last frame is {last}")
    return index


def on_frame(prompt: Prompt, times: npt.NDArray[np.float64]) -> Prompt:
    """The prompt by its frame's number; of two frames that are equally near to its time, the earlier one."""
    if prompt.pts_seconds is None:
        return prompt
    index = int(np.abs(times - prompt.pts_seconds).argmin())
    return Prompt(
        object_id=prompt.object_id,
        frame_index=index,
        point_coords=prompt.point_coords,
        point_labels=prompt.point_labels,
        box=prompt.box,
        mask=prompt.mask,
        keep_old_points=prompt.keep_old_points,
    )
