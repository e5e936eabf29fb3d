"""Propagation on request: all frames are stored, and tracked in the order in which the client asks for it."""

from __future__ import annotations

import dataclasses

from masklet.errors import DataLoss, InvalidArgument
from masklet_server.session import events
from masklet_server.session.context import SessionContext
from masklet_server.session.intake import VideoIntake
from masklet_server.session.on_request.annotator import Annotator
from masklet_server.session.on_request.request_queue import RequestQueue
from masklet_server.session.replies import Described, Done
from masklet_server.video.frame_store import FrameStore
from masklet_server.video.info import VideoInfo


class OnRequestMode:
    """Stores all frames, and does what the client asks for, one request after the other.

    Attributes:
        idle_timeout_seconds: How long the session may go without progress once all of the video is there.
        frames: The frames decoded so far.
        requests: The client's requests that wait.
        annotator: Does what they ask for.

    Args:
        context: The session's.
    """

    def __init__(self, context: SessionContext) -> None:
        self.idle_timeout_seconds = context.limits.annotation_idle_timeout_seconds
        self.frames = FrameStore(context.limits.max_stored_frame_bytes, context.share.disk)
        self.requests = RequestQueue(context.limits)
        self.annotator = Annotator(context, self.frames, self.requests)
        self._context = context

    async def take(self, event: events.ModeEvent) -> None:
        """Put a request behind the others, or stop the propagations. A request is answered when its turn comes.

        Raises:
            ResourceExhausted: Too many requests wait, or their masks are too large.
        """
        match event:
            case events.StopPropagation():
                self.requests.stop()
            case events.Prepare(frame_index):
                self.annotator.prepare(frame_index)
            case _:
                self.requests.add(event)

    def finish(self) -> None:
        """The client will say nothing more, and acknowledge nothing more."""
        self._context.credits.lift()
        self.requests.finish()

    async def run(self, video: VideoIntake, info: VideoInfo) -> Done:
        """Describe the video, store its frames, and answer requests until there are no more.

        Args:
            video: Its first frame is decoded.
            info: What the first frame says of it.

        Returns:
            What to say at the end.

        Raises:
            MaskletError: The video can't be decoded or stored, or the engine has failed. A video that breaks off is a
                video as far as it goes.
        """
        await self._context.send(Described(info))
        storing = self._context.tasks.begin(self._store(video, info), "store")
        await self.annotator.run()
        await storing
        return Done(len(self.frames))

    def close(self) -> None:
        """Let all frames, requests and memories go."""
        self.annotator.close()
        self.requests.clear()
        self.frames.close()

    async def _store(self, video: VideoIntake, info: VideoInfo) -> None:
        """Store all frames. The session lasts long after that, so the decoder is freed as soon as nothing is fed."""
        source = (await video.opened).source
        undecoded: list[int] = []
        broken_off = None
        with self._context.idle.waiting("the next frame of the video, or end_of_video"):
            try:
                while (frame := await source.next_frame()) is not None:
                    self._context.idle.touch()
                    undecoded += frame.undecoded_nanoseconds
                    await self.frames.add(frame)
            except (DataLoss, InvalidArgument) as error:
                if not len(self.frames):
                    raise
                broken_off = error.with_traceback(None)
        undecoded += source.undecoded_at_end
        self.frames.end()
        await video.release()
        info = dataclasses.replace(info, frame_count=len(self.frames))
        await self._context.send(Described(info, tuple(undecoded), broken_off))
