"""A prompt as the client sent it, for both modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.network.mask_input import square_mask
from masklet_server.masks.encoding import EncodedMask, check_data
from masklet_server.masks.pool import MaskPool
from masklet_server.session.limits import SessionLimits
from masklet_server.session.replies import Taken

# The encoded masks that wait in one session take at most this many times the size of the largest mask allowed.
MAX_WAITING_MASKS = 4


@dataclass(frozen=True)
class GivenPrompt:
    """A prompt whose mask is still encoded, because that takes a thousandth of the memory.

    Attributes:
        prompt: The prompt, checked without regard to the video. If `mask` is given, its own mask means nothing.
        mask: The encoded mask, or None.
        taken: When the session has taken it; None if the session is not resumable.
    """

    prompt: Prompt
    mask: EncodedMask | None = None
    taken: Taken | None = None

    @property
    def request_id(self) -> int:
        """The request's number in a resumable session, which errors and results name; otherwise 0."""
        return 0 if self.taken is None else self.taken.request_id

    @property
    def object_id(self) -> int:
        """Id of the object that it describes."""
        return self.prompt.object_id

    @property
    def frame_index(self) -> int:
        """Index of the frame that it is for."""
        return self.prompt.frame_index

    @property
    def mask_bytes(self) -> int:
        """Size of the encoded mask."""
        return 0 if self.mask is None else len(self.mask.data)

    @property
    def pts_nanoseconds(self) -> int | None:
        """The time that it is for, rounded; None if it names a frame."""
        seconds = self.prompt.pts_seconds
        return None if seconds is None else round(seconds * 1_000_000_000)

    def on_frame(self, frame_index: int) -> GivenPrompt:
        """The same prompt for another frame."""
        prompt = dataclasses.replace(self.prompt, frame_index=frame_index, pts_seconds=None)
        return dataclasses.replace(self, prompt=prompt)

    def check_size(self, height: int, width: int) -> None:
        """Compare the prompt with the video's size.

        Raises:
            InvalidArgument: A point or the box lies outside, or the mask has another size; fields are named as in the
                request.
        """
        try:
            if self.mask is None:
                self.prompt.check_size(height, width)
            elif (self.mask.height, self.mask.width) != (height, width):
                raise InvalidArgument.of(
                    "mask", f"is {self.mask.width}x{self.mask.height}, the video {width}x{height}; they must be equal"
                )
        except InvalidArgument as error:
            raise error.within("prompt") from None

    def check_mask(self) -> None:
        """Check the mask's data as far as that needs no memory. It takes milliseconds: not for the event loop.

        Raises:
            InvalidArgument: The data is malformed, or has another size than it says.
        """
        if self.mask is not None:
            try:
                check_data(self.mask)
            except InvalidArgument as error:
                raise error.within("prompt.mask") from None

    async def decode_in(self, pool: MaskPool, size: int) -> Prompt:
        """The prompt with its mask as pixels, decoded by the pool.

        The mask has the model's size: a thousand bytes may stand for 35 megapixels, and a frame may have a prompt for
        each object.

        Args:
            pool: It bounds how many masks are at full size at a time.
            size: The model's `image_size`.

        Raises:
            InvalidArgument: The mask is malformed, has no foreground, or none at the model's size; fields are named as
                in the request.
            ResourceExhausted: The mask is a PNG, and decoders have too little memory, or take too long.
        """
        if self.mask is None:
            return self.prompt
        try:
            square = await pool.decode(self.mask, lambda pixels: _square(pixels, size))
        except InvalidArgument as error:
            raise error.within("prompt.mask") from None
        try:
            if isinstance(square, InvalidArgument):
                raise square
            return dataclasses.replace(self.prompt, mask=square)
        except InvalidArgument as error:
            raise error.within("prompt") from None


def _square(pixels: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_] | InvalidArgument:
    """The mask at the model's size, or what is wrong with it: an error of the field "mask"."""
    try:
        if not pixels.any():
            raise InvalidArgument.of("mask", "has no foreground pixel")
        return square_mask(pixels, size)
    except InvalidArgument as error:
        return error


def check_waiting_masks(sizes: Iterable[int], limits: SessionLimits) -> None:
    """Bound the memory of the masks of all prompts that wait.

    Args:
        sizes: Of each encoded mask, in bytes.
        limits: Knows the size of the largest mask allowed.

    Raises:
        ResourceExhausted: They take too much.
    """
    size, most = sum(sizes), MAX_WAITING_MASKS * limits.max_mask_bytes
    if size > most:
        raise ResourceExhausted(
            f"the masks of waiting prompts would take {size} bytes, at most {most} are allowed; send COCO run-lengths, "
            "or send fewer prompts ahead of their frames"
        )
