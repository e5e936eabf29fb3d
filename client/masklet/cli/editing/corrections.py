"""`masklet track --correct`: prompts for frames that are tracked already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from masklet._protocol.results import FrameResult, VideoInfo
from masklet._sync.planned import Plan, frame_times, limits, on_frame
from masklet.recording import Recording

if TYPE_CHECKING:
    from masklet import Client, Prompt, TrackOptions

_WINDOW = 1  # above 0: the server waits for corrections of the last frames


class CorrectedTracking:
    """Tracks a whole file, corrects each object when its frame is passed, and gives the valid results in the end.

    Args:
        client: The client of the server that tracks.
        source: The video's path.
        prompts: What to track.
        plan: The corrections, and the range of frames to give.
        options: As for `Client.track`.

    Raises:
        BadParameter: The direction is not forward, a correction lies outside the video, or its object does not exist.
        InvalidArgument: A mark lies outside the video.
        OSError: The video cannot be read.
    """

    def __init__(self, client: Client, source: str, prompts: list[Prompt], plan: Plan, options: TrackOptions) -> None:
        if plan.direction != "forward":
            raise typer.BadParameter("goes with --direction forward alone", param_hint="--correct")
        self.source = source
        times = frame_times(Path(source))
        self._range = limits(plan, times)
        self._corrections = [on_frame(prompt, times) for prompt in plan.corrections]
        known = {prompt.object_id for prompt in prompts}
        for prompt in self._corrections:
            if prompt.object_id not in known:
                raise typer.BadParameter(
                    f"object {prompt.object_id} has no prompt of its own, so there is nothing to correct",
                    param_hint="--correct",
                )
            if prompt.frame_index >= len(times):
                raise typer.BadParameter(
                    f"frame {prompt.frame_index} is outside the video, whose last frame is {len(times) - 1}",
                    param_hint="--correct",
                )
        chosen = options.copy()
        chosen["correction_window"] = _WINDOW
        self._tracking = client.track(source, prompts, **chosen)

    def __enter__(self) -> CorrectedTracking:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._tracking.close()

    @property
    def video(self) -> VideoInfo:
        """What is known of the video."""
        return self._tracking.video

    @property
    def undecoded_pts_seconds(self) -> tuple[float, ...]:
        """Times of the frames that could not be decoded."""
        return self._tracking.undecoded_pts_seconds

    def cancel(self) -> None:
        """End the call, from any thread."""
        self._tracking.cancel()

    def __iter__(self) -> Iterator[FrameResult]:
        start, end = self._range
        waiting = sorted(self._corrections, key=lambda prompt: prompt.frame_index)
        found = Recording()
        for frame in self._tracking:
            found.add(frame)
            if frame.revision == 0:
                while waiting and waiting[0].frame_index <= frame.frame_index:
                    self._tracking.prompt(waiting.pop(0))
        for frame in found:
            if frame.frame_index >= start and (end is None or frame.frame_index <= end):
                yield frame
