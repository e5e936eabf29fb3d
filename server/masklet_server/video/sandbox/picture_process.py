"""A decoding process for single pictures, as one thread sees it."""

from __future__ import annotations

import contextlib
import io
import os
import select
from typing import IO

import numpy as np
import numpy.typing as npt

from masklet.errors import MaskletError, ResourceExhausted
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import (
    Channel,
    DecodePicture,
    DecodingFailed,
    FrameDecoded,
    FromDecoder,
    MessageError,
    Setup,
    decode_from_decoder,
)
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.process_errors import error_of, error_of_death, error_of_nonsense, error_of_shortage
from masklet_server.video.sandbox.shared_pixels import SharedPixels

_MAX_PICTURES = 256
_KEPT_BYTES = 16 * 1024**2


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
            self.pid = fork_server.process_id(self._forked.status.readline())
        except MaskletError:
            self._forked.close()
            self._pixels.close()
            raise
        self._handle = fork_server.open_handle(self.pid)
        self._exit_code: int | None = None
        self._stdin, self._stdout = io.BufferedWriter(self._forked.stdin), io.BufferedReader(self._forked.stdout)
        self._channel: Channel[FromDecoder] = Channel(self._stdout, self._stdin, decode_from_decoder)
        self._channel.send(setup)

    @property
    def is_usable(self) -> bool:
        """Whether the process lives and may decode further pictures."""
        return self._pictures_left > 0 and self._exit_code is None and not _is_readable(self._forked.status, 0)

    def decode(self, picture: Picture) -> npt.NDArray[np.uint8]:
        """Decode one picture, as shown; blocks.

        Returns:
            ``uint8[H, W, 3]`` RGB at full size.

        Raises:
            MaskletError: The picture can't be decoded within the limits, or the process has died.
        """
        self._pictures_left -= 1
        try:
            pixels = self._decode(picture)
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

    def _decode(self, picture: Picture) -> npt.NDArray[np.uint8]:
        self._channel.send(DecodePicture(picture.format, picture.height, picture.width, picture.data))
        self._wait_for_answer()
        try:
            answer = self._channel.receive()
        except MessageError as error:
            self.close()
            raise error_of_nonsense("something that is no message") from error
        if isinstance(answer, DecodingFailed):
            raise error_of(answer)
        if not isinstance(answer, FrameDecoded):
            self.close()
            raise error_of_nonsense(f"{type(answer).__name__} where it should have sent a picture")
        try:
            return self._pixels.copy(answer.slot, answer.height, answer.width)
        except ValueError as error:
            self.close()
            raise error_of_nonsense("a picture that does not fit its memory") from error

    def _wait_for_answer(self) -> None:
        timeout = self._limits.first_frame_timeout_seconds
        if not _is_readable(self._stdout, timeout):
            self.close()
            raise ResourceExhausted(
                f"the picture was not decoded within first_frame_timeout_seconds = {timeout:g}; send a smaller picture"
            )

    def close(self) -> None:
        """Kill the process and wait for its end; may be called twice."""
        if self._exit_code is None:
            fork_server.kill(self.pid, self._handle)
            self._wait_for_end()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):  # bytes that it no longer wanted
            self._stdin.close()
        self._pixels.close()

    def _wait_for_end(self) -> int:
        """Wait until the process has ended; returns its exit code."""
        if self._exit_code is None:
            self._exit_code = fork_server.exit_code(self._forked.status.readline())
            self._forked.status.close()
            if self._handle >= 0:
                os.close(self._handle)
        return self._exit_code


def _is_readable(pipe: IO[bytes], seconds: float) -> bool:
    """Whether the pipe has something to read, or has ended, within that time."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
