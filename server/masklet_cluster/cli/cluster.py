"""``masklet cluster up | status | scale | down``: workers that Ray places, and a gateway before them."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from masklet.cli.console import Group
from masklet.cli.info import print_workers
from masklet.cli.server import Access, CaOption, TokenFileOption
from masklet.errors import InvalidArgument, MaskletError
from masklet_cluster.cli.gateway import WORKER_FLAGS, fail, gateway_options, run_gateway
from masklet_cluster.cli.gateway import worker_connection as connection_to_workers
from masklet_cluster.cli.ray import connected_ray
from masklet_cluster.cli.state import ClusterState
from masklet_cluster.gateway.options import DEFAULTS, SETTINGS
from masklet_server.cli.flags import config_flags, given_settings, keyword, setting_flags
from masklet_server.rpc.listening import check_free
from masklet_server.settings import Settings, checked
from masklet_server.settings.sources import LoadedSettings, load_settings

# What the gateway has and workers do not: they are at other addresses, and behind it.
_OF_THE_EDGE = (
    "address",
    "metrics_address",
    "health_address",
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "token_file",
    "insecure",
    "trust_gateway",
)
_OWN = (
    "name",
    "workers",
    "max_workers",
    "streams_per_worker",
    "gpus",
    "ray",
    "trust_network",
    "direct",
    "worker_timeout",
)
_PANEL = "Cluster"

logger = logging.getLogger(__name__)

app = typer.Typer(
    cls=Group, help="Run many workers behind one address, on Ray.", no_args_is_help=True, add_completion=False
)


def up(config: Path | None, print_config: bool, **flags: Any) -> None:
    """Start workers and a gateway, on this machine or on a Ray cluster; runs until SIGTERM, Ctrl-C or `cluster down`.

    All settings of a server are flags here, too. Those about calls, TLS and tokens are the gateway's; all others are
    each worker's. Without --ray, a Ray that only this machine can reach is started, and ends with this command.
    """
    own = {name: flags.pop(name) for name in _OWN}
    try:
        loaded = load_settings(given_settings(flags), config=config)
        if print_config:
            typer.echo(loaded.to_toml(), nl=False)
            return
        settings, ray = _gateway_settings(loaded), own["ray"]
        _check(own, settings)
        with ClusterState.held(own["name"], settings.address, ray, own["workers"]) as state:
            check_free(settings.address)  # before workers take a minute to start
            with connected_ray(ray):
                _run(own, loaded, settings, state)
    except MaskletError as error:
        fail("cluster up", error, code=2 if isinstance(error, InvalidArgument) else 1)


def _check(own: Mapping[str, Any], settings: Settings) -> None:
    if settings.address.startswith("unix"):
        raise InvalidArgument.of("address", "is a Unix socket; a cluster's gateway listens on HOST:PORT")
    if own["ray"] and not own["trust_network"]:
        raise InvalidArgument.of(
            "trust_network",
            "is missing: workers on other machines listen without TLS, and believe whoever calls; give --trust-network "
            "if only gateways (with --direct: only your clients) can reach the workers",
        )
    if own["max_workers"] and own["max_workers"] < own["workers"]:
        raise InvalidArgument.of("max_workers", f"is {own['max_workers']}, must be workers = {own['workers']} or above")


def _gateway_settings(loaded: LoadedSettings) -> Settings:
    values = {name: getattr(loaded.settings, name) for name in SETTINGS}
    return checked({**values, **{name: DEFAULTS[name] for name in DEFAULTS if loaded.origins[name] == "default"}})


def _worker_settings(loaded: LoadedSettings, *, on_this_machine: bool) -> dict[str, Any]:
    """The settings of each worker, by name; only those that somebody has given."""
    given = {
        name: getattr(loaded.settings, name)
        for name, origin in loaded.origins.items()
        if origin != "default" and name not in _OF_THE_EDGE
    }
    where = {"address": "127.0.0.1:0"} if on_this_machine else {"address": "node:0", "insecure": True}
    return {**given, **where, "trust_gateway": True}


def _run(own: Mapping[str, Any], loaded: LoadedSettings, settings: Settings, state: ClusterState) -> None:
    from masklet_cluster.placement.ray import RayPlacement
    from masklet_cluster.worker.deployment import DEPLOYMENT, WorkerOptions, deploy

    most = own["max_workers"] or own["workers"]
    options = WorkerOptions(
        workers=own["workers"],
        max_workers=own["max_workers"],
        streams_per_worker=own["streams_per_worker"],
        gpus=1.0 if own["gpus"] else 0.0,
        cpus=1.0 if own["ray"] else round(max(os.cpu_count() or 1, 2) / most, 2),
        grace_seconds=settings.grace_seconds,
        settings=_worker_settings(loaded, on_this_machine=not own["ray"]),
    )
    typer.echo(f"starting workers: {options.workers} ...", err=True)
    streams = loaded.settings.max_sessions or 1000
    state.max_workers = options.max_workers
    deploy(own["name"], options, streams)
    one_at_a_time = threading.Lock()

    def scale() -> None:
        with one_at_a_time:
            told = ClusterState.running(own["name"])
            if told is None or options.max_workers:
                return
            try:
                deploy(own["name"], replace(options, workers=told.workers), streams)
            except Exception:  # on a thread that nobody waits for
                logger.exception("the cluster could not change to %d workers", told.workers)

    connection = connection_to_workers(settings, None, None, own["worker_timeout"])
    placement = RayPlacement(own["name"], DEPLOYMENT, connection)
    gateway = gateway_options(settings, direct=own["direct"], worker_token_file=None)
    run_gateway("cluster up", settings, placement, gateway, scale, state.are_up)


NameOption = Annotated[str, typer.Option(metavar="NAME", help="The cluster's name.")]


@app.command()
def status(
    name: NameOption = "masklet",
    token_file: TokenFileOption = None,
    ca: CaOption = None,
) -> None:
    """Tell whether a cluster of this user runs on this machine, and what its workers do."""
    state = _running(name)
    typer.echo(f"cluster {name} at {state.address}, process {state.pid}: {state.phase}")
    if state.phase == "up":
        with Access(state.address, token_file, ca).connect() as client:
            print_workers(client.info())


@app.command()
def scale(
    workers: Annotated[int, typer.Argument(metavar="WORKERS", min=1, help="How many workers the cluster has then.")],
    name: NameOption = "masklet",
) -> None:
    """Start or stop workers of a cluster that runs; the streams of a worker that stops move to others."""
    state = _running(name)
    if state.phase != "up":
        typer.echo(f"cluster {name} is still starting; try again when `masklet cluster status` says up")
        raise typer.Exit(1)
    if state.max_workers:
        typer.echo(f"cluster {name} has --max-workers {state.max_workers}: it changes the number of workers itself")
        raise typer.Exit(1)
    state.scale(workers)
    noun = "worker" if workers == 1 else "workers"
    typer.echo(f"cluster {name} changes to {workers} {noun}; `masklet cluster status` shows them")


@app.command()
def down(
    name: NameOption = "masklet",
    ray: Annotated[str, typer.Option(metavar="ADDRESS", help="Also take the workers off this Ray cluster.")] = "",
) -> None:
    """Stop a cluster that `masklet cluster up` has started on this machine; its streams have --grace seconds to end."""
    state = ClusterState.running(name)
    if state is not None:
        state.stop()
        typer.echo(f"cluster {name} is down")
    if ray:
        _delete(name, ray)
    elif state is None:
        raise _no_cluster(name)


def _running(name: str) -> ClusterState:
    state = ClusterState.running(name)
    if state is None:
        raise _no_cluster(name)
    return state


def _no_cluster(name: str) -> typer.Exit:
    """Say that there is no such cluster, and how one is started; returns the exit."""
    option = "" if name == "masklet" else f" --name {name}"
    typer.echo(
        f"no cluster {name!r} of this user runs on this machine; start it with `masklet cluster up{option}`", err=True
    )
    return typer.Exit(1)


def _delete(name: str, address: str) -> None:
    try:
        with connected_ray(address):
            from ray import serve

            serve.delete(name)
    except MaskletError as error:
        fail("cluster down", error, code=1)
    typer.echo(f"the workers of {name} are taken off {address}")


def _option(kind: Any, text: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(help=text, rich_help_panel=_PANEL, **more)]


_FLAGS = [
    keyword("workers", _option(int, "Workers to start.", metavar="N", min=1), 1),
    keyword(
        "max_workers",
        _option(int, "With many streams, start up to so many workers. 0: only --workers.", metavar="N", min=0),
        0,
    ),
    keyword(
        "streams_per_worker",
        _option(float, "With --max-workers: start one more when each has more streams than this.", metavar="N"),
        8.0,
    ),
    keyword("gpus", _option(bool, "Give each worker a GPU of its own."), False),
    keyword("ray", _option(str, "An existing Ray cluster, such as auto or HOST:6379.", metavar="ADDRESS"), ""),
    keyword(
        "trust_network",
        _option(bool, "With --ray: nobody but gateways can reach the ports of the workers.", show_default=False),
        False,
    ),
    keyword("name", _option(str, "The cluster's name, where there are several.", metavar="NAME"), "masklet"),
]
_parameters = [*_FLAGS, *WORKER_FLAGS, *config_flags(), *setting_flags(Settings.model_fields)]
up.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
up.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
app.command()(up)
app.registered_commands.insert(0, app.registered_commands.pop())  # the help begins with what one does first
