"""``masklet gateway``: one address before a list of servers."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import grpc
import typer

from masklet.errors import InvalidArgument, MaskletError
from masklet_cluster.gateway.options import DEFAULTS, SETTINGS, GatewayOptions
from masklet_cluster.gateway.running import running_gateway
from masklet_cluster.placement.placement import Placement
from masklet_cluster.placement.static import StaticPlacement
from masklet_cluster.placement.worker import Connection
from masklet_server import logs
from masklet_server.cli.flags import config_flags, given_settings, keyword, setting_flags
from masklet_server.cli.process import Signals, allow_many_descriptors, hide_memory
from masklet_server.settings import Settings
from masklet_server.settings.sources import load_settings

MIN_WORKER_TIMEOUT_SECONDS = 1.0


def gateway(config: Path | None, print_config: bool, **flags: Any) -> None:
    """Run a gateway: clients call it as they call a server, and it passes their calls on to servers.

    It has the settings of a server that are about calls, from the same places: flags, the environment (MASKLET_...),
    and the file of --config. By default it does not limit sessions: the servers do. Run each server with
    --trust-gateway, at an address that nobody but gateways can reach.
    """
    own = {name: flags.pop(name) for name in ("servers", "direct", "worker_ca", "worker_token_file", "worker_timeout")}
    try:
        loaded = load_settings(given_settings(flags), config=config, defaults=DEFAULTS)
        if print_config:
            typer.echo(loaded.to_toml(), nl=False)
            return
        settings = loaded.settings
        connection = worker_connection(settings, own["worker_ca"], own["worker_token_file"], own["worker_timeout"])
        options = gateway_options(settings, direct=own["direct"], worker_token_file=own["worker_token_file"])
        placement = StaticPlacement([one.strip() for one in own["servers"].split(",") if one.strip()], connection)
    except MaskletError as error:
        fail("gateway", error, code=2)
    run_gateway("gateway", settings, placement, options)


def worker_connection(settings: Settings, ca: Path | None, token_file: Path | None, timeout: float) -> Connection:
    """How a gateway talks to its workers.

    Raises:
        InvalidArgument: A file cannot be read, or the timeout is too short.
    """
    if timeout < MIN_WORKER_TIMEOUT_SECONDS:
        raise InvalidArgument.of(
            "worker_timeout", f"is {timeout:g}, must be seconds, {MIN_WORKER_TIMEOUT_SECONDS:g} or above"
        )
    credentials = None if ca is None else grpc.ssl_channel_credentials(_read("worker_ca", ca))
    token = _token(token_file)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return Connection(settings.max_message_bytes, credentials, metadata, timeout)


def gateway_options(settings: Settings, *, direct: bool, worker_token_file: Path | None) -> GatewayOptions:
    """What the gateway allows.

    Raises:
        InvalidArgument: The file of the token cannot be read.
    """
    return GatewayOptions(settings.idle_timeout_seconds, direct, _token(worker_token_file))


def run_gateway(
    name: str,
    settings: Settings,
    placement: Placement,
    options: GatewayOptions,
    on_hangup: Callable[[], object] | None = None,
    on_ready: Callable[[], object] | None = None,
) -> None:
    """Run a gateway until SIGTERM or Ctrl-C; errors end the process with a line of text.

    Args:
        name: The command, for errors.
        settings: The gateway's settings.
        placement: Chooses workers.
        options: The gateway's own.
        on_hangup: Called on a thread of its own for each SIGHUP.
        on_ready: Called when the gateway listens.
    """
    logs.configure(settings.log_level, as_json=settings.log_json)
    try:
        asyncio.run(_serve(settings, placement, options, on_hangup, on_ready))
    except MaskletError as error:
        fail(name, error, code=1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _serve(
    settings: Settings,
    placement: Placement,
    options: GatewayOptions,
    on_hangup: Callable[[], object] | None,
    on_ready: Callable[[], object] | None,
) -> None:
    hide_memory()
    allow_many_descriptors()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, on_hangup))
    async with running_gateway(settings, placement, options) as server:
        with Signals(stop, hurry=server.cancel_all):
            if on_ready is not None:
                on_ready()
            workers = placement.workers()
            serving = sum(one.state == "serving" for one in workers)
            typer.echo(f"masklet gateway listening on {server.address} ({serving} of {len(workers)} workers serve)")
            await stop.wait()
            typer.echo(f"stopping; running requests have {settings.grace_seconds:g} s to end", err=True)
            await server.stop()


def fail(name: str, error: MaskletError, *, code: int) -> NoReturn:
    """End the process because of an error.

    Args:
        name: The command.
        error: What is wrong.
        code: The exit status.
    """
    typer.echo(f"masklet {name}: {error}", err=True)
    raise typer.Exit(code)


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument.of(field, f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    words = _read("worker_token_file", path).decode(errors="replace").split()
    if not words:
        raise InvalidArgument.of("worker_token_file", f"{path} has no token; write one on its first line")
    return words[0]


_PANEL = "Workers"
WORKER_FLAGS = [
    keyword(
        "direct",
        Annotated[
            bool,
            typer.Option(
                "--direct",
                help="Tell clients where the workers are, so that they can go there themselves (Client(direct=True)).",
                rich_help_panel=_PANEL,
            ),
        ],
        False,
    ),
    keyword(
        "worker_timeout",
        Annotated[
            float,
            typer.Option(
                metavar="SECONDS",
                help="A worker that has not answered for so long is lost, and its streams go to others.",
                rich_help_panel=_PANEL,
            ),
        ],
        3.0,
    ),
]
_FLAGS = [
    keyword(
        "servers",
        Annotated[
            str,
            typer.Option(
                metavar="HOST:PORT,...",
                envvar="MASKLET_SERVERS",
                help="The servers, with commas between them.",
                rich_help_panel=_PANEL,
            ),
        ],
        inspect.Parameter.empty,
    ),
    *WORKER_FLAGS,
    keyword(
        "worker_ca",
        Annotated[
            Path | None,
            typer.Option(
                metavar="FILE", help="The servers have TLS: PEM file of their authority.", rich_help_panel=_PANEL
            ),
        ],
        None,
    ),
    keyword(
        "worker_token_file",
        Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                help="File with the gateway's own token at the servers. Default: the client's token is passed on.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
]
_parameters = [*_FLAGS, *config_flags(), *setting_flags(SETTINGS)]
gateway.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
gateway.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
