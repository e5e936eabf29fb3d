"""What a client keeps of a resumable session, without I/O, so that a new call can go on with it.

Messages arrive in order, so what a server has taken is always a prefix of what the client has sent. Numbers are enough:
the server says up to where it has taken the video and the requests, and the client says up to where it has taken the
responses. Everything else is sent again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from masklet.errors import Internal, Unavailable
from masklet.v1 import tracking_pb2

KEPT_BYTES = 64 * 1024**2
"""Bytes of video that cannot be read again, and that are kept to be sent again."""
MAX_OPERATION_BYTES = 8 * 1024**2
"""Bytes of operations that fit well into one `resume`; with more a session cannot be begun anew."""

HowResumed = Literal["attached", "restored", "rewound"]
"""How a stream goes on: where it was, on the server; or from a snapshot on its disk; or from the start of the video."""
_HOW: dict[int, HowResumed] = {
    tracking_pb2.RESUMPTION_ATTACHED: "attached",
    tracking_pb2.RESUMPTION_RESTORED: "restored",
    tracking_pb2.RESUMPTION_REWOUND: "rewound",
}
_ANSWERS = ("prompt_result", "applied", "propagation_done")
# What `AppliedOperation` can hold.
_OPERATIONS = ("prompt", "clear_prompts", "remove_object")


@dataclass(frozen=True)
class ResumeEvent:
    """A stream has lost its connection, or goes on after that.

    Attributes:
        kind: "lost": the connection was lost, and the client tries to go on. "resumed": the stream goes on.
        message: What happened, in one line.
        frame_index: The last frame whose result is here; None where there is none.
        seconds: How long the stream has had no connection.
        how: Of "resumed": where the server goes on from. None of "lost".
    """

    kind: Literal["lost", "resumed"]
    message: str
    frame_index: int | None
    seconds: float
    how: HowResumed | None = None


class Resumption:
    """One resumable session as its client keeps it.

    Video that can be read again is not kept. Other video is, until the server says that it needs it no more, up to
    `KEPT_BYTES`.

    Args:
        config: The session's first message.
        reads_again: Whether the video can be read again from any position.

    Attributes:
        last: The last frame result that is here; None before the first one.
        token: The server's name for the session; empty before it has told it.
        read_from: Where the video must be read again from, in bytes or pictures; None where it need not be.
    """

    def __init__(self, config: tracking_pb2.TrackConfig, *, reads_again: bool) -> None:
        self.last: tracking_pb2.FrameMark | None = None
        self.read_from: int | None = None
        self._config = config
        self._reads_again = reads_again
        # Work on request is repeated by the client (`RequestHistory`). Nobody knows which the latest frames were.
        self._may_rewind = (
            config.propagation != tracking_pb2.PROPAGATION_ON_REQUEST
            and config.delivery != tracking_pb2.DELIVERY_LATEST
        )
        self.token = ""
        self._last_number = self._last_sequence = 0
        self._opening: tracking_pb2.TrackRequest | None = None
        self._is_waiting = False
        self._again: deque[tracking_pb2.TrackRequest] = deque()
        self._unanswered: dict[int, tuple[int, tracking_pb2.TrackRequest]] = {}  # with the video's position
        self._applied: list[tracking_pb2.AppliedOperation] = []
        self._applied_bytes = 0
        self._keeps_applied = config.propagation != tracking_pb2.PROPAGATION_ON_REQUEST
        self._snapshot_request_id = 0  # operations up to this one are in a snapshot
        self._refused: set[int] = set()
        self._position = 0  # of the video, as sent
        self._kept: deque[tuple[int, tracking_pb2.TrackRequest]] = deque()  # with the position where it begins
        self._kept_bytes = 0
        self._kept_from = 0
        self._end_is_sent = False

    @property
    def is_possible(self) -> bool:
        """Whether a new call could go on with the session, or begin it if the server has not answered yet."""
        return bool(self.token) or self.has_whole_video

    @property
    def can_rewind(self) -> bool:
        """Whether the whole video can be sent again."""
        return self._may_rewind and self.has_whole_video

    @property
    def has_whole_video(self) -> bool:
        """Whether the video can be sent again from its start."""
        return self._reads_again or self._kept_from == 0

    # Sending

    def note(self, request: tracking_pb2.TrackRequest) -> None:
        """Take note of a message that is being sent for the first time."""
        if request.request_id:
            self._unanswered[request.request_id] = (self._position, request)
            return
        kind = request.WhichOneof("request")
        if kind == "end_of_video":
            self._end_is_sent = True
        elif kind in ("video_chunk", "frame", "packet"):
            if not self._reads_again:
                self._keep(request)
            self._position += _length(request)

    def _keep(self, part: tracking_pb2.TrackRequest) -> None:
        self._kept.append((self._position, part))
        self._kept_bytes += part.ByteSize()
        while self._kept_bytes > KEPT_BYTES:
            self._let_go_of_first()

    def _let_go_of_first(self) -> None:
        start, part = self._kept.popleft()
        self._kept_bytes -= part.ByteSize()
        self._kept_from = start + _length(part)

    def detach(self, last_ack: int) -> None:
        """Go on in a new call: `next_request` says what to send in it.

        Args:
            last_ack: The sequence of the last acknowledgement that was sent; 0: none was.
        """
        self._again.clear()
        if not self.token:  # the server has not answered the first call: begin once more
            self._opening = tracking_pb2.TrackRequest(config=self._config)
            self._go_on(tracking_pb2.Resumed())
            return
        # What was applied is of use where the server begins anew, or goes on from a snapshot.
        resume = tracking_pb2.Resume(
            token=self.token,
            last_response=self._last_number,
            last=self.last,
            last_sequence=self._last_sequence,
            last_ack=last_ack,
            config=self._config,
            operations=sorted(self._applied, key=lambda one: one.request_id),
            can_rewind=self.can_rewind,
        )
        self._opening = tracking_pb2.TrackRequest(resume=resume)
        self._is_waiting = True

    def begin_anew(self) -> None:
        """Forget the session: `detach` begins another one. The caller repeats its requests."""
        self.token = ""
        self._last_number = self._last_sequence = 0
        self._unanswered.clear()

    def farewell(self) -> list[tracking_pb2.TrackRequest]:
        """The messages of a new call that ends the session, so that the server does not wait for its client."""
        resume = tracking_pb2.Resume(
            token=self.token,
            last_response=self._last_number,
            last=self.last,
            last_sequence=self._last_sequence,
            config=self._config,
        )
        cancel = tracking_pb2.TrackRequest(cancel=tracking_pb2.Cancel())
        return [tracking_pb2.TrackRequest(resume=resume), cancel]

    @property
    def is_waiting(self) -> bool:
        """Whether nothing may be sent before the server has said from where it goes on."""
        return self._is_waiting and self._opening is None

    def next_request(self) -> tracking_pb2.TrackRequest | None:
        """What must be sent before anything else; None: nothing."""
        if self._opening is not None:
            opening, self._opening = self._opening, None
            return opening
        return self._again.popleft() if self._again else None

    # Receiving

    def take(self, response: tracking_pb2.TrackResponse) -> bool:
        """Take in one response.

        Returns:
            False for an error that the caller has had: it comes again where a session begins anew.

        Raises:
            Internal: Responses are missing, or came twice.
            Unavailable: The server needs video again that is not kept here any more.
        """
        if response.number:
            if response.number != self._last_number + 1:
                raise Internal(f"the server sent response {response.number} after response {self._last_number}")
            self._last_number = response.number
        kind = response.WhichOneof("response") or ""
        if kind in ("frame_result", "prompt_result"):
            self._last_sequence = getattr(response, kind).sequence
        if kind == "frame_result":
            result = response.frame_result
            self.last = tracking_pb2.FrameMark(frame_index=result.frame_index, revision=result.revision)
        elif kind == "error" and response.request_id:
            self._unanswered.pop(response.request_id, None)
            self._forget_stops()
            is_known = response.request_id in self._refused
            self._refused.add(response.request_id)
            return not is_known
        elif kind in _ANSWERS and response.request_id in self._unanswered:
            self._answered(response)
        elif kind == "session":
            self.token = response.session.resume_token
        elif kind == "moving":
            self.token = response.moving.token
        elif kind == "input_kept":
            self._let_go(response.input_kept)
        elif kind == "resumed":
            self._go_on(response.resumed)
        return True

    def _answered(self, response: tracking_pb2.TrackResponse) -> None:
        _, request = self._unanswered.pop(response.request_id)
        self._forget_stops()
        operation = request.WhichOneof("request") or ""
        if not response.HasField("applied") or operation not in _OPERATIONS or not self._keeps_applied:
            return
        answer = response.applied
        applied = tracking_pb2.AppliedOperation(request_id=response.request_id)
        getattr(applied, operation).CopyFrom(getattr(request, operation))
        applied.applied_after_sequence = answer.applied_after_sequence
        if answer.HasField("applied_after_frame"):
            applied.applied_after_frame = answer.applied_after_frame
        self._applied.append(applied)
        self._applied_bytes += applied.ByteSize()
        if self._applied_bytes > MAX_OPERATION_BYTES:
            self._may_rewind = False
            self._forget_applied(self._snapshot_request_id)
            # Beyond that, neither beginning anew nor a snapshot brings the session back.
            self._keeps_applied = self._applied_bytes <= MAX_OPERATION_BYTES
            if not self._keeps_applied:
                self._applied.clear()

    def _forget_stops(self) -> None:
        """A stop is never answered. It is over when everything that was asked before it is answered."""
        for number, (_, request) in tuple(self._unanswered.items()):
            if not request.HasField("stop_propagation"):
                return
            del self._unanswered[number]

    def _forget_applied(self, request_id: int) -> None:
        """A snapshot has the operations up to that one: they are needed only where the session may begin anew."""
        self._snapshot_request_id = max(self._snapshot_request_id, request_id)
        if not self.can_rewind:
            self._applied = [one for one in self._applied if one.request_id > self._snapshot_request_id]
            self._applied_bytes = sum(one.ByteSize() for one in self._applied)

    def _let_go(self, kept: tracking_pb2.InputKept) -> None:
        position = _position(kept, "position")
        while self._kept and self._kept[0][0] + _length(self._kept[0][1]) <= position:
            self._let_go_of_first()
        if kept.HasField("snapshot_frame"):
            self._forget_applied(kept.request_id)

    def _go_on(self, resumed: tracking_pb2.Resumed) -> None:
        position = _position(resumed, "input_from")
        self._is_waiting = False
        requests = [sent for number, sent in self._unanswered.items() if number > resumed.last_request_id]
        if self._reads_again:
            self._again.extend(request for _, request in requests)
            self._position, self._end_is_sent = position, resumed.end_of_video_taken
            self.read_from = None if resumed.end_of_video_taken else position
            return
        if position < self._kept_from and not resumed.end_of_video_taken:
            raise Unavailable(
                f"the connection was lost, and the server needs the video again from {position} on; this client kept "
                f"{KEPT_BYTES >> 20} MiB of it, from {self._kept_from} on; begin a new stream"
            )
        # A request comes before the part of the video that was sent after it.
        ordered = [(start, 1, _cut(start, part, position)) for start, part in self._kept]
        ordered = [one for one in ordered if one[2] is not None and not resumed.end_of_video_taken]
        ordered += [(start, 0, request) for start, request in requests]
        self._again.extend(request for _, _, request in sorted(ordered, key=lambda one: one[:2]) if request is not None)
        if self._end_is_sent and not resumed.end_of_video_taken:
            self._again.append(tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo()))


def how_resumed(resumed: tracking_pb2.Resumed) -> HowResumed | None:
    """Where the server goes on from; None for a way that only newer servers know."""
    return _HOW.get(resumed.how)


def _length(part: tracking_pb2.TrackRequest) -> int:
    return len(part.video_chunk) if part.HasField("video_chunk") else 1


def _cut(start: int, part: tracking_pb2.TrackRequest, position: int) -> tracking_pb2.TrackRequest | None:
    """What of a part lies behind a position; None: nothing does."""
    if start >= position:
        return part
    if start + _length(part) <= position:
        return None
    return tracking_pb2.TrackRequest(video_chunk=part.video_chunk[position - start :])


def _position(message: Any, group: str) -> int:
    field = message.WhichOneof(group)
    return getattr(message, field) if field else 0
