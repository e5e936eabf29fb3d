"""`python -m masklet_studio`: the same as `masklet studio`."""

import typer

from masklet.cli.console import Command
from masklet_studio.cli import studio

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command(cls=Command)(studio)

if __name__ == "__main__":
    app(prog_name="masklet studio")
