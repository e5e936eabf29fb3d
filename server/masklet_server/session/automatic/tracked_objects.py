"""The objects that a session tracks: their memories, and the snapshots from which a memory can be brought back."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.object_memory import MAX_CONDITIONING_FRAMES
from masklet_server.engine.memory.snapshots import BankSnapshots
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.session.automatic.correction_window import CorrectionWindow
from masklet_server.session.automatic.visibility import Sighting, Visibility
from masklet_server.session.context import SessionContext
from masklet_server.session.replies import ObjectEvent, ObjectResult
from masklet_server.session.restoring.state import ObjectState, Restored
from masklet_server.video.frame import Frame


@dataclass(eq=False)
class TrackedObject:
    """An object that is tracked.

    Attributes:
        bank: Its memory.
        conditioning_frames: Indices of its conditioning frames; empty until the first of them is tracked.
        corrected_frames: Indices of the frames on which it was corrected and can still be corrected.
        is_prompted_now: The frame that is being tracked has prompts for it, and is not in `conditioning_frames` yet.
        visibility: Whether it is seen, according to the first results of frames.
        snapshots: States of its memory on earlier frames, from which any frame of a clip can be corrected; None where
            frames can't be decoded again, or no room is left.
        snapshots_error: Why it has no snapshots any more.
    """

    bank: MemoryBank
    conditioning_frames: set[int] = field(default_factory=set)
    corrected_frames: set[int] = field(default_factory=set)
    is_prompted_now: bool = False
    visibility: Visibility = field(default_factory=Visibility)
    snapshots: BankSnapshots | None = None
    snapshots_error: ResourceExhausted | None = None

    def observe(self, result: ObjectResult, frame: Frame) -> ObjectEvent | None:
        """Take a frame's first result for the object into account; what happened to the object, if anything."""
        return self.visibility.update(
            Sighting(result.object_score, result.predicted_iou, result.box, frame.height, frame.width)
        )


