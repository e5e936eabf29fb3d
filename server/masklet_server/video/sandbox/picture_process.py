"""A decoding process for single pictures, as one thread sees it."""

from __future__ import annotations

import select
import time

import numpy as np
import numpy.typing as npt

from masklet.errors import MaskletError, ResourceExhausted, Unavailable
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import DecodePicture, DecodingFailed, FrameDecoded, MessageError, Setup
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.answers import AnswerParser
from masklet_server.video.sandbox.blocking_pipes import BlockingPipes, is_ready
from masklet_server.video.sandbox.process_errors import (
    error_of,
    error_of_answer,
    error_of_death,
    error_of_nonsense,
    error_of_shortage,
)
from masklet_server.video.sandbox.shared_pixels import SharedPixels

_MAX_PICTURES = 256
_KEPT_BYTES = 16 * 1024**2
_END_SECONDS = 5.0
# A process that gets less of a processor's time is not slow because of its picture.
_IDLE_SHARE = 0.05


class PictureProcess:
    """One decoding process for single pictures; one thread at a time may use it.

    Attributes:
        pid: Its process id.

    Args:
        limits: What each picture may cost; of the processor time, what all pictures of the process together may.

    Raises:
        Unavailable: No process could be forked.
        ResourceExhausted: The server has no memory or no descriptors for one more.
    """

    def __init__(self, limits: VideoLimits) -> None:
        setup = Setup("single pictures", 0, 1, limits.max_frame_pixels * 3, limits)
        self._limits = limits
        self._pictures_left = _MAX_PICTURES
        try:
            self._pixels = SharedPixels(setup.slots, setup.slot_bytes)
        except OSError as error:
            raise error_of_shortage(error) from error
        try:
            self._forked = fork_server.fork(self._pixels.fd)
        except BaseException as error:
            self._pixels.close()
            if isinstance(error, OSError):
                raise error_of_shortage(error) from error
            raise
        self._pixels.close_fd()
        try:
            self.pid = fork_server.process_id(self._status_line())
        except MaskletError:
            self._forked.close()
            self._pixels.close()
            raise
        self._handle = fork_server.ProcessHandle(self.pid)
        self._has_ended = False
        self._exit_code: int | None = None  # stays None if the fork server ends with the process
        self._parser = AnswerParser(setup)
        self._pipes = BlockingPipes(self._forked.stdin, self._forked.stdout)
        self._pipes.send(setup, lambda: None)  # an empty pipe has room for it

    @property
    def is_usable(self) -> bool:
        """Whether the process lives and may decode further pictures."""
        has_ended = self._has_ended or is_ready(self._forked.status, select.POLLIN, 0)
        return self._pictures_left > 0 and not has_ended

    def kill(self) -> None:
        """End the process, so that `decode` fails; any thread may call it while another one decodes."""
        self._handle.kill()

    def decode(self, picture: Picture) -> npt.NDArray[np.uint8]:
        """Decode one picture, as shown; blocks.

        Returns:
            ``uint8[H, W, 3]`` RGB at full size.

        Raises:
            MaskletError: The picture can't be decoded within the limits, or the process has died.
        """
        self._pictures_left -= 1
        try:
            pixels = self._decode(picture, _Patience(self.pid, self._limits))
        except MaskletError:
            raise
        except (BrokenPipeError, EOFError) as error:
            raise error_of_death(self._wait_for_end(), self._limits) from error
        except Exception:
            self.close()  # its next answer would be taken for that of another picture
            raise
        if pixels.nbytes > _KEPT_BYTES:
            self._pixels.release_pages()
        return pixels

    def _decode(self, picture: Picture, patience: _Patience) -> npt.NDArray[np.uint8]:
        try:
            message = DecodePicture(picture.format, picture.height, picture.width, picture.data)
            self._pipes.send(message, patience.check)
            answer = self._parser.parse(self._pipes.receive_line(patience.check))
        except MessageError as error:
            self.close()
            raise error_of_answer(error) from error
        except (ResourceExhausted, Unavailable):
            self.close()
            raise
        if isinstance(answer, DecodingFailed):
            raise error_of(answer)
        if not isinstance(answer, FrameDecoded):
            self.close()
            raise error_of_nonsense(f"{type(answer).__name__} where it should have sent a picture")
        return self._pixels.copy(answer.slot, answer.height, answer.width)

    def close(self) -> None:
        """Kill the process and wait for its end; may be called twice."""
        if not self._has_ended:
            self.kill()
            self._wait_for_end()
        self._pipes.close()
        self._pixels.close()

    def _wait_for_end(self) -> int | None:
        """Wait until the process has ended; returns its exit code. One that has closed its pipe and lives is killed."""
        if not self._has_ended:
            if not is_ready(self._forked.status, select.POLLIN, _END_SECONDS):
                self.kill()
            self._exit_code = fork_server.exit_code(self._status_line())
            self._has_ended = True
            self._forked.status.close()
            self._handle.close()
        return self._exit_code

    def _status_line(self) -> bytes:
        """What the fork server says of the process. If it says nothing, it is ended, and so the line is empty."""
        if not is_ready(self._forked.status, select.POLLIN, self._limits.decoder_start_seconds):
            fork_server.replace(self._forked.server_id)
        return self._forked.status.readline()


class _Patience:
    """How long one picture may take, by the clock and by the processor's time.

    Args:
        process_id: The process that decodes it.
        limits: Its `first_frame_timeout_seconds` and `picture_cpu_seconds` apply.
    """

    def __init__(self, process_id: int, limits: VideoLimits) -> None:
        # Linux makes the id of a process's clock of the process's id (include/linux/posix-timers.h).
        self._processor_clock = (~process_id << 3) | 2
        self._limits = limits
        self._began = time.monotonic()
        self._used_before = self._processor_seconds()

    def check(self) -> None:
        """Raise ResourceExhausted if the picture takes too long, and Unavailable if the process does not work on it."""
        limits = self._limits
        used = self._processor_seconds() - self._used_before
        if time.monotonic() - self._began > limits.first_frame_timeout_seconds:
            late = (
                "the picture was not decoded within first_frame_timeout_seconds = "
                f"{limits.first_frame_timeout_seconds:g}"
            )
            if used < _IDLE_SHARE * limits.first_frame_timeout_seconds:
                raise Unavailable(
                    f"{late}: its decoding process did hardly anything in this time, so it hangs, or the machine is "
                    "overloaded; the process was ended, try again",
                    retry_after_seconds=1.0,
                )
            raise ResourceExhausted(f"{late}; send a smaller picture")
        if 0 < limits.picture_cpu_seconds < used:
            raise ResourceExhausted(
                f"decoding the picture took more processor time than picture_cpu_seconds = {limits.picture_cpu_seconds}"
                " allows; send a smaller picture, or one with fewer scans"
            )

    def _processor_seconds(self) -> float:
        try:
            return time.clock_gettime(self._processor_clock)
        except OSError:  # it has ended, which its pipe will tell
            return 0.0
