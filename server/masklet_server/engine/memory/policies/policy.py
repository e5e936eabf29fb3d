"""The base class of memory policies, and what goes into their decisions."""

from __future__ import annotations

import copy
import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor
from typing_extensions import Self

from masklet_server.engine.memory.policies.motion import Box

# Memories beside those of conditioning frames that Meta's models were trained to attend to: `num_maskmem` - 1.
MAX_SELECTED = 6

Mask = npt.NDArray[np.bool_]


class MemoryPolicy(enum.Enum):
    """Which tracked frames an object remembers."""

    SAM2 = enum.auto()
    """The last six frames; with nano the last three."""

    DISTRACTOR_AWARE = enum.auto()
    """Frames that show the difference between the object and look-alikes."""

    MOTION_AWARE = enum.auto()
    """Frames whose masks are good and fit the object's motion."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The masks that the mask decoder proposes for one object on one frame.

    Attributes:
        masks: ``bool[K, 4h, 4w]``.
        predicted_ious: ``float32[K]``.
        object_score: Logit; above 0 the model sees the object.
    """

    masks: npt.NDArray[np.bool_]
    predicted_ious: npt.NDArray[np.float32]
    object_score: float


Role = Literal["recent", "anchor", "last"]


@dataclass(frozen=True, eq=False)
class SelectedMemory:
    """The memory of a tracked frame that a policy selected.

    Attributes:
        features: ``bfloat16[M, h, w]``.
        role: An "anchor" has no age, as conditioning frames have none. A "last" one counts only while it is the last
            frame. The others are "recent".
    """

    features: Tensor
    role: Role


N = TypeVar("N")


class Policy(ABC, Generic[N]):
    """One object's selection of frames; `MemoryBank` calls it where it would follow SAM 2's own rule.

    A policy holds at most `most` memories, the one of the last frame, and one for each frame of the correction
    window. Conditioning frames belong to the bank: a step always attends to them. Masks are the model's low-resolution
    ones, ``bool[4h, 4w]``, and boxes are in their pixels.

    Args:
        most: How many memories of tracked frames a step attends to at most.

    Attributes:
        selected: Memories of the selected frames by frame.
        notes: What decisions need to know about past frames, by frame.
    """

    kind: ClassVar[MemoryPolicy]

    def __init__(self, most: int = MAX_SELECTED) -> None:
        self.most = most
        self.selected: dict[int, SelectedMemory] = {}
        self.notes: dict[int, N] = {}
        self._decided: tuple[int, Role | None] = (-1, None)

    # What a subclass defines

    @abstractmethod
    def _decide(self, frame_index: int, candidates: Candidates) -> tuple[int, Role | None]:
        """The candidate to take, and the role of the frame's memory (None: forget the frame); writes notes."""

    @abstractmethod
    def _select(self, frame_index: int) -> list[tuple[int, int]]:
        """The selected frames to attend to on a frame: pairs of age (0: no age, else from 1 to `most`) and index."""

    @abstractmethod
    def _note_mask(self, frame_index: int, mask: Mask) -> None:
        """Note the mask that a prompt gave."""

    @abstractmethod
    def _forget_notes(self, first: int) -> None:
        """Drop the notes that no decision on frame `first` or a later frame reads."""

    @staticmethod
    @abstractmethod
    def _note_to_json(note: N) -> Any:
        """Convert a note to JSON's types."""

    @staticmethod
    @abstractmethod
    def _note_from_json(value: Any) -> N:
        """Convert back what `_note_to_json` returned."""

    # What a step calls

    def choose(self, frame_index: int, candidates: Candidates) -> int:
        """The index of the candidate to take; `remember` follows with the memory that is encoded from it."""
        index, role = self._decide(frame_index, candidates)
        self._decided = (frame_index, role)
        return index

    def remember(self, frame_index: int, features: Tensor) -> None:
        """Hold the frame's memory if `choose` decided so."""
        decided_index, role = self._decided
        if decided_index == frame_index and role is not None:
            self.selected[frame_index] = SelectedMemory(features, role)

    def note_prompt(self, frame_index: int, mask: Mask, features: Tensor | None) -> None:
        """Note a prompted frame: with features a correction; without, a conditioning frame, which the bank holds."""
        self.selected.pop(frame_index, None)
        self._note_mask(frame_index, mask)
        if features is not None and mask.any():
            self.selected[frame_index] = SelectedMemory(features, "recent")

    def memories_before(self, frame_index: int) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame, oldest first: pairs of age and features."""
        return [(age, self.selected[index].features) for age, index in self._select(frame_index)]

    # What the bank calls

    def forget(self, frame_index: int, correction_window: int) -> None:
        """Drop what neither a step after the frame nor a correction inside the window needs."""
        first = frame_index + 1 - correction_window
        wanted = {index for _, index in self._select(first)}
        self.selected = {i: one for i, one in self.selected.items() if i >= first - 1 or i in wanted}
        self._forget_notes(first)

    def rewind(self, frame_index: int) -> None:
        """Forget everything after the frame."""
        self.selected = {i: one for i, one in self.selected.items() if i <= frame_index}
        self.notes = {i: note for i, note in self.notes.items() if i <= frame_index}

    def copy(self) -> Self:
        """A policy with its own dictionaries that shares the tensors."""
        twin = copy.copy(self)
        twin.selected, twin.notes = dict(self.selected), dict(self.notes)
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of all selected memories together."""
        return sum(one.features.nbytes for one in list(self.selected.values()))

    @property
    def tensors(self) -> Iterator[tuple[int, Tensor]]:
        """Frame and features of every selected memory."""
        for index, one in self.selected.items():
            yield index, one.features

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON's types."""
        return {
            "kind": self.kind.name,
            "roles": {str(index): one.role for index, one in self.selected.items()},
            "notes": {str(index): self._note_to_json(note) for index, note in self.notes.items()},
        }

    def load(self, value: dict[str, Any], tensors: dict[int, Tensor]) -> None:
        """Take over the state that `to_json` returned, and the tensors by frame."""
        self.selected = {
            int(index): SelectedMemory(tensors[int(index)], role) for index, role in value["roles"].items()
        }
        self.notes = {int(index): self._note_from_json(note) for index, note in value["notes"].items()}


def mask_box(mask: Mask) -> Box | None:
    """The box around a mask ``bool[H, W]``: x0, y0 inclusive and x1, y1 exclusive; None if the mask is empty."""
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return (x, y, x + width, y + height) if width else None
