"""A bar that shows how far tracking has come: in notebooks and on terminals."""

from __future__ import annotations

import contextlib
import html
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Advance = Callable[[int, int], None]
"""Reports how many frames are done, and of how many; 0 where that is not known."""

_EVERY_SECONDS = 0.2  # notebooks send each change to the browser


def in_notebook() -> bool:
    """Whether this program runs in a notebook, whose outputs are HTML."""
    ipython = sys.modules.get("IPython")  # imported by every notebook; nobody else is made to import it
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextlib.contextmanager
def bar(description: str, wanted: bool | None = True) -> Iterator[Advance]:
    """Show a bar while the block runs.

    Args:
        description: What stands beside it.
        wanted: True: in a notebook and on a terminal; None: in a notebook alone; False: nowhere.
    """
    if wanted is not False and in_notebook():
        with _notebook_bar(description) as advance:
            yield advance
    elif wanted and sys.stderr.isatty():
        with _terminal_bar(description) as advance:
            yield advance
    else:
        yield lambda done, total: None


@contextlib.contextmanager
def _terminal_bar(description: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(description, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total or None)


@contextlib.contextmanager
def _notebook_bar(description: str) -> Iterator[Advance]:
    from IPython.display import HTML, display

    begun = shown = time.monotonic()
    last = (0, 0)
    handle: Any = display(HTML(bar_html(description, 0, 0, 0.0)), display_id=True)

    def show() -> None:
        handle.update(HTML(bar_html(description, *last, time.monotonic() - begun)))

    def advance(done: int, total: int) -> None:
        nonlocal last, shown
        last = (done, total)
        if time.monotonic() - shown >= _EVERY_SECONDS:
            shown = time.monotonic()
            show()

    try:
        yield advance
    finally:
        show()


def bar_html(description: str, done: int, total: int, seconds: float) -> str:
    """A bar as HTML.

    Args:
        description: What stands beside it; need not be escaped.
        done: Frames so far.
        total: All frames; 0: not known.
        seconds: Time so far.
    """
    rate = f", {done / seconds:.1f} frames/s" if done and seconds > 0 else ""
    of = f" of {total}" if total else ""
    # The header of a video can be wrong, and the bar is full in any case when more frames came.
    value = f' value="{min(done, total)}" max="{total}"' if total else ""
    return f"<div>{html.escape(description)} <progress{value}></progress> {done}{of} frames{rate}</div>"
