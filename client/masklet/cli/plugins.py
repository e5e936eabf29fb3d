"""Commands and servers from other packages: found by their entry points, and imported when they are used.

`masklet_server` has the commands `serve`, `models` and `doctor`, and the embedded server; `masklet_cluster` and
`masklet_studio` have theirs. The client never imports them by name, so that `masklet track --server` starts quickly,
and works where only the client is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from masklet import _embedded
from masklet._embedded import load
from masklet.cli.console import Command

COMMANDS = "masklet.commands"

# For the list of commands, which is shown without importing them.
_HELP = {
    "serve": "Start a server.",
    "gateway": "Start a gateway: one address before several servers.",
    "cluster": "Run many workers behind one address, on Ray.",
    "models": "List, download and verify models.",
    "doctor": "Check whether a server can run on this machine.",
    "studio": "Click objects in a browser, track them, correct, and export.",
}


def add_commands(app: typer.Typer) -> None:
    """Add every command of the group to the app; its entry point names a `typer.Typer` or a function."""
    found = {entry.name: entry for entry in entry_points(group=COMMANDS)}
    for name in [*(n for n in _HELP if n in found), *sorted(found.keys() - _HELP.keys())]:
        _add_command(app, found[name])


def embedded_server() -> Callable[..., Any]:
    """The class that runs a server inside this process, for a command without --server.

    Raises:
        Unavailable: The server's packages are not installed.
    """
    return _embedded.embedded_server("to work without --server HOST:PORT, masklet starts a server of its own, which")


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
        for one in target.registered_commands:
            one.cls = Command
        names = ["-h", "--help"]  # as the commands of the client have them
        command = typer.main.get_command(target)
        command.main(args=context.args, prog_name=f"masklet {entry.name}", help_option_names=names)


def _app_of(function: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    return app
