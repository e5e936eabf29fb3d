"""Commands and servers from other packages: found by their entry points, and imported when they are used.

`masklet_server` has the commands `serve`, `models` and `doctor`, and the embedded server. The client never imports it
by name, so that `masklet track --server` starts quickly, and works where only the client is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from masklet.cli.console import Command
from masklet.errors import Unavailable

COMMANDS = "masklet.commands"
EMBEDDED_SERVER = "masklet.embedded_server"
HOW_TO_INSTALL = "install the server: https://github.com/masklet/masklet/blob/main/docs/start/install.md#the-server"

# For the list of commands, which is shown without importing them.
_HELP = {
    "serve": "Start a server.",
    "models": "List, download and verify models.",
    "doctor": "Check whether a server can run on this machine.",
}


def add_commands(app: typer.Typer) -> None:
    """Add every command of the group to the app; its entry point names a `typer.Typer` or a function."""
    found = {entry.name: entry for entry in entry_points(group=COMMANDS)}
    for name in [*(n for n in _HELP if n in found), *sorted(found.keys() - _HELP.keys())]:
        _add_command(app, found[name])


def load(entry: EntryPoint, purpose: str) -> Any:
    """Import what an entry point names.

    Args:
        entry: The entry point.
        purpose: What needs it, for the error.

    Raises:
        Unavailable: One of its packages is not installed; the message says how to install them.
    """
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{purpose} needs the server's packages ({error.name} is missing); {HOW_TO_INSTALL}"
        ) from error


def embedded_server() -> Callable[..., Any]:
    """The class that runs a server inside this process.

    Raises:
        Unavailable: The server's packages are not installed.
    """
    purpose = "to work without --server HOST:PORT, masklet starts a server of its own, which"
    for entry in entry_points(group=EMBEDDED_SERVER, name="default"):
        loaded: Callable[..., Any] = load(entry, purpose)
        return loaded
    raise Unavailable(f"{purpose} is not installed; {HOW_TO_INSTALL}")


def _add_command(app: typer.Typer, entry: EntryPoint) -> None:
    # This command has no options of its own, and passes all arguments on.
    @app.command(
        entry.name,
        help=_HELP.get(entry.name, f"A command of {entry.value.partition('.')[0]}."),
        add_help_option=False,
        context_settings={
            "allow_extra_args": True,
            "ignore_unknown_options": True,
            "allow_interspersed_args": False,
            "help_option_names": [],
        },
    )
    def forward(context: typer.Context) -> None:
        target = load(entry, f"`masklet {entry.name}`")
        if not isinstance(target, typer.Typer):
            target = _app_of(target)
        typer.main.get_command(target).main(args=context.args, prog_name=f"masklet {entry.name}")


def _app_of(function: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command)(function)
    return app
