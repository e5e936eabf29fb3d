"""Feeds the thread on which gRPC sends the requests of a Track call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial

from masklet._media.uploads import Upload
from masklet._protocol.track import Step, TrackProtocol
from masklet._transport.channel import RunningCall, TrackMethod
from masklet.v1 import tracking_pb2


class RequestSender:
    """Feeds gRPC's sending thread. It does not refer to its `Stream`, so that the stream ends when its user drops it.

    When a call has broken, another one takes its place. Then `requests` feeds that one, and the thread of the older
    call ends.

    Args:
        protocol: What is said and heard.
        upload: The video, as messages that are made when they are asked for.

    Attributes:
        protocol: To be used only within `changing`.
        changed: Notified whenever the protocol has changed.
        failure: What the video's source raised; the reading side raises it again.
    """

    def __init__(self, protocol: TrackProtocol, upload: Upload) -> None:
        self.protocol = protocol
        self.failure: Exception | None = None
        self.changed = threading.Condition()
        self._parts = upload.parts
        self._parts_from = upload.parts_from
        self._reading = threading.Lock()  # of the video: the thread of an older call may still wait for a part
        self._call: RunningCall = None
        self._calls = 0  # so many times `requests` was called; the last one counts

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock on the protocol; afterwards wake up whoever waits for a change."""
        with self.changed:
            yield
            self.changed.notify_all()

    def attach(self, call: RunningCall) -> None:
        """Set the call to which the requests go; `requests` waits for it."""
        if not call.add_callback(partial(self._ended, self._calls, call)):
            self._ended(self._calls, call)
        with self.changing():
            self._call = call

    def requests(self) -> Iterator[tracking_pb2.TrackRequest]:
        """What gRPC sends in a new call, on its own thread: one message at a time, as flow control allows."""
        with self.changing():
            self._call = None
            self._calls += 1
        return self._requests(self._calls)

    def _requests(self, number: int) -> Iterator[tracking_pb2.TrackRequest]:
        with self.changed:
            self.changed.wait_for(lambda: self._call is not None or self._calls != number)
        try:
            while (step := self._next_step(number)) is not Step.END:
                if isinstance(step, Step):
                    self._fetch_part(number)
                else:
                    yield step
        except Exception as error:  # noqa: BLE001 - the source's own error, raised again by the reading side
            self.failure = error
            with self.changed:
                self.changed.wait_for(lambda: self._call is not None)  # it may be a newer one by now
                self._call.cancel()

    def _next_step(self, number: int) -> tracking_pb2.TrackRequest | Step:
        with self.changed:
            while self._calls == number:
                if (step := self.protocol.next_request()) is not Step.WAIT:
                    self.changed.notify_all()  # there may be room now for what was not taken yet
                    return step
                self.changed.wait()
            return Step.END  # of a call that another one has replaced

    def _fetch_part(self, number: int) -> None:
        with self._reading:
            with self.changed:
                if self._calls != number:
                    return
                start = self.protocol.read_from
                self.protocol.reread()
            if start is not None and self._parts_from is not None:
                self._parts = self._parts_from(start)
            part = next(self._parts, None)  # may take long: not under the lock
            with self.changing():
                self.protocol.add_part(part)

    def _ended(self, number: int, call: RunningCall) -> None:
        """Send nothing more, unless another call will go on."""
        with self.changing():
            connected = bool(self.protocol.session_id) or number > 1
            if number == self._calls and not (
                self.protocol.can_go_on and TrackMethod.is_broken(call, connected=connected)
            ):
                self.protocol.close()
