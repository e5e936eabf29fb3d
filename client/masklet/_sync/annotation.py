"""A running `Client.annotate`: prompts with immediate answers, and tracking when the caller asks for it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

from masklet._media.uploads import Upload
from masklet._protocol import wire
from masklet._protocol.annotation import (
    AnnotationProtocol,
    Answer,
    Applied,
    Direction,
    PropagationEnd,
    propagate_request,
)
from masklet._protocol.options import AnnotateOptions, annotate_config
from masklet._protocol.results import FrameResult, PromptResult, VideoInfo
from masklet._sync.stream import Stream
from masklet._transport.channel import Channel, TrackMethod
from masklet.errors import FailedPrecondition, Internal, MaskletError
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2

_Event = TypeVar("_Event", PromptResult, Applied)


def start_annotation(channel: Channel, upload: Upload, options: AnnotateOptions) -> Annotation:
    """Start an annotation.

    Raises:
        InvalidArgument: An option is wrong.
        FailedPrecondition: The client is closed.
    """
    config = annotate_config(options, frame_count=upload.frame_count, source_url=upload.source_url)
    method = channel.track_method(options, upload.picture_names)
    return Annotation(method, AnnotationProtocol(config, reads_again=upload.parts_from is not None), upload)


class Annotation(Stream):
    """A running `Client.annotate`: SAM 2's own way of working with one video, and a context manager that ends it.

    A request waits for its answer. If the server refuses a request, the request raises what is wrong with it, and the
    session goes on. When the session itself has ended, every further request raises why.

    Threads may share it; a request waits for the one before it. `prepare`, `stop`, `cancel` and `close` never wait. A
    request that comes while a loop over `propagate` is running ends that propagation first.
    """

    def __init__(self, method: TrackMethod, protocol: AnnotationProtocol, upload: Upload) -> None:
        self._protocol = protocol
        self._turn = threading.RLock()
        self._propagation = 0  # the number of the request whose propagation is running; 0: none
        self._failure: BaseException | None = None
        super().__init__(method, protocol, upload)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "running"
        return f"Annotation(session_id={self.session_id!r}, model={self.model!r}, {state})"

    @property
    def video(self) -> VideoInfo:
        """What is known of the video; waits until its first frame is decoded.

        Raises:
            MaskletError: The session has ended, for instance because the video cannot be decoded.
        """
        with self._turn:
            while (video := self._protocol.video) is None:
                self._receive()
            return video

    @property
    def frame_count(self) -> int:
        """The number of frames in the video; waits until all of them are decoded.

        Raises:
            MaskletError: The session has ended.
        """
        with self._turn:
            while not self._protocol.is_decoded:
                self._receive()
            return self.video.frame_count

    def prompt(self, prompt: Prompt) -> PromptResult:
        """Prompt an object on any frame, or correct it there.

        An object that was tracked keeps its masks on other frames until `propagate` goes over them again.

        Args:
            prompt: What to track, and on which frame.

        Returns:
            The object's result on that frame.

        Raises:
            InvalidArgument: The prompt does not fit the video.
            ResourceExhausted: There are too many objects, or too many frames on which the object is prompted.
            MaskletError: The session has ended.
        """
        return self._ask(tracking_pb2.TrackRequest(prompt=wire.prompt_to_wire(prompt)), PromptResult)

    def clear_prompts(self, object_id: int, frame_index: int) -> PromptResult:
        """Take back an object's prompts on a frame (SAM 2's ``clear_all_prompts_in_frame``).

        Args:
            object_id: As in the object's prompts.
            frame_index: The prompts' frame.

        Returns:
            What the object has there now: the mask that was tracked, or an empty one.

        Raises:
            NotFound: There is no object of that id.
            MaskletError: The session has ended.
        """
        clear = tracking_pb2.ClearPrompts(object_id=object_id, frame_index=frame_index)
        return self._ask(tracking_pb2.TrackRequest(clear_prompts=clear), PromptResult)

    def remove_object(self, object_id: int) -> None:
        """Forget an object with its prompts and results.

        Args:
            object_id: As in the object's prompts.

        Raises:
            NotFound: There is no object of that id.
            MaskletError: The session has ended.
        """
        remove = tracking_pb2.RemoveObject(object_id=object_id)
        self._ask(tracking_pb2.TrackRequest(remove_object=remove), Applied)

    def reset(self) -> None:
        """Forget all objects, prompts and results; the video stays (SAM 2's ``reset_state``).

        Raises:
            MaskletError: The session has ended.
        """
        self._ask(tracking_pb2.TrackRequest(reset=tracking_pb2.Reset()), Applied)

    def prepare(self, frame_index: int) -> None:
        """Have the server encode a frame that a person looks at, so that the first prompt there is answered sooner.

        This is a hint, which never waits and changes no result. The server does it while nothing else is asked of the
        session; a later hint takes the place of one that was not begun. A propagation goes on. Older servers do not
        know of hints; they are sent none.

        Args:
            frame_index: The frame; one that the video does not have is ignored.

        Raises:
            InvalidArgument: It is no frame index.
            MaskletError: The session has ended.
        """
        self._check_open()
        with self._sender.changing():
            self._protocol.prepare(frame_index)

    def propagate(
        self,
        start_frame_index: int | None = None,
        max_frames: int | None = None,
        direction: Direction = "forward",
        object_ids: Iterable[int] | None = None,
    ) -> Generator[FrameResult, None, None]:
        """Track all objects over a range of frames; iterate over the answer to get a `FrameResult` for each.

        Tracking starts with the iteration, and runs ahead of it by at most the window. A loop that is left early ends
        the propagation. So does any other request; the old loop cannot go on then. Frames that were tracked ahead of a
        loop that was left count as tracked; with a window of 1 there are none.

        Args:
            start_frame_index: Where to start; None: at the first frame with a prompt.
            max_frames: How many frames to track at most after the first one; None: all, to the end of the video or to
                its start.
            direction: "forward", "backward", or "both": forward, then backward from the same frame.
            object_ids: The objects to track, for instance the corrected one; the others stay as they are. None: all.

        Raises:
            InvalidArgument: An argument is wrong. Raised by the call itself.
            FailedPrecondition: Nothing is prompted, or another request has ended this propagation. Raised in the loop.
            MaskletError: The session has ended. Raised in the loop.
        """
        return self._frames(propagate_request(start_frame_index, max_frames, direction, object_ids))

    def stop(self) -> None:
        """End the running propagation, if there is one; its loop ends after the results that are on their way."""
        with self._sender.changing():
            self._protocol.ask(tracking_pb2.TrackRequest(stop_propagation=tracking_pb2.StopPropagation()))

    def _frames(self, request: tracking_pb2.TrackRequest) -> Generator[FrameResult, None, None]:
        with self._turn:
            self._end_propagation()
            number = self._propagation = self._send(request)
        try:
            while (frame := self._next_frame(number)) is not None:
                yield frame
        finally:
            with self._turn:
                if self._propagation == number:
                    self._end_propagation()

    def _next_frame(self, number: int) -> FrameResult | None:
        with self._turn:
            if self._propagation != number:
                raise FailedPrecondition("this propagation was ended by a later request; propagate again")
            with self._sender.changing():
                self._protocol.acknowledge()
            event = self._answer_to(number).event
            return event if isinstance(event, FrameResult) else None

    def _end_propagation(self) -> None:
        """Stop the running propagation, and drop its last results."""
        if self._propagation and not self._ended:
            self.stop()
            while self._propagation:
                self._receive()

    def _ask(self, request: tracking_pb2.TrackRequest, kind: type[_Event]) -> _Event:
        with self._turn:
            self._end_propagation()
            event = self._answer_to(self._send(request)).event
        if not isinstance(event, kind):
            raise Internal(f"the server answered a request with {type(event).__name__}, not with {kind.__name__}")
        return event

    def _send(self, request: tracking_pb2.TrackRequest) -> int:
        self._check_open()
        with self._sender.changing():
            return self._protocol.ask(request)

    def _answer_to(self, number: int) -> Answer:
        while (answer := self._receive()).request_id != number:
            pass  # an answer to a request whose caller was interrupted, or of a propagation that was stopped
        if isinstance(answer.event, MaskletError):
            raise answer.event
        return answer

    def _receive(self) -> Answer:
        """The next answer; an error that belongs to no request is raised."""
        self._check_open()
        response = self._read_or_end()
        try:
            with self._sender.changing():
                answer = self._protocol.take(response)
        except MaskletError as error:  # the server has not kept to what it said before
            self._failure = error
            self.close()
            raise
        if answer.request_id == self._propagation and isinstance(answer.event, PropagationEnd | MaskletError):
            self._propagation = 0
        if answer.request_id == 0 and isinstance(answer.event, MaskletError):
            raise answer.event
        return answer

    def _read_or_end(self) -> tracking_pb2.TrackResponse:
        try:
            return self._read()
        except StopIteration:
            self._failure = FailedPrecondition("the server has ended the session")
            raise self._failure from None
        except Exception as error:
            if self._ended:
                raise _closed() from None
            self._failure = error
            self.close()
            raise

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._ended:
            raise _closed()


def _closed() -> FailedPrecondition:
    return FailedPrecondition("this annotation is closed; client.annotate(...) begins another one")
