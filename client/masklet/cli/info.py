"""`masklet info`: what a running server is and allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from masklet.cli.console import out
from masklet.cli.server import (
    DEFAULT_ADDRESS,
    Access,
    CaOption,
    CertOption,
    InsecureOption,
    KeyOption,
    RunningServerOption,
    TokenFileOption,
)

if TYPE_CHECKING:
    from masklet import ServerInfo


def info(
    server: RunningServerOption = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Show the models, device, versions and limits of a running server."""
    with Access(server, token_file, ca, cert, key, insecure).connect() as client:
        _print(server, client.info())


def _print(address: str, server: ServerInfo) -> None:
    console = out()
    versions = ", ".join(f"{name} {version}" for name, version in sorted(server.versions.items()))
    console.print(f"masklet {server.server_version} at {address}", markup=False)
    console.print(f"device   {server.device} ({server.device_name})", markup=False)
    console.print(f"versions {versions}", markup=False)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("model", "state", "input", "weights", "description"):
        table.add_column(heading)
    for model in server.models:
        state = (f"loaded, {model.dtype}" if model.loaded else "not loaded") + (", default" if model.default else "")
        weights = f"{model.parameter_count / 1e6:.1f} M" if model.parameter_count else ""
        table.add_row(model.name, state, str(model.image_size or ""), weights, model.description)
    console.print(table)
    for name, limit in vars(server.limits).items():
        console.print(f"{name:<24} {f'{limit:,}' if limit else 'no limit'}", markup=False)
    console.print(f"{'containers':<24} {' '.join(server.containers)}", markup=False, soft_wrap=True)
    console.print(f"{'codecs':<24} {' '.join(server.codecs)}", markup=False, soft_wrap=True)
