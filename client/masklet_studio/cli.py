"""`masklet studio`: the page to click, watch, correct and export, and what it needs."""

from __future__ import annotations

import contextlib
import os
import secrets
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import masklet
from masklet.cli import plugins
from masklet.cli.server import (
    Access,
    CaOption,
    CertOption,
    InsecureOption,
    KeyOption,
    ModelOption,
    ServerOption,
    TokenFileOption,
    read_token,
)
from masklet.errors import Unavailable
from masklet_studio.server_link import ServerLink

CONNECT_SECONDS = 5.0
HOLD_SECONDS = 4.0
"""How long a server in this process waits for the first picture of the page, before it loads its model."""
_PANEL = "Page"


def studio(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VIDEO|FOLDER|CAMERA]...",
            help="Videos, folders of videos, folders of pictures; or cameras: /dev/video0, or the address of a stream "
            "such as rtsp://camera/stream.",
        ),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of the project. Default: one of your own, always the same."),
    ] = None,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the page is served.", rich_help_panel=_PANEL)
    ] = "127.0.0.1:8080",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the page's address, and open nothing.", rich_help_panel=_PANEL)
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="What a browser must know. Default: none on this machine, a new one where other machines can reach "
            "the page.",
            envvar="MASKLET_STUDIO_TOKEN",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    max_upload_gib: Annotated[
        float,
        typer.Option(metavar="GIB", help="The largest video that may be uploaded; 0: none.", rich_help_panel=_PANEL),
    ] = 16.0,
    any_source: Annotated[
        bool | None,
        typer.Option(
            "--any-source/--named-sources",
            help="Whether the page may open any camera of this machine and any address, or only those named here. "
            "Default: any, but only those named here where other machines can reach the page.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    max_recording_gib: Annotated[
        float,
        typer.Option(metavar="GIB", help="The most that one recording of a camera may take.", rich_help_panel=_PANEL),
    ] = 10.0,
    model: ModelOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Click objects in a browser, track them, correct, and export.

    masklet studio clip.mp4

    masklet studio videos/ --project work --server gpu-machine:50051

    masklet studio rtsp://camera/stream
    """
    try:
        from masklet_studio import app, guard, serving
        from masklet_studio import studio as studios
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"masklet studio needs packages that are not installed ({error.name}): pip install 'masklet[studio]'"
        ) from error
    from masklet._media.capture.source import is_live
    from masklet_studio.live.camera import source_of
    from masklet_studio.live.lives import LiveRules
    from masklet_studio.project.project import videos_in

    cameras = [name for name in videos or () if is_live(name)]
    for name in cameras:
        source_of(name)  # what cannot be opened at all is told before the page is there
    found = [one for name in videos or () if name not in cameras for one in videos_in(Path(name))]
    with contextlib.closing(serving.listen(address)) as listening:
        host = address.rpartition(":")[0].strip("[]")
        secret = token or ("" if guard.is_loopback(host) else secrets.token_urlsafe(24))
        link, where = _server(Access(server, token_file, ca, cert, key, insecure), model)
        any_source = guard.is_loopback(host) if any_source is None else any_source
        live = LiveRules(tuple(cameras), any_source, round(max_recording_gib * 2**30))
        settings = studios.Settings(model or "", round(max_upload_gib * 2**30), server=where, live=live)
        opened = studios.studio_of(project or default_project(), found, link, settings)
        url = serving.url_of(listening, secret)
        serving.serve(app.application(opened, guard.Access(host, secret)), listening, _opener(url, no_browser))


def default_project() -> Path:
    """The project of those who name none."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "masklet" / "studio"


def _opener(url: str, no_browser: bool) -> Callable[[], None]:
    def started() -> None:
        typer.echo(f"masklet studio: {url}  (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(url)

    return started


def _server(access: Access, model: str | None) -> tuple[ServerLink, str]:
    """The server to use, which is started in this process if no address was given; and what it is, for people."""
    token = None if access.token_file is None else read_token(access.token_file)
    stack = contextlib.ExitStack()
    # What cannot work is told before the page is there.
    embedded = plugins.embedded_server()(model) if access.server is None else contextlib.nullcontext(access.server)

    def start() -> masklet.AsyncClient:
        return masklet.AsyncClient(
            stack.enter_context(embedded),
            token=token,
            root_certificates=access.ca,
            client_certificate=access.cert,
            client_key=access.key,
            secure=False if access.insecure else None,
            connect_timeout=CONNECT_SECONDS,
        )

    hold = HOLD_SECONDS if access.server is None else 0.0
    return ServerLink(start, stack.close, hold_seconds=hold), access.server or "a server in this process"
