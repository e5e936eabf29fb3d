"""The `masklet` program: its commands, and what it prints and returns when one of them fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import masklet
from masklet.cli import plugins
from masklet.cli.batch.command import batch
from masklet.cli.bench import bench
from masklet.cli.console import Command, Group, fail, told
from masklet.cli.export import export
from masklet.cli.info import info
from masklet.cli.segment import segment
from masklet.cli.serving.label_studio import label_studio
from masklet.cli.track import track

INTERRUPTED = 130

app = typer.Typer(
    name="masklet",
    cls=Group,
    help="Track objects through video with SAM 2: give a click, get a mask for every frame.",
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
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The options of `masklet` itself; each of them acts on its own."""


for command in (track, batch, segment, export, info, bench):
    app.command(cls=Command)(command)
app.command("label-studio", cls=Command)(label_studio)
plugins.add_commands(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, and end the process.

    The exit status is 0 after success, 1 after a failure (one line on stderr says what failed and why), 2 where the
    command line itself is wrong, 130 after Ctrl-C, and 143 after SIGTERM.

    Args:
        arguments: The words of the command line; None: those of this process.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # the exceptions say all that a person needs to know
    try:
        app(args=arguments, prog_name="masklet")
    except masklet.MaskletError as error:
        fail(str(error))
    except BrokenPipeError:  # whoever read the results wants no more of them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(told(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
