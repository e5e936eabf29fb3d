"""`masklet track`: masks of objects in every frame of a video."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import masklet
from masklet._media.capture.source import LiveSource, is_live
from masklet._sync.planned import PlannedTracking, annotate_options
from masklet.cli.console import err, frame_progress, out, tell_written, told, warn
from masklet.cli.editing.corrections import CorrectedTracking
from masklet.cli.editing.options import (
    CorrectOption,
    DirectionOption,
    Editing,
    EndOption,
    ExportOption,
    MinScoreOption,
    NameOption,
    PromptsOption,
    StartOption,
    StyleOption,
    checked_style,
    range_options,
)
from masklet.cli.live.run import LiveCommand, LiveRun, tracking_live
from masklet.cli.outputs import (
    JsonLines,
    MaskFolder,
    NamedCall,
    OutputFiles,
    Sink,
    json_file,
    json_lines,
    rerun_sink,
)
from masklet.cli.prompts import BackgroundOption, BoxOption, MaskOption, PointOption, read_prompts
from masklet.cli.server import (
    Access,
    CaOption,
    CertOption,
    DeterministicOption,
    EdgesOption,
    InsecureOption,
    KeyOption,
    MemoryPolicyOption,
    ModelOption,
    ResumeOption,
    ServerOption,
    TokenFileOption,
    checked_edges,
    checked_memory_policy,
    resume_options,
)
from masklet.cli.signals import Signals
from masklet.cli.tally import Tally
from masklet.drawing import VIDEO_SUFFIXES
from masklet.recording import Recording

if TYPE_CHECKING:
    from masklet import Client, FrameResult, Prompt, Tracking, TrackOptions

_PANEL = "Results"
_LIVE_PANEL = "Live video"
_NO_OUTPUT = "no file was written; add --overlay OUT.mp4, --masks DIR, --json FILE or --jsonl FILE"


def track(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|FOLDER|URL|DEVICE|-",
            help="A video file or a folder of pictures; or a live video: rtsp://, rtmp://, http:// (MJPEG, HLS or a "
            "file), udp://, tcp://, /dev/video0, a named pipe, or - for stdin.",
        ),
    ],
    point: PointOption = None,
    background: BackgroundOption = None,
    box: BoxOption = None,
    mask: MaskOption = None,
    prompts: PromptsOption = None,
    min_score: MinScoreOption = 0.0,
    name: NameOption = None,
    correct: CorrectOption = None,
    start: StartOption = None,
    end: EndOption = None,
    direction: DirectionOption = "forward",
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
            help="Write all results as JSON, with the masks as COCO run-lengths. FILE.jsonl: as --jsonl. -: to stdout.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a line of JSON for each frame as soon as its result is here. -: to stdout.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    export: ExportOption = None,
    rerun: Annotated[
        str | None,
        typer.Option(
            metavar="view|FILE.rrd|URL",
            help="Show the results in Rerun's viewer as they come (view, or the URL of one that runs), or write them "
            "into its file. Needs masklet[rerun].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    overlay_style: StyleOption = "both",
    model: ModelOption = None,
    deterministic: DeterministicOption = False,
    memory_policy: MemoryPolicyOption = "sam2",
    edges: EdgesOption = None,
    delivery: Annotated[
        str | None,
        typer.Option(
            metavar="latest|lossless",
            help="For a live video that comes faster than it can be tracked. latest: skip frames. lossless: wait. "
            "Default: lossless for pipes and files, which can wait; latest for others.",
            rich_help_panel=_LIVE_PANEL,
        ),
    ] = None,
    reconnect: Annotated[
        bool | None,
        typer.Option(
            "--reconnect/--no-reconnect",
            help="Connect again where a stream breaks off. Default: yes for rtsp:// and devices.",
            rich_help_panel=_LIVE_PANEL,
            show_default=False,
        ),
    ] = None,
    silence: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="After so long without video, a stream counts as broken. Default: 10; 30 for http.",
            rich_help_panel=_LIVE_PANEL,
        ),
    ] = None,
    resume: ResumeOption = True,
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
    editing = Editing.of(
        (start, end, direction), (prompts, correct), min_score=min_score, names=name or (), exports=export or ()
    )
    given = point or background or box or mask or not editing.prompts
    read = read_prompts(points=point, background=background, boxes=box, masks=mask) if given else []
    everything = sorted([*editing.prompts, *read], key=lambda prompt: prompt.frame_index)
    live = LiveCommand(video, delivery, reconnect, silence, overlay) if is_live(video) else None
    files = OutputFiles.of(overlay=overlay, masks=masks, json=json, jsonl=jsonl, rerun=rerun)
    style = checked_style(overlay_style)
    editing.check_names(everything)
    for prompt in everything:
        editing.names.name(prompt.object_id)  # headers of results list all objects, also those without a name
    if live is not None:
        editing.check_live()
    else:
        files.check_none_is(video, [path for _, path in editing.exports])
    _check(video, overlay, live, delivery is not None or reconnect is not None or silence is not None)
    options: TrackOptions = {
        "model": model or "",
        "deterministic": deterministic,
        "memory_policy": checked_memory_policy(memory_policy),
        **resume_options(resume),
    }
    if (drawn := checked_edges(edges)) is not None:
        options["edges"] = drawn
    tally = Tally()
    outcome = _Outcome(editing, tally, Recording(source="" if live is not None else video), rerun)
    try:
        with Access(server, token_file, ca, cert, key, insecure).connect(model) as client:
            if live is None:
                with _start(client, video, everything, editing, options) as tracking:
                    _track_file(tracking, files, outcome, style)
            else:
                with tracking_live(client, live, everything, options) as run:
                    _track_live(run, str(LiveSource.of(video)), files, outcome)
    except BaseException:
        if tally.frames:  # what was tracked before is kept; the error itself is printed last
            for failure in _print_outcome(outcome, files):
                warn(told(failure))
        raise
    failures = _print_outcome(outcome, files)
    for failure in failures[:-1]:
        warn(told(failure))
    if failures:
        raise failures[-1]


@dataclass
class _Outcome:
    """What a run leaves behind: counts, and the results if something is exported at the end."""

    editing: Editing
    tally: Tally
    recording: Recording
    rerun: str | None = None

    def sinks(self, stack: contextlib.ExitStack) -> list[Sink]:
        sinks: list[Sink] = [self.recording.add] if self.editing.exports else []
        if self.rerun is not None:
            names, source = self.editing.names, self.recording.source
            sinks.append(stack.enter_context(rerun_sink(self.rerun, names, source)))
        return sinks


@range_options()
def _start(
    client: Client, video: str, prompts: list[Prompt], editing: Editing, options: TrackOptions
) -> Tracking | PlannedTracking | CorrectedTracking:
    if editing.plan.is_plain:
        return client.track(video, prompts, **options)
    if editing.plan.corrections:
        return CorrectedTracking(client, video, prompts, editing.plan, options)
    if options["memory_policy"] != "sam2":
        raise typer.BadParameter("must be sam2 with --start, --end or --direction", param_hint="--memory-policy")
    return PlannedTracking(client, video, prompts, editing.plan, annotate_options(options))


def _track_file(
    tracking: Tracking | PlannedTracking | CorrectedTracking,
    files: OutputFiles,
    outcome: _Outcome,
    style: tuple[float, bool],
) -> None:
    video = outcome.recording.source
    with contextlib.ExitStack() as stack:
        call = NamedCall(tracking, outcome.editing.names, video)
        sinks = [*_open_sinks(stack, call, files, lambda _: 0.0), *outcome.sinks(stack)]
        frames = _watched(stack, tracking, iter(tracking), Path(video).name, outcome.tally, sinks)
        if files.overlay is None:
            for _ in frames:
                pass
        else:
            alpha, outline = style
            masklet.write_overlay_video(video, frames, files.overlay, alpha=alpha, outline=outline)
        outcome.recording.video = tracking.video


def _track_live(run: LiveRun, name: str, files: OutputFiles, outcome: _Outcome) -> None:
    tally = outcome.tally
    with contextlib.ExitStack() as stack:
        call = NamedCall(run.live, outcome.editing.names, "")
        sinks = [*_open_sinks(stack, call, files, run.gap_before), *outcome.sinks(stack)]
        if run.overlay is not None:
            sinks.append(run.overlay.draw)
        for sink in sinks:
            if isinstance(sink, JsonLines):
                run.note = sink.note
        try:
            for _ in _watched(stack, run.live, run.results(), name, tally, sinks):
                pass
        finally:
            tally.gaps = run.gaps


def _print_outcome(outcome: _Outcome, files: OutputFiles) -> list[masklet.MaskletError | OSError]:
    """Print the counts, export the results, and print what was written; why some exports were not."""
    console = err() if files.use_stdout else out()  # what reads results on stdout wants nothing else there
    outcome.tally.print(console)
    exported, failures = outcome.editing.write(outcome.recording)
    otherwise = "no file was written" if any(vars(files).values()) else _NO_OUTPUT
    tell_written([*files.written().items(), *exported], otherwise=otherwise, console=console)
    return failures


def _check(video: str, overlay: Path | None, live: LiveCommand | None, has_live_options: bool) -> None:
    """Refuse wrong names and options now, before a server is started."""
    if overlay is not None and overlay.suffix.lower() not in VIDEO_SUFFIXES:
        raise typer.BadParameter(f"{overlay} must end in {', '.join(VIDEO_SUFFIXES)}", param_hint="--overlay")
    if live is None and has_live_options:
        raise typer.BadParameter(
            f"{video} is not a live video, and all its frames are tracked; leave --delivery, --reconnect and --silence "
            "out",
            param_hint="VIDEO",
        )
    if live is not None:
        live.check()
    else:
        _check_names(video)


def _check_names(video: str) -> None:
    from masklet._media.uploads import PICTURE_SUFFIXES, video_path
    from masklet_media.picture_pages import count_pictures

    if Path(video).suffix.lower() in PICTURE_SUFFIXES and Path(video).is_file() and count_pictures(video) < 2:
        raise typer.BadParameter(f"{video} is a picture: use `masklet segment {video}`", param_hint="VIDEO")
    video_path(video)


def _open_sinks(
    stack: contextlib.ExitStack, tracking: NamedCall, files: OutputFiles, gap_before: Callable[[FrameResult], float]
) -> list[Sink]:
    sinks: list[Sink] = []
    if files.masks is not None:
        sinks.append(MaskFolder(files.masks, lambda: _size(tracking)))
    if files.json is not None:
        sinks.append(stack.enter_context(json_file(files.json, tracking, gap_before)))
    if files.jsonl is not None:
        sinks.append(stack.enter_context(json_lines(files.jsonl, tracking, gap_before)))
    return sinks


def _size(tracking: NamedCall) -> tuple[int, int]:
    video = tracking.video
    if video is None:
        raise masklet.Internal("the server sent a result before it described the video")
    return video.height, video.width


def _watched(
    stack: contextlib.ExitStack,
    tracking: Tracking | PlannedTracking | CorrectedTracking,
    results: Iterator[FrameResult],
    name: str,
    tally: Tally,
    sinks: list[Sink],
) -> Iterator[FrameResult]:
    """The frames; each is counted and written when it comes.

    Raises:
        KeyboardInterrupt, Terminated: A signal came. Raised between two frames, so that whoever writes can finish.
    """
    signals = stack.enter_context(Signals(tracking.cancel))
    advance = stack.enter_context(frame_progress(f"tracking {name}"))
    try:
        for frame in results:
            tally.add(frame)
            tally.undecoded = tracking.undecoded_pts_seconds
            for sink in sinks:
                sink(frame)
                if isinstance(sink, MaskFolder):
                    tally.separate_frames = sink.separate_frames
            advance(tally.frames, tracking.video.frame_count or None)
            yield frame
    except masklet.Cancelled:
        signals.check()
        raise
    finally:
        tally.undecoded = tracking.undecoded_pts_seconds
