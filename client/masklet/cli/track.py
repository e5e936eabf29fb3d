"""`masklet track`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich import box as boxes
from rich.table import Table

import masklet
from masklet._media.capture import is_live
from masklet.cli.console import Advance, frame_progress, object_label, out, tell_written
from masklet.cli.live import check_options, following
from masklet.cli.outputs import Sink, json_file, mask_folder
from masklet.cli.prompts import BackgroundOption, BoxOption, MaskOption, PointOption, read_prompts
from masklet.cli.server import (
    Access,
    CaOption,
    CertOption,
    InsecureOption,
    KeyOption,
    ModelOption,
    ServerOption,
    TokenFileOption,
)

if TYPE_CHECKING:
    from masklet import Client, FrameResult, Prompt, Tracking
    from masklet._protocol.options import MemoryPolicy

_PANEL = "Results"
MEMORY_POLICIES = ("sam2", "distractor-aware", "motion-aware")
# Events of an object that are told at the end; a stream that never ends has no end of them.
MAX_EVENTS_TOLD = 10
_NO_OUTPUT = "nothing was written; --overlay OUT.mp4, --masks DIR and --json FILE keep the result"


def track(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|FOLDER|URL|DEVICE|-",
            help="A video file, a folder of pictures; or live, rtsp://..., /dev/video0, a named pipe, or - for stdin.",
        ),
    ],
    point: PointOption = None,
    background: BackgroundOption = None,
    box: BoxOption = None,
    mask: MaskOption = None,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="OUT.mp4", help="Write the video with the masks drawn in.", rich_help_panel=_PANEL),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write an indexed PNG for every frame.", rich_help_panel=_PANEL),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all results, masks as COCO run-lengths.", rich_help_panel=_PANEL),
    ] = None,
    model: ModelOption = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Never batch with others: two runs, same bits.", rich_help_panel="Server"),
    ] = False,
    memory_policy: Annotated[
        str,
        typer.Option(
            metavar="|".join(MEMORY_POLICIES),
            help="What an object's memory keeps: SAM 2's own; or frames with look-alikes; or what fits its motion.",
            rich_help_panel="Server",
        ),
    ] = "sam2",
    delivery: Annotated[
        str | None,
        typer.Option(
            metavar="latest|lossless",
            help="Of a live video that comes faster than it can be tracked: skip frames, or wait (pipes do).",
            rich_help_panel="Server",
        ),
    ] = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Follow objects through a video.

    OBJ tells objects apart, 1 if left out; FRAME says where the prompt belongs,
    0 if left out. All prompts may be repeated:

    masklet track clip.mp4 --point 360,480 --box 2:40,300,210,420 --overlay out.mp4
    """
    prompts = read_prompts(points=point, background=background, boxes=box, masks=mask)
    _check(video, overlay, delivery)
    policy = _memory_policy(memory_policy)
    tally = Tally()
    with Access(server, token_file, ca, cert, key, insecure).connect(model) as client:
        call = _begin(client, video, prompts, delivery, model or "", deterministic=deterministic, memory_policy=policy)
        with call as running, contextlib.ExitStack() as stack:
            sinks = _open_sinks(stack, running, masks, json)
            advance = stack.enter_context(frame_progress(f"tracking {Path(video).name}"))
            frames = _watched(running, tally, sinks, advance)
            if overlay is None:
                for _ in frames:
                    pass
            else:
                masklet.write_overlay_video(video, frames, overlay)
    tally.print()
    tell_written({"overlay": overlay, "masks": masks, "json": json}, otherwise=_NO_OUTPUT)


