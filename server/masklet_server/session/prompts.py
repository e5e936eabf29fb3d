"""The book of prompts that wait for their frames."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.masks.encoding import EncodedMask, check_data, decode
from masklet_server.session.automatic.correction_window import KeptFrames, Timetable
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

    @property
    def pts_nanoseconds(self) -> int | None:
        """The time it is for, rounded; None where it names a frame."""
        seconds = self.prompt.pts_seconds
        return None if seconds is None else round(seconds * 1_000_000_000)

    def on_frame(self, frame_index: int) -> GivenPrompt:
        """The same for another frame."""
        prompt = dataclasses.replace(self.prompt, frame_index=frame_index, pts_seconds=None)
        return dataclasses.replace(self, prompt=prompt)

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
    """Prompts that wait, in the order in which they came, bounded.

    A frame takes prompts until `take` is called for it or for a later one; frames are taken in order. Prompts that come
    later correct the frame, where it is kept; those that name a time wait until it is known whose it is.

    Attributes:
        next_frame: The first frame that still takes prompts before it is tracked.
        corrected: Set while corrections may wait.

    Args:
        limits: What may wait.
        kept: The frames that can be corrected; None: none.
    """

    def __init__(self, limits: SessionLimits, kept: KeptFrames | None = None) -> None:
        self.next_frame = 0
        self.corrected = asyncio.Event()
        self._limits = limits
        self._kept = KeptFrames(0, 0) if kept is None else kept
        self._times = Timetable(self._kept.window)
        self._waiting: dict[int, list[GivenPrompt]] = {}
        self._late: list[GivenPrompt] = []
        self._timed: list[GivenPrompt] = []
        self._size: tuple[int, int] | None = None
        self._frame_count: int | None = None

    def __len__(self) -> int:
        return len(self._all())

    @property
    def object_ids(self) -> set[int]:
        """Objects that prompts wait for."""
        return {given.object_id for given in self._all()}

    @property
    def waits_for_times(self) -> bool:
        """Whether prompts name times of frames that are not known yet."""
        return bool(self._timed)

    def frames_of(self, object_id: int) -> set[int]:
        """Frames that are still to be tracked for which prompts of the object wait."""
        return {g.frame_index for prompts in self._waiting.values() for g in prompts if g.object_id == object_id}

    def times_of(self, object_id: int) -> int:
        """How many prompts of the object wait for their times."""
        return sum(given.object_id == object_id for given in self._timed)

    def add(self, given: GivenPrompt, followed: Collection[int] = ()) -> None:
        """Take a prompt.

        Args:
            given: The prompt.
            followed: Ids of the objects that are followed already; they count towards the limit.

        Raises:
            FailedPrecondition: Its frame is tracked already, and corrections are not taken, or no longer.
            InvalidArgument: It does not fit the video's size, its frame lies beyond the video's known end, or can't be
                corrected any longer.
            ResourceExhausted: Too many prompts wait, too large ones, or for too many objects.
        """
        given = self._on_its_frame(given)
        timed = given.pts_nanoseconds is not None
        late = not timed and given.frame_index < self.next_frame
        if self._frame_count is not None and (timed or given.frame_index >= self._frame_count):
            raise _beyond_end(given, self._frame_count)
        if late:
            self._check_late(given)
        elif self._size is not None:
            given.check_size(*self._size)
        self._check_limits(given, followed)
        if late:
            self._add_late(given)
        elif timed:
            self._timed.append(given)
        else:
            self._waiting.setdefault(given.frame_index, []).append(given)

    def _on_its_frame(self, given: GivenPrompt) -> GivenPrompt:
        time = given.pts_nanoseconds
        if time is None:
            return given
        if self._kept.window:
            self._times.check(time)
        frame_index = self._times.nearest(time)
        return given if frame_index is None else given.on_frame(frame_index)

    def _check_late(self, given: GivenPrompt) -> None:
        if not self._kept.window:
            raise FailedPrecondition(
                f"the prompt for object {given.object_id} is too late for frame {given.frame_index}, which is tracked "
                f"already; frame {self.next_frame} is the next one that takes prompts"
            )
        if self._frame_count is not None:
            raise _over()
        if (refusal := self._kept.refusal(given.frame_index)) is not None:
            raise refusal

    def _add_late(self, given: GivenPrompt) -> None:
        self._late.append(given)
        self.corrected.set()

    # Times

    def place(self, frame_index: int, pts_nanoseconds: int, *, upcoming: int | None = None, last: bool = False) -> None:
        """A frame is about to be taken: give it the prompts whose times it is nearest to.

        A frame that was taken before may turn out to be nearer, where the one after it was not known in time: it is
        corrected, or, where that is not possible, the prompt goes to the frame at hand.

        Args:
            frame_index: The frame's.
            pts_nanoseconds: Its time.
            upcoming: The time of the frame after it, or None where that is not known.
            last: None will come after it.
        """
        self._times.add(frame_index, pts_nanoseconds, forget=self._kept.earlier is None)
        self._times.is_complete = last
        timed, self._timed = self._timed, []
        for given in timed:
            time = given.pts_nanoseconds
            assert time is not None
            nearest = self._times.nearest(time, upcoming)
            if nearest is None:
                self._timed.append(given)
            elif nearest < frame_index and self._kept.window:
                self._add_late(given.on_frame(nearest))
            else:
                self._waiting.setdefault(frame_index, []).append(given.on_frame(frame_index))

    def end_times(self) -> None:
        """The last frame was taken: prompts for later times are for it, and correct it where that is possible."""
        self._times.is_complete = True
        if not self._kept.window:
            return
        timed, self._timed = self._timed, []
        for given in timed:
            self._add_late(self._on_its_frame(given))

    # Corrections

    def late_frames(self) -> dict[int, int]:
        """By object, the frame of its first correction that waits."""
        first: dict[int, int] = {}
        for given in self._late:
            first.setdefault(given.object_id, given.frame_index)
        return first

    def take_late(self, first: int, last: int, object_ids: Collection[int] | None = None) -> list[GivenPrompt]:
        """Each object's first corrections, as far as they are for the frames from `first` to `last`, in order.

        Args:
            first: A frame.
            last: A later one, or the same.
            object_ids: The objects asked for; None: all.
        """
        taken: list[GivenPrompt] = []
        left: list[GivenPrompt] = []
        for given in self._late:
            comes_after_another = any(other.object_id == given.object_id for other in left)
            fits = first <= given.frame_index <= last and not comes_after_another
            fits = fits and (object_ids is None or given.object_id in object_ids)
            (taken if fits else left).append(given)
        self._late = left
        if not left:
            self.corrected.clear()
        return taken

    # Frames

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

    def drop(self, object_id: int, frame_index: int | None = None) -> int:
        """Forget the object's waiting prompts, or those for one frame; how many there were."""
        before = len(self)
        self._keep(
            lambda given: (
                given.object_id != object_id
                or (frame_index is not None and (given.pts_nanoseconds is not None or given.frame_index != frame_index))
            )
        )
        return before - len(self)

    def fit(self, height: int, width: int) -> list[MaskletError]:
        """The video's size is known: forget the prompts that do not fit it; an error for each."""
        self._size = (height, width)
        misfits = [(given, _misfit(given, height, width)) for given in self._ahead()]
        self._keep(lambda given: all(given is not other or error is None for other, error in misfits))
        return [error for _, error in misfits if error is not None]

    def close(self, frame_count: int) -> list[MaskletError]:
        """The video has ended: forget the prompts for frames beyond; an error for each."""
        self._frame_count = frame_count
        errors: list[MaskletError] = [_over() for _ in self._late]
        errors += [_beyond_end(given, frame_count) for given in self._ahead()]
        self._keep(lambda _: False)
        return errors

    def _ahead(self) -> list[GivenPrompt]:
        """All but corrections, whose frames may have had another size."""
        return [given for prompts in self._waiting.values() for given in prompts] + self._timed

    def _all(self) -> list[GivenPrompt]:
        return self._ahead() + self._late

    def _keep(self, wanted: Callable[[GivenPrompt], bool]) -> None:
        kept = {index: [given for given in prompts if wanted(given)] for index, prompts in self._waiting.items()}
        self._waiting = {index: prompts for index, prompts in kept.items() if prompts}
        self._timed = [given for given in self._timed if wanted(given)]
        self._late = [given for given in self._late if wanted(given)]
        if not self._late:
            self.corrected.clear()

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


def _over() -> FailedPrecondition:
    return FailedPrecondition("the last result was sent already; there is nothing to correct any more")


def _beyond_end(given: GivenPrompt, frame_count: int) -> InvalidArgument:
    if given.prompt.pts_seconds is not None:
        return InvalidArgument.of(
            "prompt.pts_seconds",
            f"is {given.prompt.pts_seconds:g} (object {given.object_id}), but the video ended before",
        )
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
