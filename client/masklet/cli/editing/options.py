"""The options of `masklet track` for editors, and what they say together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masklet._sync.planned import DIRECTIONS, Mark, Plan
from masklet.cli.console import frame_progress
from masklet.cli.export import name_objects
from masklet.errors import InvalidArgument, MaskletError
from masklet.prompts import Prompt
from masklet.recording import Recording

if TYPE_CHECKING:
    from masklet.export import ExportFormat

_OF_RANGES = {"start": "--start", "end": "--end", "direction": "--direction", "video": "VIDEO"}
_PROMPTS = "Prompts"
_PANEL = "Range"
_RESULTS = "Results"
STYLES = {"both": (0.4, True), "fill": (0.5, False), "outline": (0.0, True)}
"""How `--overlay` draws: strength of the tint, and whether there are outlines."""

PromptsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Prompts from a file: masklet's own (JSON or YAML), a detector's boxes (COCO's results), or masks (COCO, "
        "CVAT, a folder of PNGs).",
        rich_help_panel=_PROMPTS,
    ),
]
MinScoreOption = Annotated[
    float,
    typer.Option(metavar="SCORE", help="Leave out boxes of a detector below this score.", rich_help_panel=_PROMPTS),
]
NameOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OBJ=NAME[:CLASS]",
        help="Name an object in the results, and say what kind of thing it is.",
        rich_help_panel=_PROMPTS,
    ),
]
CorrectOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Prompts for frames that are tracked already. Their objects are tracked again from there, the others are "
        "not.",
        rich_help_panel=_PROMPTS,
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        metavar="FRAME|TIME",
        help="The first frame of the results, such as 120, 4.5s or 1:04.5. Default: the video's first one.",
        rich_help_panel=_PANEL,
    ),
]
EndOption = Annotated[
    str | None,
    typer.Option(
        metavar="FRAME|TIME",
        help="The last frame of the results. Default: the video's last one.",
        rich_help_panel=_PANEL,
    ),
]
DirectionOption = Annotated[
    str,
    typer.Option(metavar="|".join(DIRECTIONS), help="Where to track from the prompts on.", rich_help_panel=_PANEL),
]
ExportOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FORMAT=PATH",
        help="Write the results in another format, too; masklet export --list shows all. May be repeated.",
        rich_help_panel=_RESULTS,
    ),
]
StyleOption = Annotated[
    str, typer.Option(metavar="|".join(STYLES), help="How --overlay draws objects.", rich_help_panel=_RESULTS)
]


@dataclass(frozen=True)
class Editing:
    """What the options say.

    Attributes:
        prompts: Those of the file.
        plan: Which frames to track, how, and what is corrected then.
        names: A recording without results that has the objects' names.
        exports: Formats and paths.
    """

    prompts: list[Prompt]
    plan: Plan
    names: Recording
    exports: list[tuple[ExportFormat, Path]]

    @classmethod
    def of(
        cls,
        plan: tuple[str | None, str | None, str],
        files: tuple[Path | None, Path | None],
        *,
        min_score: float,
        names: Sequence[str],
        exports: Sequence[str],
    ) -> Editing:
        """Read the options.

        Args:
            plan: The values of --start, --end and --direction.
            files: The values of --prompts and --correct.
            min_score: The value of --min-score.
            names: The values of --name.
            exports: The values of --export.

        Raises:
            BadParameter: A value is wrong.
            MaskletError: A file holds something else.
            OSError: A file cannot be read.
        """
        from masklet.importing.prompts import read_prompts

        start, end, direction = plan
        if min_score and files[0] is None:
            raise typer.BadParameter("goes with the boxes of --prompts FILE; add it", param_hint="--min-score")
        known = Recording()
        read: list[list[Prompt]] = [[], []]
        for place, file in enumerate(files):
            if file is not None:
                found = read_prompts(file, min_score=min_score)
                read[place] = found.prompts
                for entry in found.objects.values():
                    known.name(entry.object_id, entry.name or None, entry.class_name or None)
        name_objects(known, names)
        with range_options():
            marks = Plan(
                start=None if start is None else Mark(start, "start"),
                end=None if end is None else Mark(end, "end"),
                direction=direction,
                corrections=read[1],
            )
        asked = [_export(word) for word in exports]
        for number, (_, path) in enumerate(asked):
            if path in [other for _, other in asked[:number]]:
                raise typer.BadParameter(f"{path} is given twice; give each format its own path", param_hint="--export")
        return cls(read[0], marks, known, asked)

    def check_live(self) -> None:
        """Refuse what live videos cannot do.

        Raises:
            BadParameter: There is such an option.
        """
        if not self.plan.is_plain:
            raise typer.BadParameter(
                "a live video has no range, no other direction and no later corrections; record it, and track the file",
                param_hint="--start, --end, --direction, --correct",
            )
        for known, _ in self.exports:
            if known.needs_video:
                raise typer.BadParameter(
                    f"{known.name} needs the video's pictures, and a live video has none in the end; record it, and "
                    "track the file",
                    param_hint="--export",
                )

    def check_names(self, prompts: Sequence[Prompt]) -> None:
        """Refuse names of objects that nothing prompts, and formats that cannot hold the objects' ids.

        Args:
            prompts: All prompts.

        Raises:
            BadParameter: There is such a name, or such an id.
        """
        ids = {prompt.object_id for prompt in (*prompts, *self.plan.corrections)}
        for object_id in self.names.objects:
            if object_id not in ids:
                known = ", ".join(map(str, sorted(ids)))
                raise typer.BadParameter(
                    f"object {object_id} has no prompt; the objects are {known}", param_hint="--name"
                )
        for form, _ in self.exports:
            if form.most_id is not None and max(ids) > form.most_id:
                raise typer.BadParameter(
                    f"object {max(ids)} is above {form.most_id}, the last one that {form.name} can hold",
                    param_hint="--export",
                )

    def write(self, recording: Recording) -> tuple[list[tuple[str, Path]], list[MaskletError | OSError]]:
        """Write the exports. One that fails leaves the others as they are.

        Returns:
            The formats and paths of what was written, and why the others were not.
        """
        from masklet.export import write

        for entry in self.names.objects.values():
            recording.name(entry.object_id, entry.name, entry.class_name)
        written: list[tuple[str, Path]] = []
        failures: list[MaskletError | OSError] = []
        for known, path in self.exports:
            try:
                with frame_progress(f"writing {path}", announce=False) as advance:
                    write(recording, known.name, path, progress=advance)
            except (MaskletError, OSError) as error:  # noqa: PERF203 - each format fails alone
                failures.append(error)
            else:
                written.append((known.name, path))
        return written, failures


@contextlib.contextmanager
def range_options() -> Iterator[None]:
    """Within it, what is wrong with a range is told of the option that says it.

    Raises:
        BadParameter: A mark, a direction or the video is wrong.
    """
    try:
        yield
    except InvalidArgument as error:
        wrong = error.violations[0] if error.violations else None
        if wrong is None or wrong.field not in _OF_RANGES:
            raise
        raise typer.BadParameter(wrong.description, param_hint=_OF_RANGES[wrong.field]) from error


def _export(word: str) -> tuple[ExportFormat, Path]:
    from masklet.export import FORMATS, Settings

    name, equals, path = word.partition("=")
    if not equals or name not in FORMATS or not path:
        raise typer.BadParameter(
            f"{word!r} is not FORMAT=PATH, such as coco=result.json; formats are {', '.join(FORMATS)}",
            param_hint="--export",
        )
    try:
        FORMATS[name].check(Path(path), Settings())
    except InvalidArgument as error:
        raise typer.BadParameter(str(error), param_hint="--export") from None
    return FORMATS[name], Path(path)


def checked_style(name: str) -> tuple[float, bool]:
    """The value of --overlay-style: strength of the tint, and whether there are outlines.

    Raises:
        BadParameter: There is no such style.
    """
    if name not in STYLES:
        raise typer.BadParameter(f"is {name}, must be one of {', '.join(STYLES)}", param_hint="--overlay-style")
    return STYLES[name]
