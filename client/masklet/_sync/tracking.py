"""A running `Client.track`: results are iterated over, prompts come in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from masklet._media.uploads import Upload
from masklet._protocol.options import OnError, OnPrompt, TrackOptions, track_config
from masklet._protocol.results import FrameResult, PromptResult, VideoInfo
from masklet._protocol.track import TrackProtocol, prompts_of
from masklet._sync.stream import Stream
from masklet._transport.channel import Channel, TrackMethod
from masklet.errors import MaskletError
from masklet.prompts import Prompt
from masklet.recording import Recording
from masklet.v1 import tracking_pb2


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
    channel: Channel, upload: Upload, prompts: Prompt | Iterable[Prompt], options: TrackOptions
) -> Tracking:
    """Start a track call.

    Raises:
        InvalidArgument: A prompt or an option is wrong.
        FailedPrecondition: The client is closed.
    """
    config = track_config(options, frame_count=upload.frame_count, source_url=upload.source_url)
    method = channel.track_method(options.get("timeout"), upload.picture_names)
    protocol = TrackProtocol(config, prompts_of(prompts), pictures=upload.pictures)
    tracking = Tracking(method, protocol, upload.parts, Handlers.of(options))
    tracking.source = upload.path
    return tracking


class Tracking(Stream, Iterator[FrameResult]):
    """A running `Client.track`: an iterator over frames, and a context manager that ends the call.

    Attributes:
        source: The video's path; empty if it has none.
    """

    source: str = ""

    def __init__(
        self,
        method: TrackMethod,
        protocol: TrackProtocol,
        parts: Iterator[tracking_pb2.TrackRequest],
        handlers: Handlers,
    ) -> None:
        self._handlers = handlers
        super().__init__(method, protocol, parts)

    @property
    def video(self) -> VideoInfo | None:
        """What the video's header says; None until the first result is here."""
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
        """
        with self._sender.changing():
            self._sender.protocol.prompt(prompt)

    def add_prompt(self, prompt: Prompt) -> None:
        """The older name of `prompt`; for a `Live` call too, it goes by the prompt's own `frame_index`."""
        with self._sender.changing():
            self._sender.protocol.prompt(prompt)

    def remove_object(self, object_id: int) -> None:
        """Stop tracking an object from the next frame on; from any thread.

        Args:
            object_id: As in the object's prompts.
        """
        with self._sender.changing():
            self._sender.protocol.remove_object(object_id)

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back an object's prompts on a frame, if they were not applied yet; from any thread.

        Args:
            object_id: As in the object's prompts.
            frame_index: The prompts' frame.
        """
        with self._sender.changing():
            self._sender.protocol.clear_prompts(object_id, frame_index)

    def recording(self) -> Recording:
        """Take all results to the end of the video, and return them as one object that can be saved and exported.

        Raises:
            MaskletError: The server reports an error.
        """
        recording = Recording(self, source=self.source)
        recording.video = self.video
        return recording

    def __iter__(self) -> Tracking:
        return self

    def __next__(self) -> FrameResult:
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
            response = self._read()
            with self._sender.changing():
                event = self._sender.protocol.receive(response)
            if isinstance(event, FrameResult):
                return event
            if event is not None:
                self._handlers.pass_on(event)
