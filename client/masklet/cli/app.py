"""The `masklet` command: its subcommands, and what it says and returns when one fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import masklet
from masklet.cli import plugins
from masklet.cli.bench import bench
from masklet.cli.console import fail
from masklet.cli.info import info
from masklet.cli.segment import segment
from masklet.cli.track import track

INTERRUPTED = 130

app = typer.Typer(
    name="masklet",
    help="Follow objects through video with SAM 2: a click in, a mask per object per frame out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"masklet {masklet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of `masklet` itself, all of which act by themselves."""


app.command()(track)
app.command()(segment)
app.command()(info)
app.command()(bench)
plugins.add_commands(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, by default the process's own, and leave the process.

    Exits with 0, with 1 after a failure (one line on stderr says what and why), with 2 where the command line itself
    is wrong, and with 130 after Ctrl-C.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # what a person needs to know is in the exceptions
    try:
        app(args=arguments, prog_name="masklet")
    except masklet.MaskletError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
