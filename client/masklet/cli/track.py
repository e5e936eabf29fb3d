"""`masklet track`: masks of objects in every frame of a video."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

import masklet
from masklet._media.capture import is_live
from masklet.cli.console import Advance, frame_progress, out, tell_written
from masklet.cli.live import check_options, tracking_live
from masklet.cli.outputs import MaskFolder, Sink, json_file
from masklet.cli.prompts import BackgroundOption, BoxOption, MaskOption, PointOption, read_prompts
from masklet.cli.server import (
    Access,
    CaOption,
    CertOption,
    EdgesOption,
    InsecureOption,
    KeyOption,
    ModelOption,
    ServerOption,
    TokenFileOption,
    checked_edges,
)
from masklet.cli.tally import Tally

if TYPE_CHECKING:
    from masklet import Client, FrameResult, MemoryPolicy, Prompt, Tracking, TrackOptions

_PANEL = "Results"
MEMORY_POLICIES = ("sam2", "distractor-aware", "motion-aware")
_NO_OUTPUT = "no file was written; add --overlay OUT.mp4, --masks DIR or --json FILE"


def track(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|FOLDER|URL|DEVICE|-",
            help="A video file or a folder of pictures; or a live video: rtsp://..., /dev/video0, a named pipe, or - "
            "for stdin.",
        ),
    ],
    point: PointOption = None,
    background: BackgroundOption = None,
    box: BoxOption = None,
    mask: MaskOption = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.mp4",
            help="Write the video with the masks drawn over it (.mp4, .mov or .mkv).",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a PNG for every frame, whose pixels are OBJ, or 0 for the background.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write all results as JSON, with the masks as COCO run-lengths.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    model: ModelOption = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Never share a batch with other clients, so that two runs give the same bits.",
            rich_help_panel="Server",
        ),
    ] = False,
    memory_policy: Annotated[
        str,
        typer.Option(
            metavar="|".join(MEMORY_POLICIES),
            help="What an object's memory keeps. sam2: SAM 2's own rule. distractor-aware: also frames that tell the "
            "object from look-alikes. motion-aware: frames whose masks fit the object's motion.",
            rich_help_panel="Server",
        ),
    ] = "sam2",
    edges: EdgesOption = None,
    delivery: Annotated[
        str | None,
        typer.Option(
            metavar="latest|lossless",
            help="For a live video that comes faster than it can be tracked. latest: skip frames. lossless: wait. "
            "Default: lossless for pipes, which can wait; latest for others.",
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
    """Track objects through a video.

    OBJ is the number of the object that a prompt is for, 1 if it is left out. FRAME is the number of the frame that it
    is for, counted from 0; 0 if it is left out. Every prompt may be given several times:

    masklet track clip.mp4 --point 360,480 --box 2:40,300,210,420 --overlay out.mp4
    """
    prompts = read_prompts(points=point, background=background, boxes=box, masks=mask)
    _check(video, overlay, delivery)
    for option, file in (("--overlay", overlay), ("--json", json)):
        if file is not None and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"the folder {file.parent} does not exist", param_hint=option)
    options: TrackOptions = {
        "model": model or "",
        "deterministic": deterministic,
        "memory_policy": _memory_policy(memory_policy),
    }
    if (drawn := checked_edges(edges)) is not None:
        options["edges"] = drawn
    tally = Tally()
    try:
        with Access(server, token_file, ca, cert, key, insecure).connect(model) as client:
            call = _start(client, video, prompts, delivery, options)
            with call as running, contextlib.ExitStack() as stack:
                sinks = _open_sinks(stack, running, masks, json)
                advance = stack.enter_context(frame_progress(f"tracking {Path(video).name}"))
                frames = _watched(running, tally, sinks, advance)
                if overlay is None:
                    for _ in frames:
                        pass
                else:
                    masklet.write_overlay_video(video, frames, overlay)
                tally.undecoded = running.undecoded_pts_seconds
    except BaseException:
        if tally.frames:  # what was tracked before is kept; the error itself is printed last
            _print_outcome(tally, overlay=overlay, masks=masks, json=json)
        raise
    _print_outcome(tally, overlay=overlay, masks=masks, json=json)


def _print_outcome(tally: Tally, *, overlay: Path | None, masks: Path | None, json: Path | None) -> None:
    tally.print()
    written = {"overlay": overlay, "masks": masks, "json": json}
    tell_written(
        {name: path if path and path.exists() else None for name, path in written.items()}, otherwise=_NO_OUTPUT
    )
    if masks is not None and tally.separate_frames:
        out().print(
            f"masks overlap in {tally.separate_frames} frames, or have ids above 255: of these frames, {masks}/objects "
            "has every object's whole mask",
            markup=False,
            soft_wrap=True,
        )


def _memory_policy(name: str) -> MemoryPolicy:
    if name not in MEMORY_POLICIES:
        raise typer.BadParameter(
            f"is {name}, must be one of {', '.join(MEMORY_POLICIES)}", param_hint="--memory-policy"
        )
    return cast("MemoryPolicy", name.replace("-", "_"))


def _check(video: str, overlay: Path | None, delivery: str | None) -> None:
    """Refuse wrong names and options now, before a server is started."""
    if is_live(video):
        check_options(video, overlay=overlay is not None, delivery=delivery)
    elif delivery is not None:
        raise typer.BadParameter(
            f"{video} is not a live video, and all its frames are tracked; leave the option out",
            param_hint="--delivery",
        )
    else:
        _check_names(video, overlay)


def _check_names(video: str, overlay: Path | None) -> None:
    from masklet._media.uploads import PICTURE_SUFFIXES, video_path
    from masklet.drawing import VIDEO_SUFFIXES
    from masklet_media.picture_pages import count_pictures

    if Path(video).suffix.lower() in PICTURE_SUFFIXES and Path(video).is_file() and count_pictures(video) < 2:
        raise typer.BadParameter(f"{video} is a picture: use `masklet segment {video}`", param_hint="VIDEO")
    if overlay is not None and overlay.suffix.lower() not in VIDEO_SUFFIXES:
        raise typer.BadParameter(f"{overlay} must end in {', '.join(VIDEO_SUFFIXES)}", param_hint="--overlay")
    video_path(video)


def _start(
    client: Client, video: str, prompts: list[Prompt], delivery: str | None, options: TrackOptions
) -> contextlib.AbstractContextManager[Tracking]:
    """Start the call; the context manager gives the running call."""
    if is_live(video):
        return tracking_live(client, video, prompts, delivery, options)
    return client.track(video, prompts, **options)


def _open_sinks(stack: contextlib.ExitStack, tracking: Tracking, masks: Path | None, json: Path | None) -> list[Sink]:
    sinks: list[Sink] = []
    if masks is not None:
        sinks.append(MaskFolder(masks, lambda: _size(tracking)))
    if json is not None:
        sinks.append(stack.enter_context(json_file(json, tracking)))
    return sinks


def _size(tracking: Tracking) -> tuple[int, int]:
    video = tracking.video
    if video is None:
        raise masklet.Internal("the server sent a result before it described the video")
    return video.height, video.width


def _watched(tracking: Tracking, tally: Tally, sinks: list[Sink], advance: Advance) -> Iterator[FrameResult]:
    """The frames; each is counted and written when it comes."""
    for frame in tracking:
        tally.add(frame)
        tally.undecoded = tracking.undecoded_pts_seconds
        for sink in sinks:
            sink(frame)
            if isinstance(sink, MaskFolder):
                tally.separate_frames = sink.separate_frames
        advance(tally.frames, tracking.video.frame_count or None if tracking.video else None)
        yield frame
