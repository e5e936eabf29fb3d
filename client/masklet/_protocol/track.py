"""The client's half of one Track call, without I/O: what to send next, and what a response means.

Its driver (such as `Tracking`) asks `next_request` what to send, and hands every response to `receive`. The two must
not run at the same time.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from masklet._protocol import wire
from masklet._protocol.results import FrameResult, PromptResult, VideoInfo
from masklet._protocol.resumption import HowResumed, Resumption, how_resumed
from masklet._protocol.status import from_status
from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, Unavailable
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2

# A server that does not know a clip's length looks this far ahead before its first result: SAM 2.1 treats clips of
# fewer frames differently.
LOOKAHEAD_FRAMES = 16


class Step(enum.Enum):
    """What to do when there is no message to send."""

    VIDEO = enum.auto()
    """Fetch the video's next part and hand it to `add_part`."""
    WAIT = enum.auto()
    """Ask again after the next response, prompt or `close`."""
    END = enum.auto()
    """Half-close the call: nothing will follow."""


class TrackProtocol:
    """One tracking session as the client sees it.

    Messages go out in this order: config, prompts, then the parts of the video. Acknowledgements and later prompts go
    between the parts. Pictures are sent only as far ahead of the results as the server's window reaches. Otherwise the
    server would keep those that come too early on its disk, and see acknowledgements later.

    A result is acknowledged as soon as it is here, and the server goes on meanwhile. If `config` names a correction
    window, the acknowledgement waits until the caller asks for the next result (`acknowledge`), and is sent after the
    prompts that were given by then. So a prompt that the caller gives after a look at a result is in time, even after
    the last result.

    If the session is resumable, its requests are numbered. When its call has broken, `detach` begins a new one. What
    the server has not taken is sent again, and `read_from` says where the video must be read again.

    Args:
        config: The first message.
        prompts: Prompts to send before the video.
        pictures: True where every part of the video is a picture, one for each frame.
        reads_again: True where the video can be read again from any position.

    Attributes:
        resumption: What is kept to go on in a new call; None where the session is not resumable.
        session_id: The server's name for the session; empty until the server has answered.
        model: The model in use; empty until the server has answered.
        video: What is known of the video; None until the server has decoded the first frame.
        finished: True once the server has sent everything.
        undecoded_pts_seconds: Times of the frames so far that the file has and that could not be decoded.
    """

    def __init__(
        self,
        config: tracking_pb2.TrackConfig,
        prompts: Iterable[Prompt],
        *,
        pictures: bool,
        reads_again: bool = False,
    ) -> None:
        self.resumption = Resumption(config, reads_again=reads_again) if config.resumable else None
        self._last_request_id = 0
        self.session_id = ""
        self.model = ""
        self.video: VideoInfo | None = None
        self.undecoded_pts_seconds: tuple[float, ...] = ()
        self._requests = deque([tracking_pb2.TrackRequest(config=config)])
        self._parts: deque[tracking_pb2.TrackRequest] = deque()
        self._video_ended = self._closed = self.finished = False
        for prompt in prompts:
            self.prompt(prompt)
        self._pictures = pictures
        self._lookahead = 0 if config.frame_count else LOOKAHEAD_FRAMES
        self._window = 0
        self._acks_when_asked = config.correction_window > 0
        self._received = self._ack_due = self._ack_sent = 0
        self._pictures_sent = self._frames_taken = 0

    def prompt(self, prompt: Prompt) -> None:
        """Send a prompt before the next part of the video.

        Raises:
            FailedPrecondition: The stream has ended.
        """
        self._request(tracking_pb2.TrackRequest(prompt=wire.prompt_to_wire(prompt)))

    def remove_object(self, object_id: int) -> None:
        """Ask the server to stop tracking an object, before the next part of the video.

        Raises:
            FailedPrecondition: The stream has ended.
        """
        self._request(tracking_pb2.TrackRequest(remove_object=tracking_pb2.RemoveObject(object_id=object_id)))

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back an object's prompts on a frame that are not applied yet, before the next part of the video.

        Raises:
            FailedPrecondition: The stream has ended.
        """
        cleared = tracking_pb2.ClearPrompts(object_id=object_id, frame_index=frame_index)
        self._request(tracking_pb2.TrackRequest(clear_prompts=cleared))

    def _request(self, request: tracking_pb2.TrackRequest) -> None:
        if self.finished or self._closed:
            raise FailedPrecondition(
                "the stream has ended, so that nothing more can be asked of it; with `correction_window` a clip waits "
                "for corrections of its last frames"
            )
        if self.resumption is not None:
            self._number(request)
        self._requests.append(request)

    def _number(self, request: tracking_pb2.TrackRequest) -> int:
        """Give a request a number of its own, one more than that of the request before it."""
        self._last_request_id += 1
        request.request_id = self._last_request_id
        return self._last_request_id

    def add_part(self, part: tracking_pb2.TrackRequest | None) -> None:
        """Hand over the next part of the video; None where the video has ended."""
        if self.read_from is not None:
            return  # of a source that an older call has read
        if part is None:
            self._video_ended = True
            part = tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo())
        elif self._pictures:
            self._pictures_sent += 1
        self._parts.append(part)

    def close(self) -> None:
        """Send nothing more from now on."""
        self._closed = True

    @property
    def read_from(self) -> int | None:
        """Where the video must be read again from, in bytes or pictures, before the next part; None: go on."""
        return None if self.resumption is None else self.resumption.read_from

    def reread(self) -> None:
        """Note that the video is being read again, from `read_from` on."""
        if self.resumption is not None:
            self.resumption.read_from = None

    @property
    def can_go_on(self) -> bool:
        """Whether another call could go on with the session."""
        return self.resumption is not None and self.resumption.is_possible and not self.finished

    @property
    def resume_token(self) -> str:
        """The server's name for the session in a `Resume`; empty where there is none."""
        return "" if self.resumption is None else self.resumption.token

    @property
    def last_frame_index(self) -> int | None:
        """The last frame whose result is here; None where there is none, or the session is not resumable."""
        last = None if self.resumption is None else self.resumption.last
        return None if last is None else last.frame_index

    def detach(self) -> None:
        """Go on in a new call, after the last one has broken; only where `can_go_on` says that it is possible."""
        if self.resumption is not None:
            self.resumption.detach(self._ack_sent)
            self._closed = False
            if not self.resumption.token:
                self._go_on(None)

    @property
    def can_begin_anew(self) -> bool:
        """Whether the client can repeat everything in another session, if the server does not have this one any more.

        Where the server can do it by itself (see `Resume.can_rewind`), the client need not.
        """
        return False

    def begin_anew(self) -> None:
        """Have the next call begin another session, and repeat everything in it; only where `can_begin_anew`."""

    @property
    def is_repeating(self) -> bool:
        """Whether another session is being brought to where the one before it stood."""
        return False

    def give_up(self) -> None:
        """Note that no other call will go on with the session."""
        self.resumption = None

    def leave(self) -> list[tracking_pb2.TrackRequest]:
        """Send nothing more, because the caller does not want the rest.

        Returns:
            The messages of a call that tells the server so; empty where it need not be told.
        """
        is_known = self.can_go_on and self.session_id
        farewell = self.resumption.farewell() if is_known and self.resumption is not None else []
        self._closed = True
        self.resumption = None
        return farewell

    def next_request(self) -> tracking_pb2.TrackRequest | Step:
        """The next message to send, or what to do instead."""
        if self.resumption is None or self._closed:
            return self._next_request()
        if (again := self.resumption.next_request()) is not None:
            return again
        if self.resumption.is_waiting:
            return Step.WAIT
        request = self._next_request()
        if not isinstance(request, Step):
            self.resumption.note(request)
        return request

    def _next_request(self) -> tracking_pb2.TrackRequest | Step:
        if self._closed:
            return Step.END
        if self._requests and not self.finished and not self.is_repeating:
            # Before acknowledgements: what a caller asks for before it takes the next result is in time for that one.
            return self._requests.popleft()
        if (sequence := self._acknowledgement()) > self._ack_sent:
            self._ack_sent = sequence
            return tracking_pb2.TrackRequest(ack=tracking_pb2.Ack(sequence=sequence))
        if self.finished:
            return Step.END
        if self._parts:
            return self._parts.popleft()
        return Step.VIDEO if self._may_send_part() else Step.WAIT

    def _may_send_part(self) -> bool:
        if self._video_ended:
            return False
        if not self._pictures:
            return True
        lookahead = self._lookahead if self._frames_taken == 0 else 0
        return self._pictures_sent - self._frames_taken < max(self._window, lookahead, 1)

    def _acknowledgement(self) -> int:
        """The sequence up to which results are acknowledged, as the server counts them."""
        return self._ack_due

    def acknowledge(self) -> None:
        """Note that the caller is done with all results that are here."""
        self._ack_due = self._received

    def receive(self, response: tracking_pb2.TrackResponse) -> FrameResult | PromptResult | MaskletError | None:
        """Take in one response.

        Returns:
            A result, or an error after which the call goes on; None where the caller need not know of the response.

        Raises:
            Internal: The server sent a mask in another encoding than was asked for, or left out a response.
            Unavailable: The call cannot go on with the session.
        """
        if self.resumption is not None and not self.resumption.take(response):
            return None
        kind = response.WhichOneof("response")
        if kind == "frame_result":
            self._take(response.frame_result.sequence)
            self._frames_taken += response.frame_result.revision == 0
            size = (0, 0) if self.video is None else (self.video.height, self.video.width)
            frame = wire.frame_from_wire(response.frame_result, size=size, model=self.model)
            self.undecoded_pts_seconds += frame.undecoded_pts_seconds
            return frame
        if kind == "prompt_result":
            self._take(response.prompt_result.sequence)
            return wire.prompt_result_from_wire(response.prompt_result)
        if kind == "session":
            self.session_id, self.model = response.session.session_id, response.session.model
            self._window = response.session.window
            if not response.session.resume_token:
                self.resumption = None
        elif kind == "resumed":
            self._go_on(how_resumed(response.resumed))
        elif kind == "video_info":
            self.video = wire.video_from_wire(response.video_info)
        elif kind == "error":
            error = from_status(response.error)
            # The server's reminder to acknowledge: the caller has not asked for results for a while, which is no fault.
            is_reminder = [violation.field for violation in error.violations] == ["ack"]
            return None if is_reminder else error
        elif kind == "done":
            self.finished = True
            self.undecoded_pts_seconds += wire.seconds_of(response.done.undecoded_pts_nanoseconds)
        return None  # also for kinds that only newer servers and clients know

    def _go_on(self, how: HowResumed | None) -> None:
        if how != "rewound":  # where the server was told which one was sent last
            self._ack_sent = 0  # nobody knows whether it has arrived
        if self.read_from is not None:
            self._parts.clear()
            self._video_ended = False
            self._pictures_sent = self.read_from if self._pictures else 0

    def _take(self, sequence: int) -> None:
        self._received = max(self._received, sequence)
        if not self._acks_when_asked:
            self._ack_due = self._received

    def end_of_stream(self) -> None:
        """Note that the server has closed the stream without an error.

        Raises:
            Unavailable: The server had not said that it was done.
        """
        if not self.finished:
            raise Unavailable(
                f"the server ended the stream after {self._frames_taken} frames without saying that it was done"
            )


def prompts_of(*prompts: Any) -> list[Prompt]:
    """Prompts, and lists of prompts, as one list.

    Raises:
        InvalidArgument: One of them is not a Prompt.
    """
    listed: list[Prompt] = []
    for one in prompts:
        if isinstance(one, Prompt):
            listed.append(one)
        elif isinstance(one, Iterable) and not isinstance(one, (str, bytes, Mapping)):
            for prompt in one:
                if not isinstance(prompt, Prompt):
                    _not_a_prompt(f"prompts[{len(listed)}]", prompt)
                listed.append(prompt)
        else:
            _not_a_prompt(f"prompts[{len(listed)}]" if len(prompts) > 1 else "prompts", one)
    return listed


def _not_a_prompt(field: str, value: Any) -> NoReturn:
    raise InvalidArgument.of(field, f"must be a masklet.Prompt, not {type(value).__qualname__}")
