"""A running `Client.track`: results are iterated over, prompts come in between."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from masklet._media.uploads import Upload
from masklet._progress import bar
from masklet._protocol.options import OnError, OnPrompt, TrackOptions, track_config
from masklet._protocol.results import FrameResult, PromptResult, VideoInfo
from masklet._protocol.track import TrackProtocol, prompts_of
from masklet._sync.stream import Stream
from masklet._transport.channel import Channel, TrackMethod
from masklet.errors import FailedPrecondition, MaskletError
from masklet.prompts import Prompt
from masklet.recording import Recording


@dataclass(frozen=True)
class Handlers:
    """Functions of the caller that take what comes between the results; `TrackOptions` describes them."""

    on_prompt: OnPrompt | None = None
    on_error: OnError | None = None

    @classmethod
    def of(cls, options: TrackOptions) -> Handlers:
        """Those that the options name."""
        return cls(options.get("on_prompt"), options.get("on_error"))

    def pass_on(self, event: PromptResult | MaskletError) -> None:
        """Call the function that the event is for; without one, prompt results are dropped and errors raised."""
        if isinstance(event, PromptResult):
            if self.on_prompt is not None:
                self.on_prompt(event)
        elif self.on_error is None:
            raise event
        else:
            self.on_error(event)


def start_tracking(
    channel: Channel, upload: Upload, prompts: Iterable[Prompt | Iterable[Prompt]], options: TrackOptions
) -> Tracking:
    """Start a track call.

    Raises:
        InvalidArgument: A prompt or an option is wrong.
        FailedPrecondition: The client is closed.
    """
    config = track_config(options, frame_count=upload.frame_count, source_url=upload.source_url)
    method = channel.track_method(options, upload.picture_names)
    protocol = TrackProtocol(
        config, prompts_of(*prompts), pictures=upload.pictures, reads_again=upload.parts_from is not None
    )
    tracking = Tracking(method, protocol, upload, Handlers.of(options))
    tracking.source = upload.path
    return tracking


class Tracking(Stream, Iterator[FrameResult]):
    """A running `Client.track`: an iterator over frames, and a context manager that ends the call.

    Attributes:
        source: The video's path; empty if it has none.
    """

    source: str = ""

    def __init__(self, method: TrackMethod, protocol: TrackProtocol, upload: Upload, handlers: Handlers) -> None:
        self._handlers = handlers
        self._turn = threading.RLock()  # of reading responses
        self._waiting: deque[FrameResult | PromptResult | MaskletError] = deque()  # read, and not given out yet
        self._failure: BaseException | None = None  # raised where the video was waited for; the loop raises it, too
        super().__init__(method, protocol, upload)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "running"
        return f"{type(self).__name__}(session_id={self.session_id!r}, model={self.model!r}, {state})"

    @property
    def video(self) -> VideoInfo:
        """What the video's header says; waits until the server has decoded the first frame.

        So of a `Live` it waits until a frame was sent, by another thread if not before.

        Raises:
            MaskletError: The call has ended without it, for instance because the video cannot be decoded.
        """
        while (video := self.video_so_far) is None:
            with self._turn:
                if self.video_so_far is None:
                    self._wait_for_video()
        return video

    @property
    def video_so_far(self) -> VideoInfo | None:
        """What the video's header says; None while that is not known."""
        return self._sender.protocol.video

    @property
    def undecoded_pts_seconds(self) -> tuple[float, ...]:
        """Times of the frames so far that the file has and that could not be decoded, because it is damaged."""
        return self._sender.protocol.undecoded_pts_seconds

    def prompt(self, prompt: Prompt) -> None:
        """Prompt an object while the video runs, or correct it; from any thread.

        If the prompt's frame was tracked already, the object is corrected: the frame and those after it come once more,
        in order, with the corrected objects alone and a higher `FrameResult.revision`. Every frame of a file can be
        corrected; of other videos, only the frames within the correction window.

        Args:
            prompt: What to track, and on which frame.

        Raises:
            FailedPrecondition: The call has ended.
        """
        with self._requesting():
            self._sender.protocol.prompt(prompt)

    def add_prompt(self, prompt: Prompt) -> None:
        """The older name of `prompt`; for a `Live` call too, it goes by the prompt's own `frame_index`."""
        with self._requesting():
            self._sender.protocol.prompt(prompt)

    def remove_object(self, object_id: int) -> None:
        """Stop tracking an object from the next frame on; from any thread.

        Args:
            object_id: As in the object's prompts.

        Raises:
            FailedPrecondition: The call has ended.
        """
        with self._requesting():
            self._sender.protocol.remove_object(object_id)

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back an object's prompts on a frame, if they were not applied yet; from any thread.

        Args:
            object_id: As in the object's prompts.
            frame_index: The prompts' frame.

        Raises:
            FailedPrecondition: The call has ended.
        """
        with self._requesting():
            self._sender.protocol.clear_prompts(object_id, frame_index)

    def recording(self, *, progress: bool | None = None) -> Recording:
        """Take all results to the end of the video, and return them as one object that can be saved and exported.

        Args:
            progress: Show a bar meanwhile. None: in a notebook; True: on a terminal, too; False: nowhere.

        Raises:
            MaskletError: The server reports an error.
        """
        recording = Recording(source=self.source)
        with bar("tracking", progress) as advance:
            for frame in self:
                recording.add(frame)
                recording.video = self.video_so_far
                advance(len(recording), recording.video.frame_count if recording.video is not None else 0)
        return recording

    @contextlib.contextmanager
    def _requesting(self) -> Iterator[None]:
        if self._ended:
            raise FailedPrecondition("the stream has ended, so that nothing more can be asked of it; begin another one")
        with self._sender.changing():
            yield

    def __iter__(self) -> Tracking:
        return self

    def __next__(self) -> FrameResult:
        if self._failure is not None:
            raise self._failure
        if self._ended:
            raise StopIteration
        try:
            return self._next_frame()
        except BaseException:
            self.close()
            raise

    def _next_frame(self) -> FrameResult:
        with self._sender.changing():
            self._sender.protocol.acknowledge()
        while True:
            with self._turn:
                event = self._waiting.popleft() if self._waiting else self._receive()
            if isinstance(event, FrameResult):
                return event
            if event is not None:
                self._handlers.pass_on(event)

    def _receive(self) -> FrameResult | PromptResult | MaskletError | None:
        response = self._read()
        with self._sender.changing():
            return self._sender.protocol.receive(response)

    def _wait_for_video(self) -> None:
        """Read one response; its event waits for the loop over the results."""
        if self._ended:
            raise FailedPrecondition("the call has ended, and its video was never described")
        try:
            event = self._receive()
        except StopIteration:
            self.close()
            raise FailedPrecondition("the video has no frame, so that nothing is known of it") from None
        except BaseException as error:
            self._failure = error
            self.close()
            raise
        if event is not None:
            self._waiting.append(event)
