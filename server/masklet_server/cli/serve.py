"""``masklet serve``: every setting is a flag, made from the settings themselves."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import signal
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from masklet.errors import InvalidArgument, MaskletError, Unavailable
from masklet_server import logs
from masklet_server.cli.process import allow_many_descriptors, collect_less, hide_memory
from masklet_server.settings import Settings, flag_of
from masklet_server.settings.sources import LoadedSettings, load_settings

if TYPE_CHECKING:
    from masklet_server.engine.serving.loaded_model import LoadedModel  # brings torch

logger = logging.getLogger(__name__)

_NOT_SERVING_SECONDS = 2.0


def serve(config: Path | None, print_config: bool, **flags: Any) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    A setting's value comes from its flag; else from the environment, as MASKLET_MAX_SESSIONS for --max-sessions; else
    from the file of --config; else it is the default. BYTES may have a unit, such as 32MiB. NAME may be given several
    times.

    After the first signal the server refuses new requests, and running ones may go on for --grace seconds. A second
    signal ends them at once.
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}
    try:
        loaded = load_settings({k: v for k, v in given.items() if v is not None and v != ()}, config=config)
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
        with _Signals(stop, hurry=running.server.cancel_all):
            typer.echo(_banner(running.address, list(running.models.values())))
            if await _is_broken(stop, running.broken):
                await asyncio.sleep(_NOT_SERVING_SECONDS)  # whoever watches the server's health sees why
                await running.server.stop(0.0)
                raise Unavailable("the engine has failed; the log says why. Start the server again")
            typer.echo(f"stopping; running requests have {settings.grace_seconds:g} s to end", err=True)
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


class _Signals:
    """While entered, the first SIGTERM or SIGINT asks to stop, the second to hurry, and the third kills the process."""

    _NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, stop: asyncio.Event, hurry: Callable[[], None]) -> None:
        self._stop = stop
        self._hurry = hurry
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in self._NUMBERS:
            self._loop.add_signal_handler(number, self._received)

    def __exit__(self, *exc_info: object) -> None:
        for number in self._NUMBERS:
            self._loop.remove_signal_handler(number)

    def _received(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        self._hurry()
        for number in self._NUMBERS:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)


def _fail(error: MaskletError, *, code: int) -> NoReturn:
    typer.echo(f"masklet serve: {error}", err=True)
    raise typer.Exit(code)


def _signature() -> inspect.Signature:
    """The flags for typer: --config, --print-config, and one for every setting, None unless it is given."""
    config = typer.Option(
        metavar="FILE",
        help="TOML file with settings. Default: the file that MASKLET_CONFIG names, if any.",
        show_default=False,
    )
    print_config = typer.Option(
        "--print-config", help="Print the settings in effect as TOML, with the origin of each, and exit."
    )
    parameters = [
        _parameter("config", Annotated[Path | None, config], None),
        _parameter("print_config", Annotated[bool, print_config], False),
    ]
    for name, field in Settings.model_fields.items():
        parameters.append(_parameter(name, _flag_type(name, field), None))
    return inspect.Signature(parameters)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag_type(name: str, field: FieldInfo) -> Any:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    flag, kind, metavar = flag_of(name), *_kind(name, field.annotation)
    if kind is bool:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    text = f"{field.description} {_default_text(field)}".rstrip()
    option = typer.Option(flag, help=text, rich_help_panel=str(extra["panel"]), metavar=metavar, show_default=False)
    return Annotated[kind | None, option]


def _default_text(field: FieldInfo) -> str:
    default: Any = field.default
    if default is None or default is False or default in ("", ()):
        return ""
    if field.annotation is ByteSize and default:
        default = re.sub(r"\.0(?=[A-Z])", "", ByteSize(default).human_readable(separator=""))
    if isinstance(default, float):
        default = f"{default:g}"
    return f"Default: {', '.join(default) if isinstance(default, tuple) else default}."


def _kind(name: str, annotation: Any) -> tuple[Any, str | None]:
    """Type and placeholder of a setting's flag. Values stay text, which pydantic reads as it reads the environment."""
    if annotation is bool:
        return bool, None
    if get_origin(annotation) is tuple:
        return list[str], "NAME"
    if get_origin(annotation) is Literal:
        return str, "|".join(get_args(annotation))
    if Path in get_args(annotation):
        return str, "FILE"
    if annotation is str:
        return str, "ADDRESS" if name.endswith("address") else name.upper()
    if annotation is ByteSize:
        return str, "BYTES"
    return str, "SECONDS" if name.endswith("_seconds") else "N"


serve.__signature__ = _signature()  # type: ignore[attr-defined]
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _signature().parameters.values()}
