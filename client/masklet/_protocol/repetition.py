"""What a client keeps of a session on request, without I/O, so that another server can do the same work again.

Requests are done one after the other. So the masks that come next follow from the requests that took effect, in their
order, and from how far a propagation came that was stopped. A session that begins anew is asked all of that again, one
request at a time. Its answers are the ones that the client has: they are dropped, up to the last of them.

A `reset` forgets everything that was asked before. So nothing before the last one is asked again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from masklet.errors import Unavailable
from masklet.v1 import tracking_pb2

MAX_REQUEST_BYTES = 64 * 1024**2
"""Bytes of requests that are kept; with more the session cannot be begun anew, until the next `reset`."""
_ANSWERS = ("prompt_result", "applied", "propagation_done", "error")


@dataclass
class _Asked:
    """A request that is not answered yet.

    Attributes:
        request: As it was sent, or as much of it as will be done.
        forward: Of a propagation: how many results came in the direction of time, or in its only direction.
        backward: How many came after that, against it.
        last_index: The frame of the last result.
        is_stopped: The client has asked for its end.
    """

    request: tracking_pb2.TrackRequest
    forward: int = 0
    backward: int = 0
    last_index: int = -1
    is_stopped: bool = False

    def add(self, frame_index: int) -> None:
        """Count a result."""
        is_both = self.request.propagate.direction == tracking_pb2.DIRECTION_BOTH
        if is_both and (self.backward or frame_index <= self.last_index):
            self.backward += 1
        else:
            self.forward += 1
        self.last_index = frame_index

    def as_far_as_it_came(self, least: int = 0) -> list[tracking_pb2.TrackRequest]:
        """Requests with the same results as the propagation had, and no others.

        Args:
            least: As many results at least.
        """
        both = self.request.propagate.direction == tracking_pb2.DIRECTION_BOTH
        if both and self.backward:
            ahead = _copy(self.request, tracking_pb2.DIRECTION_FORWARD)
            ahead.request_id -= 1  # no other request has it: see `RequestHistory`
            return [ahead, _copy(self.request, tracking_pb2.DIRECTION_BACKWARD, self.backward)]
        count = max(self.forward, least)
        direction = tracking_pb2.DIRECTION_FORWARD if both else self.request.propagate.direction
        return [_copy(self.request, direction, count)] if count else []


def _copy(
    request: tracking_pb2.TrackRequest, direction: tracking_pb2.Direction.ValueType, results: int | None = None
) -> tracking_pb2.TrackRequest:
    copied = tracking_pb2.TrackRequest()
    copied.CopyFrom(request)
    copied.propagate.direction = direction
    if results is not None:
        copied.propagate.max_frames = results - 1  # after the first one
    return copied


class RequestHistory:
    """The requests of one session on request, and what of them is asked again in a session that begins anew.

    The numbers of requests must leave one free before each, because a propagation in both directions that was stopped
    is asked again as two.

    Attributes:
        is_complete: Whether everything is here that must be asked again.
        base: The sequence of the last result before the last `reset`. A session that begins anew has none of those.
        reached: The sequence of the last result of the session, as the caller counts them.
    """

    def __init__(self) -> None:
        self.is_complete = True
        self.base = self.reached = 0
        self._offset = 0  # from the session's sequences to the caller's
        self._done: list[tracking_pb2.TrackRequest] = []
        self._done_bytes = 0
        self._asked: dict[int, _Asked] = {}
        self._last_sequence = 0  # that the caller has
        self._queue: deque[tracking_pb2.TrackRequest] = deque()
        self._current: tracking_pb2.TrackRequest | None = None  # what the queue gave last, until it is answered

    # Asking

    def note(self, request: tracking_pb2.TrackRequest) -> None:
        """Take note of a request that is sent for the first time."""
        if not request.HasField("stop_propagation"):
            self._asked[request.request_id] = _Asked(request)
            return
        for asked in self._asked.values():
            asked.is_stopped = asked.request.HasField("propagate")

    def begin_anew(self) -> None:
        """Ask another session for everything once more; `next_request` says what."""
        for number, asked in tuple(self._asked.items()):
            if asked.is_stopped:  # how much of it the caller gets is open: what the caller has, and no more than one
                *before, last = asked.as_far_as_it_came(least=1)
                self._keep(before)
                self._asked[number] = _Asked(last, asked.backward or asked.forward)
        self._queue = deque([*self._done, *(asked.request for asked in self._asked.values())])
        self._current = None
        self._offset = self.reached = self.base

    @property
    def is_repeating(self) -> bool:
        """Whether the session does not stand yet where the one before it stood. Nothing new may be asked of it."""
        is_known = self._current is not None and self._is_repeated(self._current.request_id)
        return bool(self._queue) or is_known or self.reached < self._last_sequence

    @property
    def is_stopping(self) -> bool:
        """Whether the client has asked for the end of a propagation, and that has not come yet."""
        return any(asked.is_stopped for asked in self._asked.values())

    def next_request(self) -> tracking_pb2.TrackRequest | None:
        """What to ask once more; None: nothing, or not before the last one is answered."""
        if self._current is None and self._queue:
            self._current = self._queue.popleft()
            return self._current
        return None

    def acknowledgement(self, sequence: int) -> int:
        """What an acknowledgement says to the session: no more than it has sent, as it counts; 0: nothing yet."""
        return max(0, min(sequence, self.reached) - self._offset)

    # Answers

    def take(self, response: tracking_pb2.TrackResponse) -> bool:
        """Take in a response. The sequence of a result becomes the one that the caller knows.

        Returns:
            Whether it is new to the caller.

        Raises:
            Unavailable: The session does not do again what the one before it did.
        """
        kind = response.WhichOneof("response") or ""
        is_new = True
        if kind in ("frame_result", "prompt_result"):
            is_new = self._count(getattr(response, kind))
            if is_new and self._is_repeated(response.request_id):
                raise Unavailable(f"the server gives more results when it repeats request {response.request_id}")
        if kind == "frame_result" and is_new and (asked := self._asked.get(response.request_id)) is not None:
            asked.add(response.frame_result.frame_index)
        if kind in _ANSWERS and response.request_id:
            if self._is_repeated(response.request_id):
                is_new = False
                if kind == "error":
                    told = response.error.message
                    raise Unavailable(f"the server does not repeat request {response.request_id}: {told}")
            self._answered(response, kind)
        return is_new

    def _is_repeated(self, number: int) -> bool:
        """Whether that request is being repeated, and the caller has its answer."""
        return self._current is not None and self._current.request_id == number and number not in self._asked

    def _count(self, result: tracking_pb2.FrameResult | tracking_pb2.PromptResult) -> bool:
        result.sequence += self._offset
        self.reached = result.sequence
        is_new = result.sequence > self._last_sequence
        self._last_sequence = max(self._last_sequence, result.sequence)
        return is_new

    def _answered(self, response: tracking_pb2.TrackResponse, kind: str) -> None:
        number = response.request_id
        asked = self._asked.get(number)
        current = self._current if self._current is not None and self._current.request_id == number else None
        request = current if asked is None else asked.request
        if request is None or (request.HasField("propagate") and kind != "propagation_done"):
            return  # its end will follow
        if current is not None:
            self._current = None
        if asked is not None:
            del self._asked[number]
            self._took_effect(asked, response)
        if current is not None and not self._queue and self.reached < self._last_sequence:
            raise Unavailable(
                f"the server has repeated all requests, and gave {self.reached} results in place of "
                f"{self._last_sequence}"
            )

    def _took_effect(self, asked: _Asked, response: tracking_pb2.TrackResponse) -> None:
        if response.HasField("error"):
            return  # it has changed nothing
        if asked.request.HasField("reset"):
            self._done.clear()
            self._done_bytes, self.base, self.is_complete = 0, self._last_sequence, True
        elif response.HasField("propagation_done") and response.propagation_done.stopped:
            self._keep(asked.as_far_as_it_came())
        else:
            self._keep([asked.request])

    def _keep(self, requests: list[tracking_pb2.TrackRequest]) -> None:
        self._done_bytes += sum(one.ByteSize() for one in requests)
        self.is_complete = self.is_complete and self._done_bytes <= MAX_REQUEST_BYTES
        self._done += requests
        if not self.is_complete:
            self._done.clear()
