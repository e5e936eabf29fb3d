"""A live call that a thread feeds from a camera, a stream or a pipe."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from masklet._media.capture.capture import Capture, Captured, CaptureEvent, capture
from masklet._media.capture.source import LiveSource
from masklet.cli.console import warn
from masklet.errors import Cancelled, FailedPrecondition, MaskletError

if TYPE_CHECKING:
    from masklet import Client, FrameResult, Live, LiveOptions, Prompt, TrackOptions
    from masklet.cli.live.overlay import LiveOverlay

DELIVERIES = ("latest", "lossless")
Note = Callable[[dict[str, Any]], None]
"""Takes what happened beside the results, ready for JSON."""


@dataclass(frozen=True)
class LiveCommand:
    """What the command line says of a live video.

    Attributes:
        source: As for `masklet.capture`.
        delivery: None: "lossless" for what can wait, such as pipes; else "latest".
        reconnect: As for `masklet.capture`.
        silence_seconds: As for `masklet.capture`.
        overlay: The video to write, with the masks drawn in; None: none.
    """

    source: str
    delivery: str | None = None
    reconnect: bool | None = None
    silence_seconds: float | None = None
    overlay: Path | None = None

    def check(self) -> None:
        """Refuse options that contradict one another.

        Raises:
            BadParameter: An option is wrong.
        """
        if self.delivery not in (None, *DELIVERIES):
            raise typer.BadParameter(
                f"is {self.delivery}, must be one of {', '.join(DELIVERIES)}", param_hint="--delivery"
            )
        source = LiveSource.of(self.source)
        if self.reconnect and source is not None and source.kind == "pipe":
            raise typer.BadParameter(f"{source} cannot be connected again; leave it out", param_hint="--reconnect")
        if self.silence_seconds is not None and not 0 < self.silence_seconds < float("inf"):
            raise typer.BadParameter("must be a number of seconds above 0", param_hint="--silence")


class LiveRun:
    """A live call, and what its results do not tell.

    Args:
        live: The call.
        overlay: Draws the results; None: nothing does.

    Attributes:
        live: The call.
        overlay: Draws the results; None: nothing does.
        note: Takes what happened beside the results. It may be called from another thread.
        gaps: How often the stream was connected again.
        failure: Why the source gives no more video, although it has not ended.
    """

    def __init__(self, live: Live, overlay: LiveOverlay | None) -> None:
        self.live = live
        self.overlay = overlay
        self.note: Note = _drop
        self.gaps = 0
        self.failure: MaskletError | None = None
        self._gaps: deque[tuple[int, float]] = deque()
        self._last_gap = (0, 0.0)

    def results(self) -> Iterator[FrameResult]:
        """The call's results.

        Raises:
            MaskletError: The source failed; raised after the results of what came before. Or the call failed.
        """
        try:
            yield from self.live
        except Cancelled:
            raise
        except MaskletError as error:
            raise (self.failure or error) from None
        if self.failure is not None:
            raise self.failure

    def gap_before(self, frame: FrameResult) -> float:
        """Seconds without video between the last result and this one, because the stream broke; 0: it did not."""
        if frame.sequence == self._last_gap[0]:  # asked before
            return self._last_gap[1]
        seconds = 0.0
        while self._gaps and self._gaps[0][0] <= frame.capture_time_nanoseconds:
            seconds += self._gaps.popleft()[1]
        self._last_gap = (frame.sequence, seconds)
        return seconds

    def send(self, part: Captured) -> None:
        """Send a part of the video.

        Raises:
            FailedPrecondition: The call is over.
        """
        if part.gap_seconds:
            self.gaps += 1
            self._gaps.append((part.capture_time_nanoseconds, part.gap_seconds))
        if self.overlay is not None:
            self.overlay.keep(part)
        self.live.send(part.video, pts_seconds=part.pts_seconds, capture_time_nanoseconds=part.capture_time_nanoseconds)

    def tell(self, event: CaptureEvent) -> None:
        """Print what happens to the source, and keep the server waiting for its video."""
        warn(event.message)
        self.note({"kind": event.kind, "message": event.message, "seconds": round(event.seconds, 3)})
        self.live.keep_alive()


class _Refusals:
    """Prints errors after which the stream goes on; when every prompt was refused, there is nothing to go on with.

    Args:
        prompts: How many were given.
    """

    def __init__(self, prompts: int) -> None:
        self._left = prompts

    def __call__(self, error: MaskletError) -> None:
        """Take an error.

        Raises:
            MaskletError: It is the refusal of the last prompt that was not refused yet.
        """
        if any(violation.field.startswith("prompt") for violation in error.violations):
            self._left -= 1
            if self._left == 0:
                raise error
        warn(str(error))


@contextlib.contextmanager
def tracking_live(
    client: Client, command: LiveCommand, prompts: Sequence[Prompt], options: TrackOptions
) -> Iterator[LiveRun]:
    """A live call that a thread feeds from the source. Errors after which the stream goes on are printed.

    Args:
        client: The client of the server that tracks.
        command: The source and its options.
        prompts: What to track.
        options: As for `Client.live`.

    Raises:
        MaskletError: The source cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        runs: list[LiveRun] = []  # none yet while the source is opened, which has no events

        def tell(event: CaptureEvent) -> None:
            runs[0].tell(event)

        source = stack.enter_context(
            capture(
                command.source,
                reconnect=command.reconnect,
                silence_seconds=command.silence_seconds,
                on_event=tell,
            )
        )
        delivery = command.delivery or ("lossless" if source.can_wait else "latest")
        live_options = {**options, "delivery": delivery, "on_error": _Refusals(len(prompts))}
        live = stack.enter_context(client.live(prompts, **cast("LiveOptions", live_options)))
        overlay = _overlay(command, stack, drops=delivery == "latest")
        runs.append(LiveRun(live, overlay))
        # A daemon, because nothing interrupts a read from a camera that sends nothing.
        threading.Thread(target=_film, args=(source, runs[0]), name="masklet-film", daemon=True).start()
        yield runs[0]


def _overlay(command: LiveCommand, stack: contextlib.ExitStack, *, drops: bool) -> LiveOverlay | None:
    if command.overlay is None:
        return None
    from masklet.cli.live.overlay import LiveOverlay  # brings PyAV

    return stack.enter_context(LiveOverlay(command.overlay, drops=drops))


def _film(source: Capture, run: LiveRun) -> None:
    try:
        for part in source:
            run.send(part)
    except FailedPrecondition:
        return  # the call has ended; the loop over its results says why
    except MaskletError as error:
        run.failure = error
    except Exception as error:  # noqa: BLE001 - raised again by the thread that takes the results
        run.failure = MaskletError(f"{source} cannot be read on ({type(error).__name__}: {error})")
    run.live.end()  # what was sent is tracked to its end


def _drop(note: dict[str, Any]) -> None:
    """Nobody wants the notes."""
