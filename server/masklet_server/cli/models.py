"""``masklet models``: list models, download their weights, and check them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from masklet.cli.console import Command, Group
from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, NotFound
from masklet_server.models import download as downloads
from masklet_server.models.paths import cache_folder
from masklet_server.models.registry import ModelSpec, Registry
from masklet_server.models.sizes import ALLOWED_SIZES

if TYPE_CHECKING:
    from masklet_server.models.transfer import ProgressCallback

_PIPE_WIDTH = 200

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="List models, download their weights, and check them.",
    add_completion=False,
)

_Names = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="Names from `masklet models list`, or hub:OWNER/REPO for a repository of the Hugging Face hub. "
        "All sizes of a model (NAME@SIZE) have the same weights.",
    ),
]
_AnyNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODEL", help="Names from `masklet models list`. Default: all models on this machine."),
]


@app.command("list", cls=Command)
def list_models() -> None:
    """Show the models that masklet knows, the size of their files, and which are on this machine."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "SIZE", "STATE", "WHERE", "INPUT"):
        table.add_column(column, no_wrap=True)
    table.add_column("DESCRIPTION")
    registry = Registry.load()
    for spec in registry:
        size = decimal(spec.bytes) if spec.bytes else "unknown"
        table.add_row(spec.name, size, _state(spec), _where(spec), str(spec.image_size), escape(spec.description))
    console = _console()
    console.print(table)
    console.print("\nDownload a model: masklet models download NAME", highlight=False)
    console.print(
        f"Downloads are kept in {cache_folder()}; MASKLET_CACHE names another folder.", highlight=False, soft_wrap=True
    )
    console.print(
        "INPUT is the side of the square that a model sees, in pixels. NAME@SIZE is the same model with another side, "
        f"such as sam2.1-tiny@512: {ALLOWED_SIZES}. It takes about a sixth of sam2.1-tiny's processor time; "
        "smaller sizes lose small things and fine edges. docs/start/which-model.md has figures.",
        highlight=False,
        soft_wrap=True,
    )
    unknown = [spec.name for spec in registry if not spec.sha256]
    if unknown:
        console.print(
            f"No checksum is known for {', '.join(unknown)}: only the length of their downloads is checked.",
            highlight=False,
        )


@app.command(cls=Command)
def download(names: _Names) -> None:
    """Download the weights of models and check them. A download that broke off is continued."""
    for spec in _resolve(names):
        with _failing():
            _download(spec)


@app.command(cls=Command)
def verify(names: _AnyNames = None) -> None:
    """Compare the weights on this machine with their known checksums. Exits with 1 if a file is wrong or missing."""
    specs = _resolve(names) if names else [spec for spec in Registry.load() if _is_here(spec)]
    outcomes = [_verify(spec) for spec in specs]  # all of them, not up to the first failure
    if not all(outcomes):
        raise typer.Exit(1)


def _verify(spec: ModelSpec) -> bool:
    try:
        known = downloads.verify(spec)
    except MaskletError as error:
        typer.echo(f"{spec.name}: {error}", err=True)
        return False
    typer.echo(f"{spec.name}: {'ok' if known else 'is here, but cannot be verified: no checksum is known for it'}")
    return True


def _download(spec: ModelSpec) -> None:
    if not spec.is_downloadable:
        typer.echo(f"{spec.name}: {'ships with masklet' if spec.ships else 'is your own'}, nothing to download")
        return
    was_here = _is_here(spec)
    with _progress(spec) as progress:
        path = downloads.download(spec, progress=progress)
    if was_here:
        typer.echo(f"{spec.name}: is here already: {path}")
    elif spec.sha256:
        typer.echo(f"{spec.name}: downloaded and verified: {path}")
    else:
        typer.echo(f"{spec.name}: downloaded: {path} (no checksum is known for it: only its length was checked)")


@contextlib.contextmanager
def _progress(spec: ModelSpec) -> Iterator[ProgressCallback | None]:
    """A progress bar where stderr is a terminal; elsewhere nothing, because the caller prints a line at the end."""
    console = Console(stderr=True)
    if not console.is_terminal or spec.is_hub_repository:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(spec.name, total=spec.bytes or None)
        yield lambda done, total: bars.update(task, completed=done, total=total or None)


def _resolve(names: list[str]) -> list[ModelSpec]:
    registry = Registry.load()
    try:
        return [registry.resolve(name) for name in names]
    except (InvalidArgument, NotFound) as error:
        _fail(error, code=2)


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except MaskletError as error:
        _fail(error, code=1)


def _fail(error: MaskletError, *, code: int) -> NoReturn:
    typer.echo(f"masklet models: {error}", err=True)
    raise typer.Exit(code) from error


def _state(spec: ModelSpec) -> str:
    if spec.ships:
        return "ready" if _is_here(spec) else "missing"
    return "ready" if _is_here(spec) else "not downloaded"


def _where(spec: ModelSpec) -> str:
    if spec.ships:
        return "ships with masklet"
    return "downloaded" if _is_here(spec) else urlsplit(downloads.sources(spec)[0]).netloc


def _is_here(spec: ModelSpec) -> bool:
    try:
        return spec.checkpoint_path().is_file()
    except FailedPrecondition:  # a repository of the hub that was not downloaded
        return False


def _console() -> Console:
    console = Console()
    if not console.is_terminal:  # a pipe has no width, and 80 columns would wrap the lines of the table
        console = Console(width=_PIPE_WIDTH)
    return console
