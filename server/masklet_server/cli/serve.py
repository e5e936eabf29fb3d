"""``masklet serve``: every setting is a flag, made from the settings themselves."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from masklet.errors import InvalidArgument, MaskletError, Unavailable
from masklet_server import logs
from masklet_server.cli.flags import config_flags, given_settings, keyword, setting_flags
from masklet_server.cli.process import Signals, allow_many_descriptors, collect_less, hide_memory
from masklet_server.settings import Settings
from masklet_server.settings.sources import LoadedSettings, load_settings

if TYPE_CHECKING:
    from masklet_server.engine.serving.loaded_model import LoadedModel  # brings torch

logger = logging.getLogger(__name__)

_NOT_SERVING_SECONDS = 2.0


def serve(config: Path | None, print_config: bool, gpus: str | None, **flags: Any) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    A setting's value comes from its flag; else from the environment, as MASKLET_MAX_SESSIONS for --max-sessions; else
    from the file of --config; else it is the default. BYTES may have a unit, such as 32MiB. NAME may be given several
    times.

    After the first signal the server refuses new requests, and running ones may go on for --grace seconds. A second
    signal ends them at once.
    """
    try:
        if gpus is not None:
            flags["device"] = _device_of(gpus, flags["device"])
        loaded = load_settings(given_settings(flags), config=config)
    except InvalidArgument as error:
        _fail(error, code=2)
    if print_config:
        typer.echo(loaded.to_toml(), nl=False)
        return
    _run(loaded)


def _run(loaded: LoadedSettings) -> None:
    settings = loaded.settings
    logs.configure(settings.log_level, as_json=settings.log_json)
    try:
        asyncio.run(_serve(settings))
    except MaskletError as error:
        _fail(error, code=1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _serve(settings: Settings) -> None:
    import cv2

    from masklet_server.assembly import running_server
    from masklet_server.video.sandbox.control_group import GroupBounds
    from masklet_server.video.sandbox.layers import bound_together

    # OpenCV's own threads would take cores from the engine's for work that lasts less than a millisecond.
    cv2.setNumThreads(1)

    hide_memory()
    allow_many_descriptors()
    bounded = bound_together(GroupBounds.of(settings.budget_limits().decoder_memory.total, settings.max_sessions))
    stop = asyncio.Event()
    async with running_server(settings) as running:
        collect_less()
        logger.info("%s", bounded)
        with Signals(stop, hurry=running.server.cancel_all):
            typer.echo(_banner(running.address, list(running.models.values())))
            if await _is_broken(stop, running.broken):
                await asyncio.sleep(_NOT_SERVING_SECONDS)  # whoever watches the server's health sees why
                await running.server.stop(0.0)
                raise Unavailable("the engine has failed; the log says why. Start the server again")
            typer.echo(
                f"stopping; running requests have {settings.grace_seconds:g} s to end, and streams that wait for their "
                "clients end now",
                err=True,
            )
            await running.server.stop()


async def _is_broken(stop: asyncio.Event, broken: asyncio.Event) -> bool:
    """Wait until the server is to stop, or its engine has failed; returns whether that is so."""
    waits = [asyncio.create_task(event.wait()) for event in (stop, broken)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return broken.is_set() and not stop.is_set()


def _banner(address: str, models: list[LoadedModel]) -> str:
    names = ", ".join(model.name for model in models)
    version = metadata.version("masklet")
    return f"masklet {version} listening on {address} (models: {names}; {models[0].device}, {models[0].dtype})"


def _fail(error: MaskletError, *, code: int) -> NoReturn:
    typer.echo(f"masklet serve: {error}", err=True)
    raise typer.Exit(code)


def _device_of(gpus: str, device: str | None) -> str:
    """The setting `device` of --gpus.

    Raises:
        InvalidArgument: It is malformed, or --device is given, too.
    """
    if device is not None:
        raise InvalidArgument.of("gpus", "and device say the same thing; give one of them")
    if gpus != "all" and not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise InvalidArgument.of("gpus", f"is {gpus!r}, must be all, or numbers of GPUs from 0 on, such as 0,1")
    return "all" if gpus == "all" else ",".join(f"cuda:{number}" for number in gpus.split(","))


_GPUS = Annotated[
    str | None,
    typer.Option(
        metavar="all|N,N",
        help="GPUs that compute: all of this machine, or these, counted from 0. The same as --device all, or --device "
        "cuda:0,cuda:1.",
        rich_help_panel="Models",
        show_default=False,
    ),
]
_parameters = [*config_flags(), keyword("gpus", _GPUS, None), *setting_flags(Settings.model_fields)]
serve.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
