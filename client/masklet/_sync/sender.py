"""Feeds the thread on which gRPC sends the requests of a Track call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from masklet._protocol.track import Step, TrackProtocol
from masklet._transport.channel import RunningCall
from masklet.v1 import tracking_pb2


class RequestSender:
    """Feeds gRPC's sending thread. It does not refer to its `Stream`, so that the stream ends when its user drops it.

    Args:
        protocol: What is said and heard.
        parts: The video, as messages that are made when they are asked for.

    Attributes:
        protocol: To be used only within `changing`.
        changed: Notified whenever the protocol has changed.
        failure: What the video's source raised; the reading side raises it again.
    """

    def __init__(self, protocol: TrackProtocol, parts: Iterator[tracking_pb2.TrackRequest]) -> None:
        self.protocol = protocol
        self.failure: Exception | None = None
        self.changed = threading.Condition()
        self._parts = parts
        self._call: RunningCall = None

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock on the protocol; afterwards wake up whoever waits for a change."""
        with self.changed:
            yield
            self.changed.notify_all()

    def attach(self, call: RunningCall) -> None:
        """Set the call to which the requests go; `requests` waits for it."""
        if not call.add_callback(self._close):
            self._close()
        with self.changing():
            self._call = call

    def requests(self) -> Iterator[tracking_pb2.TrackRequest]:
        """What gRPC sends; runs on gRPC's thread, one message at a time as flow control allows."""
        with self.changed:
            self.changed.wait_for(lambda: self._call is not None)
        try:
            while (step := self._next_step()) is not Step.END:
                if isinstance(step, Step):
                    self._fetch_part()
                else:
                    yield step
        except Exception as error:  # noqa: BLE001 - the source's own error, raised again by the reading side
            self.failure = error
            self._call.cancel()

    def _next_step(self) -> tracking_pb2.TrackRequest | Step:
        with self.changed:
            while (step := self.protocol.next_request()) is Step.WAIT:
                self.changed.wait()
            self.changed.notify_all()  # there may be room now for what was not taken yet
            return step

    def _fetch_part(self) -> None:
        part = next(self._parts, None)  # may take long: not under the lock
        with self.changed:
            self.protocol.add_part(part)

    def _close(self) -> None:
        with self.changing():
            self.protocol.close()
