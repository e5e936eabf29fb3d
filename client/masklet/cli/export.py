"""`masklet export`: results of `masklet track`, or masks of other tools, in another format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich import box as boxes
from rich.table import Table

from masklet.cli.console import frame_progress, out, tell_written
from masklet.cli.signals import raised_on_sigterm
from masklet.errors import InvalidArgument

if TYPE_CHECKING:
    from masklet import Recording
    from masklet.export import ExportOptions, Shape

_OBJECTS, _PICTURES, _SHAPES, _MATTES = "Objects", "Pictures", "Shapes", "Mattes"


def export(
    result: Annotated[
        str | None,
        typer.Argument(
            metavar="RESULT",
            help="Results of `masklet track` (.json, .jsonl, .parquet); or COCO, CVAT's XML or a folder of PNGs, whose "
            "masks are read.",
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="The format; --list shows all.", show_default=False)
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="The file or the folder to write.", show_default=False),
    ] = None,
    objects: Annotated[
        list[int] | None,
        typer.Option(
            "--object",
            metavar="OBJ",
            help="Write this object; may be repeated. Default: all.",
            rich_help_panel=_OBJECTS,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OBJ=NAME[:CLASS]",
            help="Name an object, and say what kind of thing it is.",
            rich_help_panel=_OBJECTS,
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="VIDEO",
            help="The video, for pictures and sound. Default: the one that RESULT names.",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Write the frames as JPEG, too.", rich_help_panel=_PICTURES)
    ] = False,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="mask|polygon",
            help="For formats that know both. Default: the format's own way.",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="PIXELS", help="By how much a polygon may leave the mask's outline.", rich_help_panel=_SHAPES
        ),
    ] = 1.0,
    background: Annotated[
        str,
        typer.Option(
            metavar="transparent|green|black|blur|#RRGGBB",
            help="What is behind the objects in a matte.",
            rich_help_panel=_MATTES,
        ),
    ] = "transparent",
    feather: Annotated[
        float, typer.Option(metavar="PIXELS", help="How soft the edges of a matte are.", rich_help_panel=_MATTES)
    ] = 0.7,
    list_formats: Annotated[bool, typer.Option("--list", help="List the formats, and exit.")] = False,
) -> None:
    """Write results in another format.

    masklet export result.json --to coco --out coco.json

    masklet export result.json --to matte --out rabbit.mov --object 1
    """
    from masklet import importing
    from masklet.export import write

    if list_formats:
        _print_formats()
        return
    if result is None or to is None or path is None:
        missing = next(hint for hint, value in {"RESULT": result, "--to": to, "--out": path}.items() if value is None)
        raise typer.BadParameter("is missing; masklet export --list shows the formats", param_hint=missing)
    recording = importing.read(result)
    there = set(recording.objects)
    name_objects(recording, name or ())
    if unknown := recording.objects.keys() - there:
        known = ", ".join(map(str, sorted(there))) or "none"
        raise typer.BadParameter(f"there is no object {min(unknown)}; the objects are {known}", param_hint="--name")
    options: ExportOptions = {
        "pictures": pictures,
        "shape": _shape(shape),
        "tolerance": tolerance,
        "background": background,
        "feather": feather,
    }
    if video is not None:
        options["video"] = video
    with raised_on_sigterm(), frame_progress(f"writing {path}", announce=False) as advance:
        try:
            write(recording, to, path, objects=objects or None, progress=advance, **options)
        except InvalidArgument as error:
            raise _with_options(error) from error
    tell_written([(to, path)], otherwise="")


def _with_options(error: InvalidArgument) -> Exception:
    """The error, with the words of the command line for the arguments of `masklet.export.write`."""
    wrong = error.violations[0] if error.violations else None
    hint = {"to": "--to", "path": "--out"}.get(wrong.field) if wrong else None
    return error if wrong is None or hint is None else typer.BadParameter(wrong.description, param_hint=hint)


def name_objects(recording: Recording, words: Sequence[str]) -> None:
    """Name objects as the values of --name say.

    Raises:
        typer.BadParameter: A value is malformed.
    """
    for word in words:
        number, equals, names = word.partition("=")
        name, _, class_name = names.partition(":")
        if not equals or not number.isdecimal() or int(number) == 0 or not names:
            raise typer.BadParameter(f"{word!r} is not OBJ=NAME[:CLASS], such as 1=rabbit", param_hint="--name")
        recording.name(int(number), name or None, class_name or None)


def _shape(word: str | None) -> Shape | None:
    from masklet.export import Shape

    if word not in (None, *get_args(Shape)):
        raise typer.BadParameter(f"is {word}, must be one of {', '.join(get_args(Shape))}", param_hint="--shape")
    return cast("Shape | None", word)


def _print_formats() -> None:
    from masklet.export import FORMATS

    table = Table(box=boxes.SIMPLE_HEAD)
    for heading in ("format", "path", "what it is"):
        table.add_column(heading)
    for known in FORMATS.values():
        kinds = [*known.suffixes, *(["a folder"] if known.folder else [])]
        table.add_row(known.name, ", ".join(kinds), known.description)
    out().print(table)
