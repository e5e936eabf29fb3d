"""Commands and servers that come from other packages, found by entry point and imported when they are used.

`masklet_server` brings `serve`, `models`, `doctor` and the embedded server; the client never imports it by name, so
that `masklet track --server` starts quickly and works where only the client is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from masklet.errors import Unavailable

COMMANDS = "masklet.commands"
EMBEDDED_SERVER = "masklet.embedded_server"

# For the list of commands, which must not import what it lists.
_HELP = {
    "serve": "Start a server.",
    "models": "List, download and verify models.",
    "doctor": "Say what works on this machine, and what to do about the rest.",
}


def add_commands(app: typer.Typer) -> None:
    """Give the app every command of the group: an entry point that names a `typer.Typer` or a plain function."""
    found = {entry.name: entry for entry in entry_points(group=COMMANDS)}
    for name in [*(n for n in _HELP if n in found), *sorted(found.keys() - _HELP.keys())]:
        _add_command(app, found[name])


def load(entry: EntryPoint, purpose: str) -> Any:
    """Import what an entry point names.

    Raises:
        Unavailable: One of its packages is not installed; the message says how to install them.
    """
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{purpose} needs the server's packages ({error.name} is missing): pip install 'masklet[server]'"
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
    raise Unavailable(f"{purpose} is not installed: pip install 'masklet[server]'")


def _add_command(app: typer.Typer, entry: EntryPoint) -> None:
    # A command without options of its own, which hands all its arguments on.
    @app.command(
        entry.name,
        help=_HELP.get(entry.name, f"Brought by {entry.value.partition('.')[0]}."),
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
    app.command()(function)
    return app
