"""A running live call: frames and packets are pushed, results are iterated over, prompts come in between."""

from __future__ import annotations

import time
from typing import Any

from masklet._live_protocol import LiveProtocol, VideoPacket
from masklet._pictures import ImageSource, Layout, picture_to_wire
from masklet._tracking import OnError, OnPrompt, StartCall, Tracking
from masklet.errors import FailedPrecondition
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2


class Live(Tracking):
    """A running `Client.live`: takes frames or packets, iterates over results, and ends the call as a context manager.

    One thread may send while another one takes results.
    """

    def __init__(
        self,
        start: StartCall,
        protocol: LiveProtocol,
        *,
        target: str,
        timeout: float | None,
        on_prompt: OnPrompt | None,
        on_error: OnError | None,
    ) -> None:
        self._live = protocol
        super().__init__(
            start, protocol, iter(()), target=target, timeout=timeout, on_prompt=on_prompt, on_error=on_error
        )

    def send(
        self,
        video: ImageSource | VideoPacket,
        *,
        pts_seconds: float | None = None,
        capture_time_nanoseconds: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Send the next frame, or the next packet; a stream is of one kind.

        Waits while the network is behind. With lossless delivery it also waits while the server has as many frames as
        it takes, which it goes on from only if results are taken: on another thread, then.

        Args:
            video: A picture as for `Client.segment`, or a `VideoPacket`.
            pts_seconds: Its time since the start of the video; by default the frame's index / 30.
            capture_time_nanoseconds: When it was taken; comes back in its result. By default now, by `time.time_ns`.
            layout: What an array's bytes mean, if not RGB or gray: OpenCV's frames are "bgr24".

        Raises:
            FailedPrecondition: The call is over; taking results raises why.
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
        """Follow an object, or follow it better; from any thread.

        On a frame that was tracked already the object is corrected, as `Tracking.add_prompt` says.

        Args:
            prompt: What to follow. Its own `frame_index` is not looked at.
            frame_index: The frame it is for; None: the one at the prompt's `pts_seconds`, or else the next one to be
                tracked.
        """
        with self._sender.changing():
            self._live.prompt(prompt, frame_index)

    def remove(self, object_id: int) -> None:
        """Stop following an object from the next frame to be tracked; from any thread."""
        self.remove_object(object_id)

    def end(self) -> None:
        """Say that no more video will come; the loop over results ends after the last one. May be called twice."""
        with self._sender.changing():
            self._live.end()

    def close(self) -> None:
        """End the call and free the server; iteration stops, and so does `send`. May be called twice."""
        super().close()
        with self._sender.changing():  # gRPC's word that the call has ended comes later, on another thread
            self._live.close()


def _part(video: Any, layout: Layout | None) -> tracking_pb2.TrackRequest:
    if not isinstance(video, VideoPacket):
        return tracking_pb2.TrackRequest(frame=picture_to_wire(video, field="video", layout=layout))
    return tracking_pb2.TrackRequest(
        packet=tracking_pb2.Packet(
            codec=video.codec, extradata=video.extradata, data=video.data, is_fragment=video.is_fragment
        )
    )
