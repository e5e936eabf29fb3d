"""`masklet label-studio`: a backend that tracks boxes for Label Studio."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

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
from masklet.errors import InvalidArgument, Unavailable

CREDENTIALS_VARIABLE = "MASKLET_LABEL_STUDIO_AUTH"
_PANEL = "Label Studio"


def label_studio(
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Where requests are answered.")] = 9090,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="The address to listen on; 0.0.0.0: all of this machine.")
    ] = "127.0.0.1",
    address: Annotated[
        str,
        typer.Option(
            "--label-studio",
            metavar="URL",
            help="Label Studio's address. Videos that were uploaded there are fetched from it.",
            rich_help_panel=_PANEL,
        ),
    ] = "http://127.0.0.1:8080",
    api_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token of Label Studio's API. Default: the token in LABEL_STUDIO_API_KEY, if any.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder of Label Studio's local files, so that its videos are read from there.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Also fetch videos from here; may be repeated.", rich_help_panel=_PANEL),
    ] = None,
    max_frames: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Track so many frames after the last box. 0: to the end of the video. Label Studio waits 100 seconds "
            "for an answer.",
            rich_help_panel=_PANEL,
        ),
    ] = 0,
    model: ModelOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Track the video boxes that people draw in Label Studio.

    masklet label-studio --port 9090 --server gpu-machine:50051

    Then add http://127.0.0.1:9090 as a model in the project's settings, and turn on interactive preannotations.

    If MASKLET_LABEL_STUDIO_AUTH is set to USER:PASSWORD, requests must have these (basic authentication).
    """
    if files is not None and not files.is_dir():
        raise typer.BadParameter(f"the folder {files} does not exist", param_hint="--files")
    credentials = os.environ.get(CREDENTIALS_VARIABLE, "")
    if credentials and ":" not in credentials:
        raise InvalidArgument.of(CREDENTIALS_VARIABLE, "must be USER:PASSWORD")
    try:
        import uvicorn

        from masklet.integrations.label_studio.app import application
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"masklet label-studio needs packages that are not installed ({error.name}): "
            "pip install 'masklet[label-studio]'"
        ) from error
    from masklet.integrations.label_studio.prediction import Predictor
    from masklet.integrations.label_studio.videos import Videos

    token = os.environ.get("LABEL_STUDIO_API_KEY", "") if api_token_file is None else read_token(api_token_file)
    videos = Videos(address, token, files, tuple(allow_host or ()))
    with _listen(host, port) as listening, Access(server, token_file, ca, cert, key, insecure).connect(model) as client:
        predictor = Predictor(client, videos, model=model or "", max_frames=max_frames)
        client.info()  # a wrong address is told now, not at the first request
        where = f"http://{host}:{listening.getsockname()[1]}"
        typer.echo(f"masklet label-studio: {where}  (Ctrl-C ends it)")
        config = uvicorn.Config(
            application(predictor, credentials=credentials),
            # uvloop, which uvicorn takes where it is installed, starts processes by fork(). gRPC's threads do
            # not survive that: the process dies.
            loop="asyncio",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
            proxy_headers=False,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # requests wait from now on, until the application is there
    except OSError as error:
        listening.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}; give another --port") from error
    return listening
