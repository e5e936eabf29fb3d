"""`masklet batch`: track objects through thousands of clips, each once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masklet.cli.batch.lines import Lines, progress, tell_end
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
    ServerOption,
    TokenFileOption,
    checked_edges,
    checked_memory_policy,
    resume_options,
)
from masklet.cli.signals import Signals
from masklet.errors import InvalidArgument, MaskletError

if TYPE_CHECKING:
    from masklet import TrackOptions
    from masklet.batch import Clip, PromptFile, Shard

_PROMPTS, _RESULTS, _HOW = "Prompts", "Results", "How"


def batch(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Video files, folders (searched with the folders in them; a folder of pictures is a clip), or "
            "patterns in quotes, such as 'videos/**/*.mp4'.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The folder of results and of the ledger.", show_default=False),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Clips from a file: CSV or JSON Lines with clip, and if wanted name, prompts, start, end, direction, "
            "names.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts for every clip that has none of its own. Default: for clip.mp4 the file clip.prompts.json "
            "beside it.",
            rich_help_panel=_PROMPTS,
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A detector's boxes for all clips, each with the key clip (or an image_id such as a_000012).",
            rich_help_panel=_PROMPTS,
        ),
    ] = None,
    min_score: Annotated[
        float,
        typer.Option(metavar="SCORE", help="Leave out boxes of a detector below this score.", rich_help_panel=_PROMPTS),
    ] = 0.0,
    results: Annotated[
        str, typer.Option(metavar="jsonl|json|parquet", help="The form of the results.", rich_help_panel=_RESULTS)
    ] = "jsonl",
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT[=FILE]",
            help="Write another format, too; masklet export --list shows all. May be repeated.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many clips are tracked at once.", rich_help_panel=_HOW)
    ] = 4,
    retries: Annotated[
        int, typer.Option(min=0, metavar="N", help="How often a clip that failed is tried again.", rich_help_panel=_HOW)
    ] = 3,
    wait: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="How long to wait for a server that has gone away, or that has no room.",
            rich_help_panel=_HOW,
        ),
    ] = 600.0,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N. A clip's name decides, so several machines may share the work and DIR.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    retry_poisoned: Annotated[
        bool,
        typer.Option("--retry-poisoned", help="Try the clips that failed in earlier runs again.", rich_help_panel=_HOW),
    ] = False,
    model: ModelOption = None,
    deterministic: DeterministicOption = False,
    memory_policy: MemoryPolicyOption = "sam2",
    edges: EdgesOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Track objects through many clips. The same command again goes on where it ended.

    masklet batch videos --out results --prompts prompts.json --export coco --server HOST:PORT

    DIR gets a folder for each clip, a ledger, and a list of the clips that failed. A clip is done again only where its
    video, its prompts or the options have changed. The exit status is 0 if every clip is done.
    """
    from masklet.batch import Batch, BatchSettings, Patience

    if folder is None:
        raise typer.BadParameter("is missing; give the folder for the results", param_hint="--out")
    clips = _clips(inputs or [], manifest, (prompts, detections, min_score))
    options: TrackOptions = {
        "model": model or "",
        "deterministic": deterministic,
        "memory_policy": checked_memory_policy(memory_policy),
        **resume_options(True),
    }
    if (drawn := checked_edges(edges)) is not None:
        options["edges"] = drawn
    with _options_named():
        settings = BatchSettings(
            jobs=jobs,
            shard=_shard(shard),
            results=f".{results.removeprefix('.')}",
            exports=tuple(export or ()),
            patience=Patience(retries=retries, wait_seconds=wait),
            retry_poisoned=retry_poisoned,
            options=options,
        )
        work = Batch(clips, folder, settings)
    with Access(server, token_file, ca, cert, key, insecure).connect(model) as client:
        with Signals(work.stop) as signals, progress(work):
            try:
                summary = work.run(client, Lines(len(work.clips)))
            except (MaskletError, OSError):
                if work.summary.done or work.summary.poisoned:  # nothing to go on with otherwise
                    tell_end(work.summary, folder, settings)
                raise
        tell_end(summary, folder, settings)
        signals.check()
    if not summary.is_complete:
        raise typer.Exit(1)


def _clips(inputs: list[str], manifest: Path | None, prompts: tuple[Path | None, Path | None, float]) -> list[Clip]:
    """The clips of the command line, each with its prompts."""
    from dataclasses import replace

    from masklet.batch import find_clips, read_manifest, with_detections

    everywhere, detections, min_score = prompts
    if bool(inputs) == (manifest is not None):
        raise typer.BadParameter("give either files, folders and patterns, or --manifest FILE", param_hint="INPUT")
    if everywhere is not None and detections is not None:
        raise typer.BadParameter("does not go with --prompts; give one of them", param_hint="--detections")
    if min_score and detections is None:
        raise typer.BadParameter("goes with --detections FILE; add it", param_hint="--min-score")
    with _options_named():
        found = find_clips(inputs) if manifest is None else read_manifest(manifest)
        if detections is not None:
            return with_detections(found, detections, min_score=min_score)
        if everywhere is None:
            return found
        shared = _shared_prompts(everywhere)
    return [clip if clip.prompts is not None else replace(clip, prompts=shared) for clip in found]


def _shared_prompts(path: Path) -> PromptFile:
    """The prompts for all clips, read once, so that a file that is wrong is told before the first clip."""
    from masklet.importing.prompts import read_prompts

    try:
        return read_prompts(path)
    except InvalidArgument as error:
        raise InvalidArgument.of("prompts", "; ".join(one.description for one in error.violations)) from None


def _shard(word: str | None) -> Shard | None:
    from masklet.batch import Shard

    return None if word is None else Shard.parse(word)


@contextlib.contextmanager
def _options_named() -> Iterator[None]:
    """Within it, a wrong argument is told as that of an option."""
    try:
        yield
    except InvalidArgument as error:
        if not error.violations:
            raise
        wrong = error.violations[0]
        hint = "INPUT" if wrong.field == "inputs" else f"--{wrong.field}"
        raise typer.BadParameter(wrong.description, param_hint=hint) from error
