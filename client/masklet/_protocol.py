"""The client's half of one Track call, without I/O: what to send next, and what a response means.

Whoever drives it (`Tracking` does) asks `next_request` what to send and hands every response to `receive`, and does not
let the two run at once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Any, NoReturn

from masklet import _status, _wire
from masklet._results import FrameResult, PromptResult, VideoInfo
from masklet.errors import InvalidArgument, MaskletError, Unavailable
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2

# A server that does not know a clip's length looks this far ahead before its first result: SAM 2.1 treats clips of
# fewer frames differently.
LOOKAHEAD_FRAMES = 16


class Step(enum.Enum):
    """What to do where there is no message to send."""

    VIDEO = enum.auto()
    """Fetch the video's next part and hand it to `add_part`."""
    WAIT = enum.auto()
    """Ask again after the next response, prompt or `close`."""
    END = enum.auto()
    """Half-close; nothing will follow."""


class TrackProtocol:
    """One tracking session as the client sees it.

    Order of what is sent: config, prompts, then the video's parts; acknowledgements and later prompts go between the
    parts. Pictures are sent only as far ahead of the results as the server's window reaches, so that a server which has
    stopped reading for want of acknowledgements never has one queued behind pictures it will not take.

    A result is acknowledged as soon as it is here, and the server goes on meanwhile. Where `config` names a correction
    window, that waits until the next one is asked for (`acknowledge`), and for what was said by then: prompts that come
    of looking at a result, at the last one of all too, are in time.

    Attributes:
        session_id: Empty until the server has answered.
        model: The model in use, empty until the server has answered.
        video: None until the server has decoded the first frame.
        finished: The server has sent everything.
    """

    def __init__(self, config: tracking_pb2.TrackConfig, prompts: Iterable[Prompt], *, pictures: bool) -> None:
        self.session_id = ""
        self.model = ""
        self.video: VideoInfo | None = None
        self.finished = False
        self._words = deque([tracking_pb2.TrackRequest(config=config)])
        self._parts: deque[tracking_pb2.TrackRequest] = deque()
        for prompt in prompts:
            self.add_prompt(prompt)
        self._pictures = pictures
        self._lookahead = 0 if config.frame_count else LOOKAHEAD_FRAMES
        self._window = 0
        self._acks_when_asked = config.correction_window > 0
        self._received = self._ack_due = self._ack_sent = 0
        self._pictures_sent = self._frames_taken = 0
        self._video_ended = self._closed = False

    def add_prompt(self, prompt: Prompt) -> None:
        """Send a prompt before the video's next part."""
        self._words.append(tracking_pb2.TrackRequest(prompt=_wire.prompt_to_wire(prompt)))

    def remove_object(self, object_id: int) -> None:
        """Stop following an object, before the video's next part."""
        self._words.append(tracking_pb2.TrackRequest(remove_object=tracking_pb2.RemoveObject(object_id=object_id)))

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back what was said of an object on a frame and waits, before the video's next part."""
        cleared = tracking_pb2.ClearPrompts(object_id=object_id, frame_index=frame_index)
        self._words.append(tracking_pb2.TrackRequest(clear_prompts=cleared))

    def add_part(self, part: tracking_pb2.TrackRequest | None) -> None:
        """Hand over the video's next part; None where it has ended."""
        if part is None:
            self._video_ended = True
            part = tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo())
        elif self._pictures:
            self._pictures_sent += 1
        self._parts.append(part)

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True

    def next_request(self) -> tracking_pb2.TrackRequest | Step:
        """The next message to send, or what to do instead."""
        if self._closed:
            return Step.END
        if self._acks_when_asked and self._words and not self.finished:
            return self._words.popleft()
        if self._ack_due > self._ack_sent:
            self._ack_sent = self._ack_due
            return tracking_pb2.TrackRequest(ack=tracking_pb2.Ack(sequence=self._ack_due))
        if self.finished:
            return Step.END
        if self._words:
            return self._words.popleft()
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

    def acknowledge(self) -> None:
        """The caller is done with all results that are here."""
        self._ack_due = self._received

    def receive(self, response: tracking_pb2.TrackResponse) -> FrameResult | PromptResult | MaskletError | None:
        """Take one response in.

        Returns:
            A result; or a fault that the client can mend, in spite of which the call goes on.

        Raises:
            Internal: The server sent a mask in another encoding than was asked for.
        """
        kind = response.WhichOneof("response")
        if kind == "frame_result":
            self._take(response.frame_result.sequence)
            self._frames_taken += response.frame_result.revision == 0
            return _wire.frame_from_wire(response.frame_result)
        if kind == "prompt_result":
            self._take(response.prompt_result.sequence)
            return _wire.prompt_result_from_wire(response.prompt_result)
        if kind == "session":
            self.session_id, self.model = response.session.session_id, response.session.model
            self._window = response.session.window
        elif kind == "video_info":
            self.video = _wire.video_from_wire(response.video_info)
        elif kind == "error":
            return _status.from_status(response.error)
        elif kind == "done":
            self.finished = True
        return None  # a kind that a newer server knows is not for this client

    def _take(self, sequence: int) -> None:
        self._received = max(self._received, sequence)
        if not self._acks_when_asked:
            self._ack_due = self._received

    def end_of_stream(self) -> None:
        """The server has closed the stream without an error.

        Raises:
            Unavailable: It had not said that it was done.
        """
        if not self.finished:
            raise Unavailable(
                f"the server ended the stream after {self._frames_taken} frames without saying it was done"
            )


def prompts_of(prompts: Any) -> list[Prompt]:
    """One prompt or several as a list.

    Raises:
        InvalidArgument: Something among them is no Prompt.
    """
    if isinstance(prompts, Prompt):
        return [prompts]
    if not isinstance(prompts, Iterable):
        _not_a_prompt("prompts", prompts)
    listed = list(prompts)
    for i, prompt in enumerate(listed):
        if not isinstance(prompt, Prompt):
            _not_a_prompt(f"prompts[{i}]", prompt)
    return listed


def _not_a_prompt(field: str, value: Any) -> NoReturn:
    raise InvalidArgument.of(field, f"must be a masklet.Prompt, not {type(value).__qualname__}")
