"""`masklet track` with cameras, network streams and pipes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import typer
from rich.text import Text

from masklet._media.capture import capture, is_pipe
from masklet.cli.console import err
from masklet.errors import FailedPrecondition, MaskletError

if TYPE_CHECKING:
    from masklet import Client, Live, LiveOptions, Prompt, TrackOptions

DELIVERIES = ("latest", "lossless")


@contextlib.contextmanager
def tracking_live(
    client: Client,
    source: str,
    prompts: Sequence[Prompt],
    delivery: str | None,
    options: TrackOptions,
) -> Iterator[Live]:
    """A live call that a thread feeds from the source. Errors after which the stream goes on are printed.

    Args:
        client: The client of the server that tracks.
        source: As for `capture`.
        prompts: What to track.
        delivery: None: "lossless" for pipes, whose writers can wait; else "latest".
        options: As for `Client.live`.

    Raises:
        MaskletError: The source failed. It is raised at the end of the block.
    """
    chosen = delivery or ("lossless" if is_pipe(source) else "latest")
    live = client.live(prompts, **cast("LiveOptions", {**options, "delivery": chosen, "on_error": _warn}))
    failures: list[MaskletError] = []

    def film() -> None:
        try:
            for part in capture(source):
                live.send(
                    part.video, pts_seconds=part.pts_seconds, capture_time_nanoseconds=part.capture_time_nanoseconds
                )
        except FailedPrecondition:
            return  # the call has ended; the loop over its results says why
        except MaskletError as error:
            failures.append(error)
            live.cancel()
        else:
            live.end()

    with live:
        # A daemon, because nothing interrupts a read from a camera that sends nothing.
        threading.Thread(target=film, name="masklet-capture", daemon=True).start()
        try:
            yield live
        except MaskletError as error:
            raise (failures[0] if failures else error) from None
    if failures:
        raise failures[0]


def check_options(source: str, *, overlay: bool, delivery: str | None) -> None:
    """Refuse options that do not go with a live source.

    Raises:
        BadParameter: An option is wrong.
    """
    if overlay:
        raise typer.BadParameter(
            f"{source} can be read only once; record it into a file first, and track the file", param_hint="--overlay"
        )
    if delivery not in (None, *DELIVERIES):
        raise typer.BadParameter(f"is {delivery}, must be one of {', '.join(DELIVERIES)}", param_hint="--delivery")


def _warn(error: MaskletError) -> None:
    err().print(Text("warning: ", style="bold yellow") + Text(str(error)), soft_wrap=True)