class Tally:
    """What is told of a run at its end."""

    def __init__(self) -> None:
        self.frames = 0
        self._begun = time.monotonic()
        self._ended = self._begun
        self._visible: dict[int, int] = {}
        self._iou_sum: dict[int, float] = {}
        self._events: dict[int, list[str]] = {}
        self._events_untold = 0

    def add(self, frame: FrameResult) -> None:
        """Count a frame."""
        self.frames += 1
        self._ended = time.monotonic()
        for object_id, result in frame.objects.items():
            self._visible[object_id] = self._visible.get(object_id, 0) + result.visible
            self._iou_sum[object_id] = self._iou_sum.get(object_id, 0.0) + result.predicted_iou * result.visible
            if result.event is not None:
                self._note(object_id, f"{result.event.replace('_', ' ')} at frame {frame.frame_index}")

    def _note(self, object_id: int, event: str) -> None:
        told = self._events.setdefault(object_id, [])
        if len(told) < MAX_EVENTS_TOLD:
            told.append(event)
        else:
            self._events_untold += 1

    def print(self) -> None:
        """Write the table."""
        seconds = max(self._ended - self._begun, 1e-9)
        console = out()
        console.print(f"{self.frames} frames in {seconds:.1f} s, {self.frames / seconds:.1f} frames/s")
        table = Table(box=boxes.SIMPLE_HEAD)
        for heading in ("object", "visible frames", "mean predicted IoU"):
            table.add_column(heading, justify="right")
        for object_id, visible in sorted(self._visible.items()):
            mean = f"{self._iou_sum[object_id] / visible:.3f}" if visible else "-"
            table.add_row(object_label(object_id), str(visible), mean)
        if self._visible:
            console.print(table)
        for object_id, told in sorted(self._events.items()):
            console.print(f"object {object_id}: {', '.join(told)}", soft_wrap=True)
        if self._events_untold:
            console.print(f"and {self._events_untold} more of these")


def _memory_policy(name: str) -> MemoryPolicy:
    if name not in MEMORY_POLICIES:
        raise typer.BadParameter(f"{name} is none of {', '.join(MEMORY_POLICIES)}", param_hint="--memory-policy")
    return cast("MemoryPolicy", name.replace("-", "_"))


def _check(video: str, overlay: Path | None, delivery: str | None) -> None:
    """Refuse wrong names and options now rather than after a server has started."""
    if is_live(video):
        check_options(video, overlay=overlay is not None, delivery=delivery)
    elif delivery is not None:
        raise typer.BadParameter(f"{video} is not live: every frame of it is tracked", param_hint="--delivery")
    else:
        _check_names(video, overlay)


def _check_names(video: str, overlay: Path | None) -> None:
    from masklet._media.uploads import PICTURE_SUFFIXES, video_path
    from masklet.drawing import VIDEO_SUFFIXES

    if Path(video).suffix.lower() in PICTURE_SUFFIXES and Path(video).is_file():
        raise typer.BadParameter(f"{video} is a picture: use `masklet segment {video}`", param_hint="VIDEO")
    if overlay is not None and overlay.suffix.lower() not in VIDEO_SUFFIXES:
        raise typer.BadParameter(f"{overlay} must end in {', '.join(VIDEO_SUFFIXES)}", param_hint="--overlay")
    video_path(video)


def _begin(
    client: Client,
    video: str,
    prompts: list[Prompt],
    delivery: str | None,
    model: str,
    *,
    deterministic: bool,
    memory_policy: MemoryPolicy,
) -> contextlib.AbstractContextManager[Tracking]:
    """Begin the call, whose frames the context manager gives."""
    if is_live(video):
        return following(
            client,
            video,
            prompts,
            delivery=delivery,
            model=model,
            deterministic=deterministic,
            memory_policy=memory_policy,
        )
    return client.track(video, prompts, model=model, deterministic=deterministic, memory_policy=memory_policy)


def _open_sinks(stack: contextlib.ExitStack, tracking: Tracking, masks: Path | None, json: Path | None) -> list[Sink]:
    sinks: list[Sink] = []
    if masks is not None:
        sinks.append(mask_folder(masks, lambda: _size(tracking)))
    if json is not None:
        sinks.append(stack.enter_context(json_file(json, lambda: tracking.video)))
    return sinks


def _size(tracking: Tracking) -> tuple[int, int]:
    video = tracking.video
    if video is None:
        raise masklet.Internal("the server sent a frame before it described the video")
    return video.height, video.width


def _watched(tracking: Tracking, tally: Tally, sinks: list[Sink], advance: Advance) -> Iterator[FrameResult]:
    """The frames, each of them counted and written as it passes."""
    for frame in tracking:
        tally.add(frame)
        for sink in sinks:
            sink(frame)
        advance(tally.frames, tracking.video.frame_count or None if tracking.video else None)
        yield frame
