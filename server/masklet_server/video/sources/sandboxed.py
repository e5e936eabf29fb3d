"""What all sources have in common: their frames come from a decoding process."""

from __future__ import annotations

import abc
import asyncio
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from masklet.errors import Cancelled, MaskletError, ResourceExhausted
from masklet_server.budgets.decoder_memory import DecoderLease, needed_for
from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.video.frame import Frame, KeyFrame, in_nanoseconds
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import (
    EndOfFrames,
    EndOfInput,
    FrameDecoded,
    FrameUndecoded,
    FromDecoder,
    VideoOpened,
)
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sandbox.process_errors import error_of_nonsense

Source = TypeVar("Source", bound="SandboxedSource")


@dataclass(frozen=True)
class Arrival:
    """What the server itself knows of a frame; the attributes are those of `Frame`."""

    index: int
    pts: int
    arrived_seconds: float
    capture_time_nanoseconds: int = 0


class SandboxedSource(abc.ABC):
    """Gives the frames of one video in order. They are decoded in a sandboxed process of their own.

    A source is an asynchronous context manager. Entering it starts the decoding process; leaving it kills the process
    and frees its temporary file and its shared memory at once. One task feeds the source while another one takes
    frames, on the same event loop; what is fed may still be arriving while frames are taken.

    This class has the side of a source from which frames are taken, which is the same for all. A subclass starts its
    process in `_start`, and has a method `feed` of its own.

    Args:
        image_size: Side S of the frames that come out.
        limits: What the stream may cost.
        frames_ahead: Frames that are decoded before they are asked for.
        share: What the client may have of disk and of decoders' memory.
    """

    def __init__(
        self, image_size: int, limits: VideoLimits, *, frames_ahead: int = 4, share: ClientShare = UNBOUNDED
    ) -> None:
        if frames_ahead < 1:
            raise ValueError(f"frames_ahead is {frames_ahead}, must be at least 1")
        self._image_size = image_size
        self._limits = limits
        self._frames_ahead = frames_ahead
        self._share = share
        self._lease: DecoderLease | None = None
        self._process: DecoderProcess | None = None
        self._taking = asyncio.Lock()
        self._waiting = False
        self._info: VideoInfo | None = None
        self._time_base = Fraction(1)
        self._taken = 0
        self._undecoded: list[int] = []
        self._ended = False
        self._outcome: MaskletError | None = None
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = False

    @abc.abstractmethod
    async def _start(self) -> DecoderProcess:
        """Start the decoding process, ready to be fed."""

    async def __aenter__(self: Source) -> Source:
        """Start the decoding process; returns the source itself.

        Raises:
            ResourceExhausted: Decoders have no memory for one more.
            Unavailable: No process could be forked.
        """
        self._lease = self._share.admit_decoder()
        try:
            self._process = await self._start()
        except BaseException:
            self._lease.close()
            raise
        self._lease.started(self._process.pid, self._process.kill_process)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Kill the process and free everything it used."""
        if not self._over:
            self._failed(Cancelled("the source was left before its last frame"))
        if self._timer is not None:
            self._timer.cancel()
        self._free()
        if self._process is not None:
            self._process.kill()
            try:
                await self._process.reaped()
            finally:
                self._close_lease()

    def _close_lease(self) -> None:
        if self._lease is not None:
            self._lease.close()

    def _free(self) -> None:  # noqa: B027 - most sources have nothing to free
        """Free what a subclass holds. Called when the source is left; must not wait."""

    @property
    def _decoder(self) -> DecoderProcess:
        if self._process is None:
            raise RuntimeError(f"enter the {type(self).__name__} first: async with source: ...")
        return self._process

    @property
    def pid(self) -> int:
        """Id of the decoding process, for logs and metrics."""
        return self._decoder.pid

    async def info(self) -> VideoInfo:
        """Wait for the first frame and describe the video; may be called any number of times.

        Raises:
            DataLoss: This is no video, or no frame of it can be decoded.
            InvalidArgument: Its container or codec is not allowed.
            ResourceExhausted: It is larger than the limits allow.
        """
        async with self._taking:
            return await self._first_info()

    async def next_frame(self) -> Frame | None:
        """Wait for the next frame; None after the last one.

        Raises:
            DataLoss, InvalidArgument, ResourceExhausted: As `info` does, for a fault further on in the video.
        """
        async with self._taking:
            await self._first_info()
            message = await self._receive()
            while isinstance(message, FrameUndecoded):
                self._undecoded.append(message.pts)
                if 0 < self._limits.max_frames < len(self._undecoded):
                    raise self._nonsense(message)
                message = await self._receive()
            if isinstance(message, EndOfFrames):
                return None
            if not isinstance(message, FrameDecoded):
                raise self._nonsense(message)
            frame = self._frame_of(message)
        self._taken += 1
        self._on_taken()
        return frame

    @property
    def undecoded_at_end(self) -> tuple[int, ...]:
        """After the last frame: times, in nanoseconds, of the frames behind it that could not be decoded."""
        return tuple(in_nanoseconds(pts, self._time_base) for pts in self._undecoded)

    def _on_taken(self) -> None:  # noqa: B027 - for subclasses
        """Called when a frame was copied out of its slot."""

    async def end(self) -> None:
        """Say that nothing more will be fed; may be called twice."""
        if self._ended:
            return
        self._ended = True
        await self._decoder.send(EndOfInput())
        self._start_timer()

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._limits.first_frame_timeout_seconds, self._expire)

    def _expire(self) -> None:
        """The first frame is late only if someone waits for it: otherwise it may be ready and not taken."""
        if self._info is not None or self._over:
            return
        if not self._waiting:
            self._start_timer()
            return
        self._timed_out = True
        self._decoder.kill()

    async def _first_info(self) -> VideoInfo:
        if self._info is None:
            message = await self._receive()
            if not isinstance(message, VideoOpened):
                raise self._nonsense(message)
            self._expect(message.info.height, message.info.width)
            self._info, self._time_base = message.info, message.time_base
        return self._info

    def _expect(self, height: int, width: int) -> None:
        """Count the memory that decoding frames of this size takes."""
        if self._lease is None:
            return
        try:
            self._lease.expect(needed_for(height, width))
        except MaskletError as error:
            self._decoder.kill_process()
            raise self._failed(error) from None

    def _frame_of(self, message: FrameDecoded) -> Frame:
        self._expect(message.height, message.width)
        try:
            pixels = self._decoder.pixels.copy(message.slot, self._image_size, self._image_size)
        except ValueError as error:
            raise self._nonsense(message) from error
        arrival = self._arrival_of(self._taken, message.pts)
        return Frame(
            arrival.index,
            arrival.pts,
            self._time_base,
            pixels,
            message.height,
            message.width,
            arrival.arrived_seconds,
            arrival.capture_time_nanoseconds,
            message.decode_seconds,
            message.checksum,
            self._take_undecoded(),
            self._key_frame_of(arrival.index, message),
        )

    def _key_frame_of(self, index: int, message: FrameDecoded) -> KeyFrame | None:
        """Where decoding can begin that is to give the frame; None where there is no such place."""
        return None

    def _take_undecoded(self) -> tuple[int, ...]:
        undecoded, self._undecoded = tuple(self._undecoded), []
        return undecoded

    def _arrival_of(self, index: int, pts: int) -> Arrival:
        """What is known of a frame beside its pixels.

        Args:
            index: Index of the frame.
            pts: Time stamp that the process gave it.
        """
        return Arrival(index, pts, time.monotonic())

    async def _receive(self) -> FromDecoder:
        """Wait for the next message. The last one, be it the end or an error, is repeated for ever."""
        if self._outcome is not None:
            raise self._outcome
        if self._over:
            return EndOfFrames()
        self._waiting = True
        try:
            message = await self._decoder.receive()
        except MaskletError as error:
            if self._outcome is not None:  # the source was left meanwhile
                raise self._outcome from None
            raise self._failed(self._late() if self._timed_out else self._cause(error)) from error.__cause__
        finally:
            self._waiting = False
        if isinstance(message, EndOfFrames):
            self._finished()
        return message

    def _cause(self, error: MaskletError) -> MaskletError:
        """Why the process has failed: because it was ended for its memory, or what it has said or done."""
        killed_for = None if self._lease is None else self._lease.error
        return killed_for or error

    def _late(self) -> MaskletError:
        return ResourceExhausted(
            "no frame was decoded within first_frame_timeout_seconds = "
            f"{self._limits.first_frame_timeout_seconds:g} after the end of the upload; try again when the server is "
            "less busy, or send a smaller video"
        )

    def _nonsense(self, message: FromDecoder) -> MaskletError:
        return self._failed(error_of_nonsense(f"{type(message).__name__} with wrong values or at the wrong time"))

    def _failed(self, error: MaskletError) -> MaskletError:
        self._outcome = error
        self._finished()
        return error

    def _finished(self) -> None:
        """The process has sent its last message."""
        self._over = True
