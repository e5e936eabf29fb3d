"""`masklet track` on cameras, network streams and pipes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from masklet._media.capture import capture, is_pipe
from masklet.cli.console import err
from masklet.errors import FailedPrecondition, MaskletError

if TYPE_CHECKING:
    from masklet import Client, Live, Prompt
    from masklet._protocol.options import MemoryPolicy

DELIVERIES = ("latest", "lossless")


@contextlib.contextmanager
def following(
    client: Client,
    source: str,
    prompts: Sequence[Prompt],
    *,
    delivery: str | None,
    model: str,
    deterministic: bool,
    memory_policy: MemoryPolicy,
) -> Iterator[Live]:
    """A live call that a thread feeds from the source. Faults that can be mended are printed.

    Args:
        client: Whose server tracks.
        source: As for `capture`.
        prompts: What to follow.
        delivery: None: lossless for pipes, whose writers can wait; the latest frames otherwise.
        model: As for `Client.live`.
        deterministic: As for `Client.live`.
        memory_policy: As for `Client.live`.

    Raises:
        MaskletError: The source failed; raised where the block ends.
    """
    chosen = delivery or ("lossless" if is_pipe(source) else "latest")
    live = client.live(
        prompts,
        delivery=chosen,  # type: ignore[arg-type]  # checked by the call
        model=model,
        deterministic=deterministic,
        memory_policy=memory_policy,
        on_error=_warn,
    )
    failures: list[MaskletError] = []

    def film() -> None:
        try:
            for part in capture(source):
                live.send(
                    part.video, pts_seconds=part.pts_seconds, capture_time_nanoseconds=part.capture_time_nanoseconds
                )
        except FailedPrecondition:
            return  # the call has ended, and says itself why
        except MaskletError as error:
            failures.append(error)
            live.cancel()
        else:
            live.end()

    with live:
        # A daemon: nothing interrupts a read from a camera that sends nothing.
        threading.Thread(target=film, name="masklet-capture", daemon=True).start()
        try:
            yield live
        except MaskletError as error:
            raise (failures[0] if failures else error) from None
    if failures:
        raise failures[0]


def check_options(source: str, *, overlay: bool, delivery: str | None) -> None:
    """Refuse what a live source cannot do.

    Raises:
        BadParameter: An option is wrong.
    """
    if overlay:
        raise typer.BadParameter(
            f"{source} can be read but once: record it to a file first, and draw over that", param_hint="--overlay"
        )
    if delivery not in (None, *DELIVERIES):
        raise typer.BadParameter(f"{delivery} is none of {', '.join(DELIVERIES)}", param_hint="--delivery")


def _warn(error: MaskletError) -> None:
    err().print(Text("warning: ", style="bold yellow") + Text(str(error)), soft_wrap=True)
