"""The tracking loop: frames and prompts in, results out, in order, two frames under way at most."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from masklet.errors import DataLoss
from masklet_server.session.automatic.corrections import Corrections
from masklet_server.session.automatic.frame_reader import FrameReader
from masklet_server.session.automatic.frame_tracker import FrameTracker
from masklet_server.session.automatic.operation_gate import OperationGate
from masklet_server.session.automatic.tracked_objects import TrackedObjects
from masklet_server.session.automatic.waiting_prompts import WaitingPrompts
from masklet_server.session.context import SessionContext, either
from masklet_server.session.intake import FileVideo, PacketVideo, Video
from masklet_server.session.jobs import SessionJobs, TrackedFrame
from masklet_server.session.restoring.state import AutomaticState, Captured, VideoState, WindowFrame, config_fields
from masklet_server.session.sending import BackgroundSender, FrameOutcome, ResultSender
from masklet_server.video.frame import Frame, KeyFrame


@dataclass(frozen=True)
class _Reached:
    """The frame that was tracked last, without its pixels."""

    index: int
    size: tuple[int, int]
    key_frame: KeyFrame | None


class Tracker:
    """Tracks one session's objects through all frames.

    While the masks of one frame are encoded and sent, the engine works on the next frame; no third one is under way.
    Corrections of tracked frames come before new frames.

    Attributes:
        corrections: Corrects tracked frames.

    Args:
        context: The session's.
        objects: The objects. One joins when a frame with its first prompt is tracked. One that is removed is still in
            the results of the frames under way.
        prompts: The prompts that wait.
        gate: Is told of each step.
    """

    def __init__(
        self, context: SessionContext, objects: TrackedObjects, prompts: WaitingPrompts, gate: OperationGate
    ) -> None:
        self._context = context
        self._gate = gate
        self._prompts = prompts
        self._credits = context.credits
        self._snapshots = context.survival.snapshots
        self._idle = context.idle
        self._jobs = SessionJobs(context)
        self._results = ResultSender(context)
        self._frame_tracker = FrameTracker(context, objects, self._jobs)
        self.corrections = Corrections(context, objects, prompts, self._jobs)
        self._objects = objects
        self._size: tuple[int, int] | None = None
        self._client_is_done = False
        self._reached: _Reached | None = None
        self._checksum = 0
        self._request_id = 0

    def client_is_done(self) -> None:
        """The client will send no prompt any more, so no frame will be corrected except by those that wait."""
        self._client_is_done = True

    def clear(self) -> None:
        """Let all memories and frames go."""
        self.corrections.clear()
        self._jobs.clear()

    def note_request(self, request_id: int) -> None:
        """The client's request of that number was taken, and will not be asked for again."""
        self._request_id = max(self._request_id, request_id)

    async def run(self, frames: FrameReader, video: Video) -> None:
        """Track every frame to the end of the video, and send all results.

        Args:
            frames: All of the video's.
            video: How it comes.

        Raises:
            MaskletError: The source or the engine has failed. What was tracked before is sent.
        """
        try:
            async with BackgroundSender() as background:
                while await self._has_work(frames):
                    await self._save(frames, video, background)
                    await self._take_credit()
                    outcome = await self._work(frames)
                    if outcome is None:
                        self._credits.give_back()
                    else:
                        await background.send(self._send(outcome))
        finally:
            await self.corrections.end()

    async def _send(self, outcome: FrameOutcome) -> None:
        await self._gate.before_sending()
        await self._results.send_frame(outcome)

    async def _has_work(self, frames: FrameReader) -> bool:
        """Wait for a frame or a correction. Returns False if neither will come."""
        while not self.corrections.are_due and not frames.has_next:
            if not frames.at_end:
                with self._idle.waiting("the next frame of the video, or end_of_video"):
                    await self._unless_corrected(frames.ready())
                continue
            self._prompts.end_times()
            if await self._gate.let_all_in():
                continue
            if self._context.options.waits_for_acks and not self.corrections.are_due:
                with self._idle.waiting("acks of the last results, or corrections"):
                    await self._unless_corrected(self._credits.all_acknowledged())
            if not self.corrections.are_due:
                return False
        return True

    async def _unless_corrected(self, awaited: Coroutine[Any, Any, object]) -> None:
        """Wait for something, or for a correction, whichever comes first."""
        await either(awaited, self._prompts.corrected.wait())

    async def _take_credit(self) -> None:
        waits = f"an ack, because the window of {self._credits.window} frame results is full"
        if self._context.options.latest and not self._credits.available:
            await self._idle.wait_for_client(self._credits.take(), waits)
            return
        with self._idle.waiting(waits):
            await self._credits.take()

    async def _work(self, frames: FrameReader) -> FrameOutcome | None:
        """Correct something, if there is anything to correct, or else track the next frame; None if nothing came."""
        if self.corrections.are_due:
            async with self._gate.step() as made:
                made.outcome = await self.corrections.step()
            return made.outcome
        return await self._track_next(frames) if frames.has_next else None

    async def _track_next(self, frames: FrameReader) -> FrameOutcome:
        frame = self._note(frames.take())
        if self._client_is_done and not self._prompts.waits_for_times:
            self._objects.window.narrow(1, self._objects.banks)
        # Asked on the first frame even if no object is tracked yet. Later, a client that sends pictures only as far
        # ahead as its window reaches would wait for results, and never send the pictures that tell the length.
        with self._idle.waiting("further frames, which tell how long the clip is, or end_of_video"):
            frame = replace(frame, clip_length=await frames.clip_length())
        async with self._gate.step() as made:
            await self._place_times(frame.frame, frames)
            # From here on, prompts for this frame are corrections.
            await self._fit(frame.frame)
            prompts = self._prompts.take(frame.index)
            upcoming = [one.pixels for one in frames.upcoming[: self._context.options.encode_ahead - 1]]
            made.outcome = outcome = await self._frame_tracker.track(frame, prompts, upcoming)
        if self._snapshots is not None:
            self._snapshots.frame_tracked()
        return outcome

    async def _place_times(self, frame: Frame, frames: FrameReader) -> None:
        """Give the frame the prompts whose times it is nearest to."""
        upcoming = None
        if self._prompts.waits_for_times:
            with self._idle.waiting("the next frame, to find the frame that is nearest to a prompt's pts_seconds"):
                upcoming = await frames.peek()
        self._prompts.place(
            frame.index,
            frame.pts_nanoseconds,
            upcoming=None if upcoming is None else upcoming.pts_nanoseconds,
            last=frames.at_end,
        )

    async def _fit(self, frame: Frame) -> None:
        """Compare waiting prompts with the size of the frame, if it is not the size of the frame before."""
        size = (frame.height, frame.width)
        if self._size not in (None, size):
            for refused in self._prompts.fit(*size):
                await self._context.send(refused.answer)
        self._size = size

    # Snapshots

    def _note(self, frame: TrackedFrame) -> TrackedFrame:
        """Remember which frame was taken last, and what all of them were like."""
        one = frame.frame
        self._checksum = zlib.crc32(one.checksum.to_bytes(4, "little"), self._checksum)
        self._reached = _Reached(frame.index, (one.height, one.width), one.key_frame)
        return frame

    async def _save(self, frames: FrameReader, video: Video, background: BackgroundSender) -> None:
        """Store the session, if it is time, and no frame, correction, operation or answer is under way."""
        if self._snapshots is None or not self._snapshots.is_due or not self._is_settled:
            return
        await background.flush()
        await self._gate.before_sending()
        if self._is_settled and self._context.reporter.is_flushed:
            captured = self._captured(frames, video)
            if captured is not None:
                self._snapshots.take(captured)

    @property
    def _is_settled(self) -> bool:
        return self._gate.is_settled and not self.corrections.are_due

    def _captured(self, frames: FrameReader, video: Video) -> Captured | None:
        """The session as it is now; None where the video could not go on from here."""
        options = self._context.options
        size = options.correction_window if options.config.correction_window and not options.latest else 0
        window = self._objects.window.dump(size)
        video_state = self._video_state(frames, video, window)
        if video_state is None:
            return None
        state = AutomaticState(
            config_fields(options.config),
            self._request_id,
            video_state,
            self._credits.dump(),
            self._objects.dump(),
            self._prompts.dump(),
            window,
            options.model.weights_checksum,
        )
        return Captured(state, self._objects.copied_banks(len(window)))

    def _video_state(self, frames: FrameReader, video: Video, window: list[WindowFrame]) -> VideoState | None:
        reached = self._reached
        if reached is None:
            return None
        state = VideoState(
            unit="", count=0, first_index=0, steps=frames.taken, last_index=reached.index, size=reached.size,
            checksum=self._checksum, is_long=frames.is_long,
        )  # fmt: skip
        if isinstance(video, FileVideo):
            return state if self._context.options.config.source_url else replace(state, unit="video_bytes")
        if not isinstance(video, PacketVideo):
            first = min([*window[0].skipped, window[0].index]) if window else reached.index + 1
            return replace(state, unit="frame_count", count=first, first_index=first)
        key = self._objects.window.key_frame(window[0].index) if window else reached.key_frame
        if key is None:
            return None
        codec, extradata = video.source.codec
        return replace(
            state, unit="packet_count", count=key.packet, first_index=key.index, codec=codec,
            extradata=base64.b64encode(extradata).decode(),
        )  # fmt: skip

    async def catch_up(self, frames: FrameReader, state: AutomaticState) -> None:
        """Take the frames that were tracked before the session was restored, without tracking them again.

        Raises:
            DataLoss: The video is not the one that was tracked.
        """
        video, found = state.video, []
        window = {one.index: one for one in state.window}
        self._size, self._request_id = video.size, max(self._request_id, state.request_id)
        while not self._context.options.latest and frames.taken < video.steps:
            with self._idle.waiting(f"the video again, up to frame {video.last_index}, from where resumed says"):
                if not await frames.ready():
                    raise DataLoss(
                        f"the video that was sent again ends after {frames.taken} frames, but {video.steps} of it were "
                        "tracked before; send the same video"
                    )
            frame = self._note(frames.take())
            if (known := window.get(frame.index)) is not None:
                again = TrackedFrame(frame.frame, known.step, tuple(known.skipped), known.clip_length)
                found.append((again, known.revision))
        if video.unit in ("", "video_bytes") and not self._context.options.latest and self._checksum != video.checksum:
            raise DataLoss(
                f"the video that was sent again differs from the one that was tracked, in one of its first "
                f"{video.steps} frames; send the same video"
            )
        self._objects.window.restore(found, self._prompts.next_frame - 1, video.steps - 1)
