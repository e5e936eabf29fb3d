"""``masklet models``: which models there are, and getting and checking their weights."""

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

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, NotFound
from masklet_server.models import download as downloads
from masklet_server.models.paths import cache_folder
from masklet_server.models.registry import ModelSpec, Registry

if TYPE_CHECKING:
    from masklet_server.models._transfer import ProgressCallback

_PIPE_WIDTH = 200

app = typer.Typer(no_args_is_help=True, help="Which models there are; get and check their weights.")

_Names = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Names from `masklet models list`, or hub:OWNER/REPO.")
]
_AnyNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="Names from `masklet models list`; all that are here if none is given."),
]


@app.command("list")
def list_models() -> None:
    """Show the models masklet knows, their size, and which are on this machine."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "SIZE", "STATE", "WHERE"):
        table.add_column(column, no_wrap=True)
    table.add_column("DESCRIPTION")
    registry = Registry.load()
    for spec in registry:
        size = decimal(spec.bytes) if spec.bytes else "unknown"
        table.add_row(spec.name, size, _state(spec), _where(spec), escape(spec.description))
    console = _console()
    console.print(table)
    console.print(f"\nDownloads are kept in {cache_folder()} (MASKLET_CACHE).", highlight=False, soft_wrap=True)
    unknown = [spec.name for spec in registry if not spec.sha256]
    if unknown:
        console.print(
            f"No checksum is known for {', '.join(unknown)}: their downloads are checked for their length alone.",
            highlight=False,
        )


@app.command()
def download(names: _Names) -> None:
    """Fetch models' weights; goes on where an earlier download broke off, and checks the whole."""
    for spec in _resolve(names):
        with _failing():
            _download(spec)


@app.command()
def verify(names: _AnyNames = None) -> None:
    """Compare the checksums of models' weights on this machine."""
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
    typer.echo(f"{spec.name}: {'ok' if known else 'is here, but no checksum is known to hold it against'}")
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
    """A bar where stderr is a terminal; the caller's closing line is enough elsewhere."""
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
        return "ships" if _is_here(spec) else "missing"
    return "downloaded" if _is_here(spec) else "not downloaded"


def _where(spec: ModelSpec) -> str:
    if spec.ships:
        return "with masklet"
    return "cache" if _is_here(spec) else urlsplit(downloads.sources(spec)[0]).netloc


def _is_here(spec: ModelSpec) -> bool:
    try:
        return spec.checkpoint_path().is_file()
    except FailedPrecondition:  # a repository of the hub that was not fetched
        return False


def _console() -> Console:
    console = Console()
    if not console.is_terminal:  # a pipe has no width; 80 columns would fold the addresses
        console = Console(width=_PIPE_WIDTH)
    return console
