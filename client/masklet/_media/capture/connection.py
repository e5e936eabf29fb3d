"""One connection to a live source, read by a thread of its own, so that whoever waits for video can stop waiting."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from masklet._media.capture.parts import HowToOpen, NoVideoError, Opened, Part, read_parts
from masklet._media.capture.source import LiveSource
from masklet._urls import without_secrets

if TYPE_CHECKING:
    from av.error import FFmpegError

# Parts that were read and not taken; then the source waits, if it can.
_MAX_PARTS_AHEAD = 4
_TICK_SECONDS = 0.1
_REFUSED = ("401", "403")  # a wrong password does not become right; what is not found may come back


class End:
    """The end of a connection.

    Args:
        reason: What went wrong; empty where the source just ended.
        is_final: Connecting again would not help.
    """

    def __init__(self, reason: str = "", *, is_final: bool = False) -> None:
        self.reason = reason
        self.is_final = is_final


Item = Opened | Part | End


class Connection:
    """A connection that is being made or read; the first item is `Opened` or `End`, the last one `End`.

    A thread that waits for a source which sends nothing cannot be interrupted. `close` lets go of it, and it ends when
    FFmpeg gives up, or with the program.

    Args:
        source: What to connect to.
        how: What FFmpeg is told.
    """

    def __init__(self, source: LiveSource, how: HowToOpen) -> None:
        self._source = source
        self._how = how
        self._items: queue.Queue[Item] = queue.Queue(_MAX_PARTS_AHEAD)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="masklet-capture", daemon=True).start()

    def next(self, timeout: float) -> Item | None:
        """The next item; None where none came within so many seconds."""
        try:
            return self._items.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Read no more. May be called twice."""
        self._closed.set()

    def _run(self) -> None:
        try:
            from av.error import FFmpegError
        except ImportError:
            self._put(End("cannot be read without PyAV: pip install av", is_final=True))
            return
        try:
            for item in read_parts(self._source, self._how):
                if not self._put(item):
                    return
            self._put(End())
        except NoVideoError:
            self._put(End("holds no video", is_final=True))
        except (FFmpegError, OSError) as error:
            self._put(self._failure(error))
        except Exception as error:  # noqa: BLE001 - whoever takes the items raises it
            self._put(End(f"cannot be read ({type(error).__name__})", is_final=True))

    def _failure(self, error: FFmpegError | OSError) -> End:
        name = type(error).__name__
        if name == "ProtocolNotFoundError":
            return End(
                f"cannot be read: this PyAV has no {self._source.scheme.upper()}; let ffmpeg read it: "
                "ffmpeg -i URL -c copy -f mpegts - | masklet track - ...",
                is_final=True,
            )
        if name == "ExitError":
            return End("does not answer")
        reason = without_secrets(error.strerror or str(error))
        return End(reason, is_final=any(code in reason for code in _REFUSED))

    def _put(self, item: Item) -> bool:
        """Hand an item over; False where nobody takes it any more."""
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=_TICK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
