"""A running `Client.live`: frames and packets are sent, results are iterated over, prompts come in between."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from masklet._media.pictures import PictureLike, picture_to_wire
from masklet._media.uploads import Upload
from masklet._protocol.live import LiveProtocol, VideoPacket, packet_to_wire
from masklet._protocol.options import LiveOptions, live_config
from masklet._protocol.pictures import Layout
from masklet._protocol.track import prompts_of
from masklet._sync.tracking import Handlers, Tracking
from masklet._transport.channel import Channel, TrackMethod
from masklet.errors import FailedPrecondition
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2


def start_live(channel: Channel, prompts: Iterable[Prompt | Iterable[Prompt]], options: LiveOptions) -> Live:
    """Start a live call.

    Raises:
        InvalidArgument: A prompt or an option is wrong.
        FailedPrecondition: The client is closed.
    """
    config = live_config(options)
    method = channel.track_method(options)
    return Live(method, LiveProtocol(config, prompts_of(*prompts)), Handlers.of(options))


class Live(Tracking):
    """A running `Client.live`: takes frames or packets, gives results, and ends the call as a context manager.

    One thread may send while another one takes results.
    """

    def __init__(self, method: TrackMethod, protocol: LiveProtocol, handlers: Handlers) -> None:
        self._live = protocol
        super().__init__(method, protocol, Upload(iter(()), pictures=False), handlers)

    def send(
        self,
        video: PictureLike | VideoPacket,
        *,
        pts_seconds: float | None = None,
        capture_time_nanoseconds: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Send the next frame, or the next packet. A stream consists of frames alone or of packets alone.

        It waits while the network is behind. With lossless delivery it also waits while the server has as many frames
        as it takes, until results are taken; so take the results on another thread.

        Args:
            video: A picture as for `Client.segment`, or a `VideoPacket`.
            pts_seconds: Its time since the start of the video; None: the frame's index / 30.
            capture_time_nanoseconds: When it was taken; it comes back in the result. None: now, by `time.time_ns`.
            layout: What the bytes of an array mean, if they are neither RGB nor gray: OpenCV's frames are "bgr24".

        Raises:
            FailedPrecondition: The call is over; the loop over the results raises why.
            InvalidArgument: The picture cannot be sent.
        """
        taken = time.time_ns() if capture_time_nanoseconds is None else capture_time_nanoseconds
        part = _part(video, layout)
        message: Any = part.packet if part.HasField("packet") else part.frame
        message.capture_time_nanoseconds = taken
        if pts_seconds is not None:
            message.pts_seconds = pts_seconds
        with self._sender.changing():
            self._sender.changed.wait_for(lambda: self._live.has_room or self._live.is_over)
            if self._live.is_over:
                raise FailedPrecondition("nothing more can be sent: the stream has ended, as its results will tell")
            self._live.push(part)

    def prompt(self, prompt: Prompt, *, frame_index: int | None = None) -> None:
        """Prompt an object, or correct it; from any thread.

        On a frame that was tracked already the object is corrected, as `Tracking.prompt` says.

        Args:
            prompt: What to track. Its own `frame_index` does not count.
            frame_index: The prompt's frame; None: the frame at the prompt's `pts_seconds`, or else the next frame to be
                tracked.

        Raises:
            FailedPrecondition: The call has ended.
        """
        with self._requesting():
            self._live.prompt_on(prompt, frame_index)

    def keep_alive(self) -> None:
        """Say that the video goes on although none comes at the moment, such as while a camera is connected again.

        Without a word from its client, a server ends a stream after a minute, unless its operator has set another time.
        """
        with self._sender.changing():
            self._live.keep_alive()

    def remove(self, object_id: int) -> None:
        """The older name of `remove_object`."""
        self.remove_object(object_id)

    def end(self) -> None:
        """Say that no more video will come; the loop over the results ends after the last one. May be called twice."""
        with self._sender.changing():
            self._live.end()

    def close(self) -> None:
        """End the call and free the server; the loop over the results ends, and so does `send`. May be called twice."""
        super().close()
        with self._sender.changing():  # gRPC reports later, on another thread, that the call has ended
            self._live.close()


def _part(video: Any, layout: Layout | None) -> tracking_pb2.TrackRequest:
    if isinstance(video, VideoPacket):
        return packet_to_wire(video)
    return tracking_pb2.TrackRequest(frame=picture_to_wire(video, field="video", layout=layout))
