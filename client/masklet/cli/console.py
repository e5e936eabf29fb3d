"""What commands print: results on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from masklet._urls import without_secrets

_PLAIN_EVERY_SECONDS = 10.0

Advance = Callable[[int, "int | None"], None]
"""Reports how many frames are done, and of how many (None where that is not known)."""


class Command(TyperCommand):
    """A command whose help shows no type beside flags, which take no value, and fills the lines of the terminal.

    Names of options that are too long for a narrow terminal are folded, not cut.
    """

    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:  # noqa: A002 - click's name
        super().__init__(*args, help=help and _filled(help), **settings)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, of which flags have no placeholder for a value."""
        return _without_types_of_flags(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, with whole names of options on a narrow terminal, too."""
        _fold_names_of_options()
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """The same for a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, of which flags have no placeholder for a value."""
        return _without_types_of_flags(super().get_params(ctx))


class _Folded:
    """Typer's highlighter of names, whose text is folded where it is wider than its column. Rich would cut it."""

    def __init__(self, highlighter: Callable[[str | Text], Text]) -> None:
        self._highlighter = highlighter

    def __call__(self, text: str | Text) -> Text:
        shown = self._highlighter(text)
        shown.overflow = "fold"
        return shown


@functools.cache
def _fold_names_of_options() -> None:
    from typer import rich_utils

    for name in ("highlighter", "negative_highlighter"):
        setattr(rich_utils, name, _Folded(getattr(rich_utils, name)))


def _filled(text: str) -> str:
    """The paragraphs of a docstring, each as one line, so that the terminal's width alone breaks them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _without_types_of_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


def out() -> Console:
    """A console for results, on stdout."""
    return Console(highlight=False)


def err() -> Console:
    """A console for all else, on stderr."""
    return Console(stderr=True, highlight=False)


def fail(message: str) -> NoReturn:
    """Print in one line what went wrong, and exit with status 1."""
    line = without_secrets(" ".join(message.split()))
    err().print(Text("error: ", style="bold red") + Text(line), soft_wrap=True)
    sys.exit(1)


def told(error: Exception) -> str:
    """An error as people are told of it: of a file its name and what is wrong."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def warn(message: str) -> None:
    """Print a warning in one line on stderr."""
    line = without_secrets(" ".join(message.split()))
    err().print(Text("warning: ", style="bold yellow") + Text(line), soft_wrap=True)


def object_label(object_id: int) -> Text:
    """The object's id beside a square in the colour that the object has in overlays."""
    from masklet.drawing import colour_of

    red, green, blue = colour_of(object_id)
    return Text("■ ", style=f"rgb({red},{green},{blue})") + Text(str(object_id), style="default")


def tell_written(files: Iterable[tuple[str, Path | None]], *, otherwise: str, console: Console | None = None) -> None:
    """Print which files were written.

    Args:
        files: Kinds of files, each with its path; None where it was not written.
        otherwise: What to print where no file was written.
        console: Where to print; None: on stdout.
    """
    written = [(name, path) for name, path in files if path is not None]
    for name, path in written:
        (console or out()).print(f"{name:<8} {path}", markup=False, soft_wrap=True)
    if not written:
        err().print(otherwise, soft_wrap=True)


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """Show a message while the block runs."""
    console = err()
    if console.is_terminal:
        with console.status(message):
            yield
    else:
        console.print(message, soft_wrap=True, markup=False)
        yield


@contextmanager
def frame_progress(label: str, *, announce: bool = True) -> Iterator[Advance]:
    """Show how many frames are done: a bar on a terminal; elsewhere a line at the start and one every ten seconds.

    Args:
        label: What is done.
        announce: False: elsewhere no line at the start, for what mostly takes less than ten seconds.
    """
    console = err()
    if not console.is_terminal:
        if announce:
            console.print(label, soft_wrap=True, markup=False)
        yield _plain_progress(console, "" if announce else f"{label}: ")
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _plain_progress(console: Console, before: str) -> Advance:
    begun = last = time.monotonic()

    def advance(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_EVERY_SECONDS:
            last = now
            of = f" of {total}" if total else ""
            told = f"{before}{done}{of} frames, {done / (now - begun):.1f} frames/s"
            console.print(told, soft_wrap=True, markup=False)

    return advance


class _RateColumn(ProgressColumn):
    """A column with the frames per second."""

    def render(self, task: Task) -> Text:
        """The rate as text; empty until it is known."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.1f} frames/s" if rate else "", style="progress.data.speed")
