"""What commands say and do when the connection to the server is lost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from masklet._urls import without_secrets
from masklet.cli.console import err, warn

if TYPE_CHECKING:
    from masklet import ResumeEvent, TrackOptions

ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="When the connection to the server is lost, connect again and go on where it was.",
        rich_help_panel="Server",
    ),
]


def resume_options(resume: bool) -> TrackOptions:
    """The options of a call that goes on after a break, and prints that it does.

    Args:
        resume: The value of `ResumeOption`.
    """
    logging.getLogger("masklet").addHandler(logging.NullHandler())  # what is printed need not be logged on stderr, too
    return {"resume": resume, "on_resume": _tell}


def _tell(event: ResumeEvent) -> None:
    if event.kind == "lost":
        warn(event.message)
    else:
        err().print(without_secrets(event.message), markup=False, soft_wrap=True)