class TrackedObjects:
    """All objects that a session tracks, by id, with the window in which they can be corrected.

    Args:
        context: The session's.

    Attributes:
        window: The frames that can be corrected.
    """

    def __init__(self, context: SessionContext) -> None:
        options = context.options
        self.window = CorrectionWindow(
            options.correction_window, context.limits.correction_bytes, context.share.corrections
        )
        self._context = context
        self._objects: dict[int, TrackedObject] = {}
        self._snapshot_file = TensorFile(context.limits.max_history_bytes, context.share.disk)

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._objects

    def __iter__(self) -> Iterator[int]:
        """The ids in ascending order."""
        return iter(sorted(self._objects))

    def clear(self) -> None:
        """Let all memories and frames go."""
        self._objects.clear()
        self.window.clear()
        self._snapshot_file = TensorFile(0)

    @property
    def banks(self) -> list[MemoryBank]:
        """The memory of each object."""
        return [tracked.bank for tracked in self._objects.values()]

    @property
    def snapshot_file_bytes(self) -> int:
        """Size of the file with the objects' snapshots."""
        return self._snapshot_file.size

    def get(self, object_id: int) -> TrackedObject | None:
        """The object of that id, if it is tracked."""
        return self._objects.get(object_id)

    def get_or_add(self, object_id: int) -> TrackedObject:
        """The object of that id; a new one with an empty memory, if there is none."""
        if object_id not in self._objects:
            self._objects[object_id] = self._new_object()
        return self._objects[object_id]

    def has(self, object_id: int, tracked: TrackedObject) -> bool:
        """Whether the object is still tracked; it may have been removed, and its id given to another one."""
        return self._objects.get(object_id) is tracked

    def remove(self, object_id: int) -> bool:
        """Track the object no longer, from the next frame on. Returns whether it was tracked."""
        return self._objects.pop(object_id, None) is not None

    def was_prompted(self, object_id: int, frame_index: int) -> bool:
        """Whether a prompt for the object was applied on the frame; corrections count while more are possible there."""
        tracked = self._objects.get(object_id)
        return tracked is not None and frame_index in tracked.conditioning_frames | tracked.corrected_frames

    def new_bank(self) -> MemoryBank:
        """An empty memory for one object."""
        options = self._context.options
        return self._context.engine.new_bank(
            options.model.name, correction_window=self.window.size, memory_policy=options.config.memory_policy
        )

    def _new_object(self) -> TrackedObject:
        bank = self.new_bank()
        if self.window.redecoded is None:
            return TrackedObject(bank)
        bank.keeps_prompts = True
        return TrackedObject(bank, snapshots=BankSnapshots(self._snapshot_file))

    # Snapshots of the session

    def dump(self) -> dict[int, ObjectState]:
        """What must be known of each object beside its memory."""
        return {
            object_id: ObjectState(sorted(one.conditioning_frames), sorted(one.corrected_frames), one.visibility.dump())
            for object_id, one in self._objects.items()
        }

    def copied_banks(self, correction_window: int) -> Mapping[int, MemoryBank]:
        """A copy of each object's memory, which keeps what correcting so many frames needs."""
        banks = {object_id: one.bank.copy() for object_id, one in self._objects.items()}
        for bank in banks.values():
            bank.keeps_prompts = False
            bank.keep(min(correction_window, bank.correction_window))
        return banks

    def restore(self, restored: Restored) -> None:
        """Go on with the objects of a session that is restored."""
        for object_id, state in restored.state.objects.items():
            self._objects[object_id] = TrackedObject(
                restored.banks[object_id],
                set(state.conditioning_frames),
                set(state.corrected_frames),
                visibility=Visibility.restored(state.visibility),
            )

    # Snapshots of an object

    async def save_snapshot(self, tracked: TrackedObject, *, is_prompted: bool) -> None:
        """The object's memory will not change any more on its last frame: write a snapshot of it.

        If there is no room, the object has no snapshots from then on, and is tracked without.

        Args:
            tracked: The object.
            is_prompted: It was prompted on that frame. Otherwise a snapshot is written only every
                `SessionLimits.correction_window` frames.
        """
        snapshots, last = tracked.snapshots, tracked.bank.last_frame
        if snapshots is None or last is None:
            return
        stride = 0 if is_prompted else self._context.limits.correction_window
        if snapshots.last is not None and snapshots.last <= last < snapshots.last + stride:
            return
        try:
            await self._context.pool.run(functools.partial(snapshots.put, tracked.bank, is_needed=is_prompted))
        except ResourceExhausted as error:
            tracked.snapshots, tracked.snapshots_error = None, error.with_traceback(None)
            tracked.bank.keeps_prompts = False

    async def save_snapshots(self, frame_index: int) -> None:
        """The frame was tracked: write a snapshot of each object that needs one there."""
        for tracked in list(self._objects.values()):
            await self.save_snapshot(tracked, is_prompted=frame_index in tracked.conditioning_frames)

    async def load_snapshot(self, snapshots: BankSnapshots, frame_index: int) -> MemoryBank:
        """The memory as it was on the last frame with a snapshot, up to the given frame."""
        return await self._context.pool.run(functools.partial(self._load, snapshots, frame_index))

    def _load(self, snapshots: BankSnapshots, frame_index: int) -> MemoryBank:
        data = snapshots.get(snapshots.before(frame_index))
        return self._context.engine.load_bank(self._context.options.model.name, data)


def check_conditioning_frames(object_id: int, frames: int) -> None:
    """Bound the conditioning frames of an object, those that prompts wait for included. Corrections do not count.

    Raises:
        ResourceExhausted: There would be too many.
    """
    if frames > MAX_CONDITIONING_FRAMES:
        raise ResourceExhausted(
            f"object {object_id} has prompts on {MAX_CONDITIONING_FRAMES} frames, the most allowed; "
            "remove it and prompt it again to go on"
        )
