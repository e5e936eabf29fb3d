"""The prompts that wait for their frames, and the corrections that wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.session.automatic.correction_window import CorrectionWindow
from masklet_server.session.limits import SessionLimits
from masklet_server.session.prompts import GivenPrompt, check_waiting_masks
from masklet_server.session.replies import Problem, Response, answering
from masklet_server.session.restoring.state import PromptsState, PromptState


@dataclass(frozen=True)
class RefusedPrompt:
    """A prompt that waited, and turned out to be wrong.

    Attributes:
        given: The prompt.
        error: What is wrong.
    """

    given: GivenPrompt
    error: MaskletError

    @property
    def answer(self) -> Response:
        """What the client is told."""
        return answering(self.given.request_id, Problem(self.error))


class WaitingPrompts:
    """Prompts in the order in which they came, bounded in number and in bytes.

    A frame takes prompts until `take` is called for it or for a later frame; frames are taken in order. A prompt that
    comes later is a correction, if the frame is in the correction window. A prompt that names a time waits until the
    frame nearest to that time is known.

    Attributes:
        next_frame: The first frame that still takes prompts before it is tracked.
        corrected: Set while corrections wait.

    Args:
        limits: Bound what may wait.
        window: The frames that can be corrected.
    """

    def __init__(self, limits: SessionLimits, window: CorrectionWindow) -> None:
        self.next_frame = 0
        self.corrected = asyncio.Event()
        self._limits = limits
        self._window = window
        self._waiting: dict[int, list[GivenPrompt]] = {}
        self._corrections: list[GivenPrompt] = []
        self._timed: list[GivenPrompt] = []
        self._size: tuple[int, int] | None = None
        self._frame_count: int | None = None

    def __len__(self) -> int:
        return len(self._all())

    @property
    def object_ids(self) -> set[int]:
        """Ids of the objects that have waiting prompts."""
        return {given.object_id for given in self._all()}

    @property
    def waits_for_times(self) -> bool:
        """Whether some prompts name times whose frames are not known yet."""
        return bool(self._timed)

    def frames_of(self, object_id: int) -> set[int]:
        """The frames not tracked yet for which prompts of the object wait."""
        return {g.frame_index for prompts in self._waiting.values() for g in prompts if g.object_id == object_id}

    def times_of(self, object_id: int) -> int:
        """Number of the object's prompts that name times whose frames are not known yet."""
        return sum(given.object_id == object_id for given in self._timed)

    # Adding

    def add(self, given: GivenPrompt, tracked: Collection[int] = ()) -> None:
        """Let a prompt wait for its frame, or, as a correction, for its turn.

        Args:
            given: The prompt.
            tracked: Ids of the objects that are tracked; they count towards the limit.

        Raises:
            FailedPrecondition: Its frame is tracked already, and corrections are not possible, or not any more.
            InvalidArgument: It does not fit the video's size, its frame lies beyond the video's end, or the frame is
                not in the correction window any more.
            ResourceExhausted: Too many prompts wait, their masks are too large, or there are too many objects.
        """
        given = self._on_its_frame(given)
        is_timed = given.pts_nanoseconds is not None
        is_correction = not is_timed and given.frame_index < self.next_frame
        if self._frame_count is not None and (is_timed or given.frame_index >= self._frame_count):
            raise _beyond_end(given, self._frame_count)
        if is_correction:
            self._check_correction(given)
        elif self._size is not None:
            given.check_size(*self._size)
        self._check_limits(given, tracked)
        if is_correction:
            self._add_correction(given)
        elif is_timed:
            self._timed.append(given)
        else:
            self._waiting.setdefault(given.frame_index, []).append(given)

    def _on_its_frame(self, given: GivenPrompt) -> GivenPrompt:
        """The prompt for the frame nearest to its time, if that is known."""
        time = given.pts_nanoseconds
        if time is None:
            return given
        if self._window.size:
            self._window.times.check(time)
        frame_index = self._window.times.nearest(time)
        return given if frame_index is None else given.on_frame(frame_index)

    def _check_correction(self, given: GivenPrompt) -> None:
        if not self._window.size:
            raise FailedPrecondition(
                f"the prompt for object {given.object_id} is too late for frame {given.frame_index}, which is tracked "
                f"already; frame {self.next_frame} is the next one that takes prompts"
            )
        if self._frame_count is not None:
            raise _too_late()
        if (refusal := self._window.refusal(given.frame_index)) is not None:
            raise refusal

    def _add_correction(self, given: GivenPrompt) -> None:
        self._corrections.append(given)
        self.corrected.set()

    def _check_limits(self, given: GivenPrompt, tracked: Collection[int]) -> None:
        most = self._limits.max_objects
        objects = self.object_ids.union(tracked)
        if given.object_id not in objects and len(objects) >= most:
            raise ResourceExhausted(
                f"object {given.object_id} is one too many: max_objects is {most}; remove_object makes room"
            )
        if len(self) >= most:
            raise ResourceExhausted(
                f"{most} prompts wait for their frames already, the most allowed (max_objects); send further ones once "
                "these frames have been tracked, or several points in one prompt"
            )
        check_waiting_masks((one.mask_bytes for one in (given, *self._all())), self._limits)

    # Prompts that name a time

    def place(self, frame_index: int, pts_nanoseconds: int, *, upcoming: int | None = None, last: bool = False) -> None:
        """A frame is about to be taken: give it the prompts whose times are nearest to its own.

        An earlier frame may turn out to be nearer, if the frame after it was not known in time. That frame is
        corrected. If that is not possible, the prompt goes to the frame at hand.

        Args:
            frame_index: The frame's.
            pts_nanoseconds: The frame's time.
            upcoming: The time of the frame after it, or None if that is not known.
            last: No frame will come after it.
        """
        self._window.note_time(frame_index, pts_nanoseconds)
        self._window.times.is_complete = last
        timed, self._timed = self._timed, []
        for given in timed:
            time = given.pts_nanoseconds
            assert time is not None
            nearest = self._window.times.nearest(time, upcoming)
            if nearest is None:
                self._timed.append(given)
            elif nearest < frame_index and self._window.size:
                self._add_correction(given.on_frame(nearest))
            else:
                self._waiting.setdefault(frame_index, []).append(given.on_frame(frame_index))

    def end_times(self) -> None:
        """The last frame was taken: prompts for later times are for it, and correct it if that is possible."""
        self._window.times.is_complete = True
        if not self._window.size:
            return
        timed, self._timed = self._timed, []
        for given in timed:
            self._add_correction(self._on_its_frame(given))

    # Corrections

    def first_corrections(self) -> dict[int, int]:
        """By object, the frame of its first waiting correction."""
        first: dict[int, int] = {}
        for given in self._corrections:
            first.setdefault(given.object_id, given.frame_index)
        return first

    def take_corrections(self, first: int, last: int, object_ids: Collection[int] | None = None) -> list[GivenPrompt]:
        """Take each object's first corrections, as far as they are for the frames from `first` to `last`, in order.

        Args:
            first: A frame.
            last: A later frame, or the same.
            object_ids: The objects in question; None: all.
        """
        taken: list[GivenPrompt] = []
        left: list[GivenPrompt] = []
        for given in self._corrections:
            comes_after_another = any(other.object_id == given.object_id for other in left)
            fits = first <= given.frame_index <= last and not comes_after_another
            fits = fits and (object_ids is None or given.object_id in object_ids)
            (taken if fits else left).append(given)
        self._corrections = left
        if not left:
            self.corrected.clear()
        return taken

    # Snapshots

    def dump(self) -> PromptsState:
        """All that waits, while no correction does."""
        assert not self._corrections, "a snapshot is made between corrections"
        waiting = [given for _, prompts in sorted(self._waiting.items()) for given in prompts]
        times = self._window.times.last(max(self._window.size, 2))
        return PromptsState(
            [PromptState.of(one) for one in waiting], [PromptState.of(one) for one in self._timed], times
        )

    def restore(self, state: PromptsState, next_frame: int) -> None:
        """Go on with what waited in a session that is restored.

        Args:
            state: What `dump` gave.
            next_frame: The first frame that still takes prompts before it is tracked.
        """
        self.next_frame = next_frame
        for one in state.waiting:
            self._waiting.setdefault(one.frame_index, []).append(one.given())
        self._timed = [one.given() for one in state.timed]
        self._window.times.restore(state.times)

    # Frames

    def take(self, frame_index: int) -> list[GivenPrompt]:
        """Take the prompts of skipped frames before the frame, then its own. It takes no prompts from now on.

        Raises:
            ValueError: The frame, or a later one, was taken before.
        """
        if frame_index < self.next_frame:
            raise ValueError(f"frame {frame_index} was taken, but frame {self.next_frame} comes next")
        self.next_frame = frame_index + 1
        due = sorted(index for index in self._waiting if index <= frame_index)
        return [given for index in due for given in self._waiting.pop(index)]

    def drop(self, object_id: int, frame_index: int | None = None) -> int:
        """Forget the object's waiting prompts, or only those for one frame. Returns how many there were."""
        before = len(self)
        self._filter(
            lambda given: (
                given.object_id != object_id
                or (frame_index is not None and (given.pts_nanoseconds is not None or given.frame_index != frame_index))
            )
        )
        return before - len(self)

    def fit(self, height: int, width: int) -> list[RefusedPrompt]:
        """The video's size is known: forget and return the prompts that do not fit it."""
        self._size = (height, width)
        misfits = [(given, _misfit(given, height, width)) for given in self._ahead()]
        self._filter(lambda given: all(given is not other or error is None for other, error in misfits))
        return [RefusedPrompt(given, error) for given, error in misfits if error is not None]

    def end(self, frame_count: int) -> list[RefusedPrompt]:
        """The video has ended: forget and return the prompts for frames beyond it, and late corrections."""
        self._frame_count = frame_count
        refused = [RefusedPrompt(given, _too_late()) for given in self._corrections]
        refused += [RefusedPrompt(given, _beyond_end(given, frame_count)) for given in self._ahead()]
        self._filter(lambda _: False)
        return refused

    def _ahead(self) -> list[GivenPrompt]:
        """All but the corrections, whose frames may have another size."""
        return [given for prompts in self._waiting.values() for given in prompts] + self._timed

    def _all(self) -> list[GivenPrompt]:
        return self._ahead() + self._corrections

    def _filter(self, wanted: Callable[[GivenPrompt], bool]) -> None:
        """Forget all prompts but the wanted ones."""
        left = {index: [given for given in prompts if wanted(given)] for index, prompts in self._waiting.items()}
        self._waiting = {index: prompts for index, prompts in left.items() if prompts}
        self._timed = [given for given in self._timed if wanted(given)]
        self._corrections = [given for given in self._corrections if wanted(given)]
        if not self._corrections:
            self.corrected.clear()


def _too_late() -> FailedPrecondition:
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
