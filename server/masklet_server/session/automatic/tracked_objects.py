"""An object that is followed, and what became of objects on a frame."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.bank import MAX_CONDITIONING_FRAMES, MemoryBank
from masklet_server.engine.memory.snapshots import BankSnapshots
from masklet_server.engine.serving.jobs import FrameOutput, ObjectOutput
from masklet_server.masks.pool import MaskPool
from masklet_server.session.automatic.frame_reader import TakenFrame
from masklet_server.session.visibility import Visibility


@dataclass(eq=False)
class Followed:
    """An object that is being tracked.

    Attributes:
        bank: Its memory.
        prompted_frames: Indices of its conditioning frames; none until its first one is tracked.
        corrected_frames: Indices of frames on which it was corrected, as far as these can still be.
        is_prompted_now: The frame under way has prompts for it, which `prompted_frames` does not name yet.
        visibility: Whether it is seen, as first results go out.
        trail: Of a clip: what its memory was like along the way, so that any frame can be corrected.
        lost_trail: Why there is no trail any longer.
    """

    bank: MemoryBank
    prompted_frames: set[int] = field(default_factory=set)
    corrected_frames: set[int] = field(default_factory=set)
    is_prompted_now: bool = False
    visibility: Visibility = field(default_factory=Visibility)
    trail: BankSnapshots | None = None
    lost_trail: ResourceExhausted | None = None

    async def leave_trail(self, pool: MaskPool, *, stride: int = 0) -> None:
        """The memory is as it will stay on its last frame: put it away.

        Where there is no room the object has no trail from then on, and goes on without.

        Args:
            pool: For the writing.
            stride: Nothing is done if it was put away on one of so many frames before; 0: it was prompted there.
        """
        last = self.bank.last_frame
        if self.trail is None or last is None:
            return
        if self.trail.last is not None and self.trail.last <= last < self.trail.last + stride:
            return
        try:
            await pool.run(functools.partial(self.trail.put, self.bank, is_needed=not stride))
        except ResourceExhausted as error:
            self.trail, self.lost_trail = None, error.with_traceback(None)
            self.bank.keeps_prompts = False


# One of them by its id.
Found = tuple[int, ObjectOutput]


@dataclass(frozen=True)
class Outcome:
    """What is to be sent of a frame.

    Attributes:
        taken: The frame.
        prompted: What each prompt gave, in order.
        objects: What was found, in order of ids.
        deciding: Of each of these objects, what decides what has happened to it; none where the frame was sent before.
        answers: All that the engine was asked for it.
        revision: How often the frame was sent before.
    """

    taken: TakenFrame
    prompted: Sequence[Found] = ()
    objects: Sequence[Found] = ()
    deciding: Sequence[Visibility] = ()
    answers: Sequence[FrameOutput] = ()
    revision: int = 0


def check_prompted_frames(object_id: int, frames: int) -> None:
    """Bound the frames on which an object is prompted before they are tracked; corrections are none of them.

    Raises:
        ResourceExhausted: There would be too many.
    """
    if frames > MAX_CONDITIONING_FRAMES:
        raise ResourceExhausted(
            f"object {object_id} has prompts on {MAX_CONDITIONING_FRAMES} frames, the most allowed; "
            "remove it and prompt it anew to go on"
        )
