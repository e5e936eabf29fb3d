"""What `masklet batch` prints: a line for each clip, now and then how the batch stands, and how to go on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from masklet.cli.console import err, out

if TYPE_CHECKING:
    from masklet.batch import Batch, BatchEvent, BatchSettings, BatchSummary

_EVERY_SECONDS = 10.0
_STYLES = {
    "done": "green", "empty": "green", "already-done": "dim", "retry": "yellow", "poisoned": "red",
    "already-poisoned": "red", "interrupted": "yellow",
}  # fmt: skip


class Lines:
    """Prints a line for each clip.

    Args:
        clips: How many there are.
    """

    def __init__(self, clips: int) -> None:
        self._clips = clips
        self._ended = 0
        self._console = out()

    def __call__(self, event: BatchEvent) -> None:
        """Print what became of a clip."""
        if event.kind != "retry":
            self._ended += event.kind != "interrupted"
        line = Text.assemble(
            (f"{event.kind.replace('-', ' '):<17}", _STYLES[event.kind]),
            f"{self._ended:>{len(str(self._clips))}}/{self._clips}  {event.clip.name}  {_detail(event)}",
        )
        self._console.print(line, soft_wrap=True)


def _detail(event: BatchEvent) -> str:
    entry = event.entry
    again = f" (again: {event.again})" if event.again else ""
    if event.kind in ("done", "already-done") and entry.state == "done":
        return f"frames: {entry.frames}, objects: {entry.objects}, {entry.seconds:.1f} s{again}"
    if entry.state == "empty":
        return "nothing to track in it"
    error = " ".join(entry.error.split())
    if event.kind == "retry":
        return f"again in {event.retry_seconds:.1f} s, after attempt {entry.attempt}: {error}"
    return f"{entry.code}: {error}{again}" if error else "is done in the next run"


@contextlib.contextmanager
def progress(work: Batch) -> Iterator[None]:
    """Print now and then how the batch stands, on stderr."""
    ended = threading.Event()
    console = err()

    def tell() -> None:
        while not ended.wait(_EVERY_SECONDS):
            now = work.summary
            rate = now.frames / max(now.seconds, 1e-9)
            new = now.done - now.done_before
            left = f", about {_duration(now.left * now.seconds / new)} left" if new and now.left else ""
            console.print(
                f"{now.done} of {now.clips} clips done, {now.poisoned} failed, {rate:.1f} frames/s{left}",
                soft_wrap=True,
                markup=False,
            )

    thread = threading.Thread(target=tell, name="masklet-batch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def tell_end(summary: BatchSummary, folder: Path, settings: BatchSettings) -> None:
    """Print how the batch stands, and how to go on."""
    from masklet.batch.lock import suffix_of

    console = out()
    part = f" of shard {settings.shard}" if settings.shard else ""
    console.print(
        f"{summary.done} of {summary.clips} clips{part} done ({summary.done_before} before), "
        f"{summary.poisoned} failed, {summary.left} left; {summary.frames} frames in {summary.seconds:.1f} s",
        soft_wrap=True,
        markup=False,
    )
    if summary.poisoned:
        poison_list = folder / f"poisoned{suffix_of(settings.shard)}.jsonl"
        console.print(
            f"the errors are in {poison_list}; --retry-poisoned tries these clips again",
            soft_wrap=True,
            markup=False,
        )
    if summary.left:
        err().print("run the same command again to go on", soft_wrap=True)
