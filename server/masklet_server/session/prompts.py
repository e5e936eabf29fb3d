"""The book of prompts that wait for their frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.masks.encoding import EncodedMask, check_data, decode
from masklet_server.session.limits import SessionLimits

# Encoded masks that wait in one session, in units of the largest one allowed.
MAX_WAITING_MASKS = 4


@dataclass(frozen=True)
class GivenPrompt:
    """A prompt as it came: checked in itself, its mask still encoded, because that takes a thousandth of the memory.

    Attributes:
        prompt: Where `mask` is given, one with any mask in its stead.
        mask: The mask that belongs to it, or None.
    """

    prompt: Prompt
    mask: EncodedMask | None = None

    @property
    def object_id(self) -> int:
        """The object it is about."""
        return self.prompt.object_id

    @property
    def frame_index(self) -> int:
        """The frame it is for."""
        return self.prompt.frame_index

    @property
    def mask_bytes(self) -> int:
        """What the encoded mask takes."""
        return 0 if self.mask is None else len(self.mask.data)

    def on_frame(self, frame_index: int) -> GivenPrompt:
        """The same for another frame."""
        return dataclasses.replace(self, prompt=dataclasses.replace(self.prompt, frame_index=frame_index))

    def check_size(self, height: int, width: int) -> None:
        """Hold the prompt against the video's size.

        Raises:
            InvalidArgument: Something lies outside, or the mask has another size; fields as seen from the request.
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
        """Read the mask's data as far as that costs no memory; takes milliseconds, so not on the event loop.

        Raises:
            InvalidArgument: The data is malformed or of another size than it claims.
        """
        if self.mask is not None:
            try:
                check_data(self.mask)
            except InvalidArgument as error:
                raise error.within("prompt.mask") from None

    def decoded(self) -> Prompt:
        """The prompt with its mask as pixels; takes milliseconds, so not on the event loop.

        Raises:
            InvalidArgument: The mask is malformed or has no foreground.
        """
        if self.mask is None:
            return self.prompt
        try:
            pixels = decode(self.mask)
        except InvalidArgument as error:
            raise error.within("prompt.mask") from None
        try:
            return dataclasses.replace(self.prompt, mask=pixels)
        except InvalidArgument as error:
            raise error.within("prompt") from None


class PromptBook:
    """Prompts by frame, in the order in which they came, bounded.

    A frame takes prompts until `take` is called for it or for a later one; frames are taken in order.

    Attributes:
        next_frame: The first frame that still takes prompts.
    """

    def __init__(self, limits: SessionLimits) -> None:
        self.next_frame = 0
        self._limits = limits
        self._waiting: dict[int, list[GivenPrompt]] = {}
        self._size: tuple[int, int] | None = None
        self._frame_count: int | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def object_ids(self) -> set[int]:
        """Objects that prompts wait for."""
        return {given.object_id for given in self._all()}

    def frames_of(self, object_id: int) -> set[int]:
        """Frames for which prompts of the object wait."""
        return {given.frame_index for given in self._all() if given.object_id == object_id}

    def add(self, given: GivenPrompt, followed: Collection[int] = ()) -> None:
        """Take a prompt.

        Args:
            given: The prompt.
            followed: Ids of the objects that are followed already; they count towards the limit.

        Raises:
            FailedPrecondition: Its frame is tracked already.
            InvalidArgument: It does not fit the video's size, or its frame lies beyond the video's known end.
            ResourceExhausted: Too many prompts wait, too large ones, or for too many objects.
        """
        if self._frame_count is not None and given.frame_index >= self._frame_count:
            raise _beyond_end(given, self._frame_count)
        if given.frame_index < self.next_frame:
            raise FailedPrecondition(
                f"the prompt for object {given.object_id} is too late for frame {given.frame_index}, which is tracked "
                f"already; frame {self.next_frame} is the next one that takes prompts"
            )
        if self._size is not None:
            given.check_size(*self._size)
        self._check_limits(given, followed)
        self._waiting.setdefault(given.frame_index, []).append(given)

    def take(self, frame_index: int) -> list[GivenPrompt]:
        """The frame's prompts after those of frames that were left out before it; from now on they take no more.

        Raises:
            ValueError: It, or a later one, was taken before.
        """
        if frame_index < self.next_frame:
            raise ValueError(f"frame {frame_index} was taken, but frame {self.next_frame} comes next")
        self.next_frame = frame_index + 1
        due = sorted(index for index in self._waiting if index <= frame_index)
        return [given for index in due for given in self._waiting.pop(index)]

    def drop(self, object_id: int) -> int:
        """Forget the object's waiting prompts; how many there were."""
        before = len(self)
        self._keep([given for given in self._all() if given.object_id != object_id])
        return before - len(self)

    def fit(self, height: int, width: int) -> list[MaskletError]:
        """The video's size is known: forget the prompts that do not fit it; an error for each."""
        self._size = (height, width)
        kept: list[GivenPrompt] = []
        errors: list[MaskletError] = []
        for given in self._all():
            error = _misfit(given, height, width)
            if error is None:
                kept.append(given)
            else:
                errors.append(error)
        self._keep(kept)
        return errors

    def close(self, frame_count: int) -> list[MaskletError]:
        """The video has ended: forget the prompts for frames beyond; an error for each."""
        self._frame_count = frame_count
        errors: list[MaskletError] = [_beyond_end(given, frame_count) for given in self._all()]
        self._waiting.clear()
        return errors

    def _all(self) -> list[GivenPrompt]:
        return [given for prompts in self._waiting.values() for given in prompts]

    def _keep(self, prompts: list[GivenPrompt]) -> None:
        self._waiting.clear()
        for given in prompts:
            self._waiting.setdefault(given.frame_index, []).append(given)

    def _check_limits(self, given: GivenPrompt, followed: Collection[int]) -> None:
        most = self._limits.max_objects
        objects = self.object_ids.union(followed)
        if given.object_id not in objects and len(objects) >= most:
            raise ResourceExhausted(
                f"object {given.object_id} is one too many: max_objects is {most}; remove_object makes room"
            )
        if len(self) >= most:
            raise ResourceExhausted(
                f"{most} prompts wait for their frames already, the most allowed (max_objects); send further ones once "
                "these frames have been tracked, or several points in one prompt"
            )
        waiting = given.mask_bytes + sum(other.mask_bytes for other in self._all())
        if waiting > MAX_WAITING_MASKS * self._limits.max_mask_bytes:
            raise ResourceExhausted(
                f"the masks of waiting prompts would take {waiting} bytes, at most "
                f"{MAX_WAITING_MASKS * self._limits.max_mask_bytes} are allowed; send COCO run-lengths, or fewer ahead"
            )


def _beyond_end(given: GivenPrompt, frame_count: int) -> InvalidArgument:
    return InvalidArgument.of(
        "prompt.frame_index",
        f"is {given.frame_index} (object {given.object_id}), but the video has {frame_count} frames, "
        f"0 to {frame_count - 1}",
    )


def _misfit(given: GivenPrompt, height: int, width: int) -> InvalidArgument | None:
    try:
        given.check_size(height, width)
    except InvalidArgument as error:
        return error
    return None
