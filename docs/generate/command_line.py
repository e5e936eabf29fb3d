"""The page of the command line, from the commands' own help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import typer

from docs.generate.markdown import page, table
from masklet.cli.app import app

INTRODUCTION = """
Every command prints this text with `--help`. Options that take a prompt may be repeated.

The exit status is 0 on success, 1 on a failure (one line on stderr names the cause), 2 where the command line itself is
wrong, 130 after Ctrl-C, and 143 after SIGTERM.
"""


def commands() -> dict[str, Any]:
    """Every command by its full name, such as "masklet models list", in the order of the help."""
    return dict(_commands("masklet", typer.main.get_command(app)))


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child_name, child in _children_of(name, command).items():
        yield from _commands(f"{name} {child_name}", child)


def _children_of(name: str, command: Any) -> dict[str, Any]:
    """The subcommands. Those of other packages are found by entry point; what the app lists only hands on to them."""
    children: dict[str, Any] = dict(getattr(command, "commands", {}))
    if name == "masklet":
        for entry in entry_points(group="masklet.commands"):
            children[entry.name] = _loaded(entry.load())
    return children


def _loaded(target: Any) -> Any:
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False)
        target.command()(function)
    return typer.main.get_command(target)


def options(command: Any) -> set[str]:
    """Every spelling of the command's options, such as "--model" and "--no-insecure"."""
    spellings = {"--help"}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            spellings |= {*parameter.opts, *parameter.secondary_opts}
    return spellings


def render() -> str:
    """The page."""
    sections = [_section(name, command) for name, command in commands().items()]
    return page("Command line", "the commands' help", INTRODUCTION, *sections)


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    children = list(_children(name, command))
    taken = ["COMMAND ..."] if children else [p.metavar or p.name.upper() for p in arguments]
    parts = [f"## {name}", _help(command), f"```text\n{' '.join([name, '[OPTIONS]', *taken])}\n```"]
    if children:
        parts.append(table(("command", "what it does"), children))
    if arguments:
        parts.append(table(("argument", "meaning"), [(f"`{p.metavar}`", _text(p.help or "")) for p in arguments]))
    for panel, parameters in _panels(command).items():
        rows = [(_spelling(parameter), _meaning(parameter)) for parameter in parameters]
        parts += [f"**{panel}**", table(("option", "meaning"), rows)]
    return "\n\n".join(parts)


def _children(name: str, command: Any) -> Iterator[tuple[str, str]]:
    for child_name, child in _children_of(name, command).items():
        anchor = f"{name} {child_name}".replace(" ", "-")
        yield f"[`{name} {child_name}`](#{anchor})", _text((child.help or "").split("\n\n")[0])


def _panels(command: Any) -> dict[str, list[Any]]:
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden and parameter.name != "help":
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(parameter)
    return panels


def _spelling(parameter: Any) -> str:
    names = " / ".join([*parameter.opts, *parameter.secondary_opts])
    return f"`{names}`" if parameter.is_flag else f"`{names} {parameter.metavar or ''}`".replace(" `", "`")


def _meaning(parameter: Any) -> str:
    text = _text(parameter.help or "")
    default = parameter.default
    if parameter.show_default and isinstance(default, (str, int, float)) and not isinstance(default, bool):
        return f"{text} Default: `{default}`."
    return text


def _help(command: Any) -> str:
    """The help as Markdown: lines that begin with a command become code."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    shown = [f"```text\n{text}\n```" if text.startswith("masklet ") else _text(text) for text in paragraphs]
    return "\n\n".join(shown)


def _text(text: str) -> str:
    """Help as Markdown; words between angle brackets or in capitals stay as they are."""
    return re.sub(r"<", "&lt;", " ".join(text.split())).replace("*", "\\*")
