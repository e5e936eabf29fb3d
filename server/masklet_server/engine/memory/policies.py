"""What else than SAM 2's last six frames an object may remember, and which mask candidate it takes.

SAM 2 remembers the last frames whatever they show: after six frames behind a tree it knows nothing but the tree. Two
published remedies need no training, and both are here, written from their papers:

- *distractor aware*, in the spirit of DAM4SAM (Videnovic et al., CVPR 2025, https://arxiv.org/abs/2411.17576): frames
  on which another candidate showed a look-alike, and the right one was taken, stay as anchors; of the others only
  those count on which the object is to be seen.
- *motion aware*, in the spirit of SAMURAI (Yang et al., https://arxiv.org/abs/2411.11922): a Kalman filter foretells
  the box, candidates that lie there are preferred, and only frames with good scores are remembered.

A policy belongs to one object and holds at most `MAX_SELECTED` memories and one for each frame of the correction window
(and the last one). Conditioning frames are the bank's, as ever: they are always attended to. Masks are the model's
low-resolution ones, ``bool[4h, 4w]``, and boxes are in their pixels.
"""

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

from masklet_server.engine.memory.motion import Box, Motion, overlap

# Memories beside those of conditioning frames that the model was trained to attend to (`num_maskmem` - 1).
MAX_SELECTED = 6

Mask = npt.NDArray[np.bool_]


class MemoryPolicy(enum.Enum):
    """What an object's memory keeps."""

    SAM2 = enum.auto()
    """The last six frames."""

    DISTRACTOR_AWARE = enum.auto()
    """Frames that tell it from look-alikes."""

    MOTION_AWARE = enum.auto()
    """Frames whose masks are good and fit its motion."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What the mask decoder offers for one object on one frame.

    Attributes:
        masks: ``bool[K, 4h, 4w]``.
        predicted_ious: ``float32[K]``.
        object_score: Logit.
    """

    masks: npt.NDArray[np.bool_]
    predicted_ious: npt.NDArray[np.float32]
    object_score: float


Role = Literal["recent", "anchor", "last"]


@dataclass(frozen=True, eq=False)
class Kept:
    """A remembered frame.

    Attributes:
        features: ``bfloat16[M, h, w]``.
        role: An "anchor" is attended to as conditioning frames are, without an age. "last": only while it is the last
            frame.
    """

    features: Tensor
    role: Role


N = TypeVar("N")


class Policy(ABC, Generic[N]):
    """One object's selection of frames.

    Attributes:
        kept: Remembered frames, by index.
        notes: What the policy's decisions need of past frames, by index.
    """

    kind: ClassVar[MemoryPolicy]

    def __init__(self) -> None:
        self.kept: dict[int, Kept] = {}
        self.notes: dict[int, N] = {}
        self._verdict: tuple[int, Role | None] = (-1, None)

    # What differs.

    @abstractmethod
    def _decide(self, frame_index: int, candidates: Candidates) -> tuple[int, Role | None]:
        """Which candidate to take, what to remember the frame as if at all; takes notes."""

    @abstractmethod
    def _select(self, frame_index: int) -> list[tuple[int, int]]:
        """Pairs of age and index of the kept frames to attend to on a frame: 0 without an age, else 1 to 6."""

    @abstractmethod
    def _note_prompt(self, frame_index: int, mask: Mask) -> None:
        """Note what a prompt says."""

    @abstractmethod
    def _forget_notes(self, first: int) -> None:
        """Drop the notes that no decision on frame `first` or a later one looks at."""

    @staticmethod
    @abstractmethod
    def _note_to_json(note: N) -> Any:
        """A note as JSON's types."""

    @staticmethod
    @abstractmethod
    def _note_from_json(value: Any) -> N:
        """What `_note_to_json` wrote."""

    # What a step does.

    def choose(self, frame_index: int, candidates: Candidates) -> int:
        """Which candidate to take; `keep` follows with the memory made of it."""
        index, role = self._decide(frame_index, candidates)
        self._verdict = (frame_index, role)
        return index

    def keep(self, frame_index: int, features: Tensor) -> None:
        """Remember the frame, if `choose` found it worth while."""
        decided_index, role = self._verdict
        if decided_index == frame_index and role is not None:
            self.kept[frame_index] = Kept(features, role)

    def prompted(self, frame_index: int, mask: Mask, features: Tensor | None) -> None:
        """A prompt says what is on the frame. With features it is a correction; else the bank keeps the frame."""
        self.kept.pop(frame_index, None)
        self._note_prompt(frame_index, mask)
        if features is not None and mask.any():
            self.kept[frame_index] = Kept(features, "recent")

    def memories_before(self, frame_index: int) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame, the oldest first: pairs of age and features."""
        return [(age, self.kept[index].features) for age, index in self._select(frame_index)]

    # What the bank does with it.

    def forget(self, frame_index: int, correction_window: int) -> None:
        """The frame has been tracked: drop what neither a later step nor a correction can ask for."""
        first = frame_index + 1 - correction_window
        wanted = {index for _, index in self._select(first)}
        self.kept = {i: kept for i, kept in self.kept.items() if i >= first - 1 or i in wanted}
        self._forget_notes(first)

    def rewind(self, frame_index: int) -> None:
        """Forget what came after the frame."""
        self.kept = {i: kept for i, kept in self.kept.items() if i <= frame_index}
        self.notes = {i: note for i, note in self.notes.items() if i <= frame_index}

    def copy(self) -> Self:
        """One that shares the tensors and not the books."""
        twin = copy.copy(self)
        twin.kept, twin.notes = dict(self.kept), dict(self.notes)
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of all memories."""
        return sum(kept.features.nbytes for kept in list(self.kept.values()))

    @property
    def tensors(self) -> Iterator[tuple[int, Tensor]]:
        """Every memory with its frame."""
        for index, kept in self.kept.items():
            yield index, kept.features

    def to_json(self) -> dict[str, Any]:
        """All but the tensors."""
        return {
            "kind": self.kind.name,
            "roles": {str(index): kept.role for index, kept in self.kept.items()},
            "notes": {str(index): self._note_to_json(note) for index, note in self.notes.items()},
        }

    def load(self, value: dict[str, Any], tensors: dict[int, Tensor]) -> None:
        """Take over what `to_json` wrote, and the tensors."""
        self.kept = {int(index): Kept(tensors[int(index)], role) for index, role in value["roles"].items()}
        self.notes = {int(index): self._note_from_json(note) for index, note in value["notes"].items()}


class DistractorAware(Policy[int]):
    """See the module. A note is the object's area on a frame on which it was to be seen."""

    kind = MemoryPolicy.DISTRACTOR_AWARE

    # The paper's. An anchor is for ever, so it must be beyond doubt: a confident mask, of the object's usual size.
    MAX_ANCHORS: ClassVar = 3
    ANCHOR_IOU: ClassVar = 0.8
    AREA_TOLERANCE: ClassVar = 0.2
    AREAS: ClassVar = 10
    # Frames from anchor to anchor: neighbours show the same. (The paper thins out recent memories, too, and takes every
    # fifth. Measured with nano, that lost objects which hide when there are two or three memories of them.)
    ANCHOR_STRIDE: ClassVar = 5
    # A candidate that shows a look-alike reaches further than the mask: their boxes overlap less than this.
    DIVERGENCE: ClassVar = 0.7

    def _decide(self, frame_index: int, candidates: Candidates) -> tuple[int, Role | None]:
        chosen = int(candidates.predicted_ious.argmax())
        area = int(np.count_nonzero(candidates.masks[chosen]))
        if candidates.object_score <= 0 or area == 0:
            return chosen, None
        usual = self._usual_area(frame_index)
        self.notes[frame_index] = area
        certain = (
            candidates.predicted_ious[chosen] > self.ANCHOR_IOU
            and abs(area / usual - 1) <= self.AREA_TOLERANCE
            and frame_index - self._last_anchor(frame_index) >= self.ANCHOR_STRIDE
        )
        if certain and _shows_a_distractor(candidates.masks, chosen, self.DIVERGENCE):
            return chosen, "anchor"
        return chosen, "recent"

    def _usual_area(self, frame_index: int) -> float:
        areas = [self.notes[index] for index in sorted(self.notes) if index < frame_index][-self.AREAS :]
        return float(np.median(areas)) if areas else float("inf")

    def _last_anchor(self, frame_index: int) -> float:
        anchors = [i for i, kept in self.kept.items() if kept.role == "anchor" and i < frame_index]
        return max(anchors, default=float("-inf"))

    def _select(self, frame_index: int) -> list[tuple[int, int]]:
        before = [index for index in sorted(self.kept) if index < frame_index]
        anchors = [index for index in before if self.kept[index].role == "anchor"][-self.MAX_ANCHORS :]
        others = [index for index in before if self.kept[index].role != "anchor"]
        recent = others[len(anchors) - MAX_SELECTED :]
        return [(0, index) for index in anchors] + list(zip(range(len(recent), 0, -1), recent, strict=True))

    def _note_prompt(self, frame_index: int, mask: Mask) -> None:
        self.notes.pop(frame_index, None)
        if mask.any():
            self.notes[frame_index] = int(np.count_nonzero(mask))

    def _forget_notes(self, first: int) -> None:
        enough = set(sorted(index for index in self.notes if index < first)[-self.AREAS :])
        self.notes = {i: area for i, area in self.notes.items() if i >= first or i in enough}

    @staticmethod
    def _note_to_json(note: int) -> Any:
        return note

    @staticmethod
    def _note_from_json(value: Any) -> int:
        return int(value)


@dataclass(frozen=True, eq=False)
class Course:
    """An object's motion up to a frame.

    Attributes:
        motion: After the frame.
        frames: How many in a row it has been followed for.
    """

    motion: Motion
    frames: int


class MotionAware(Policy[Course]):
    """See the module. A note is the object's course up to a frame; there is none where it was lost."""

    kind = MemoryPolicy.MOTION_AWARE

    # The paper's, and its authors' defaults.
    MOTION_WEIGHT: ClassVar = 0.15
    # The filter has a say once it has followed so many frames, all of them with masks at least so good.
    STABLE_FRAMES: ClassVar = 15
    STABLE_IOU: ClassVar = 0.3
    # What a frame must exceed to be remembered.
    MEMORY_IOU: ClassVar = 0.5
    MEMORY_OBJECT_SCORE: ClassVar = 0.0
    MEMORY_MOTION: ClassVar = 0.0

    def _decide(self, frame_index: int, candidates: Candidates) -> tuple[int, Role | None]:
        boxes = [box_of(mask) for mask in candidates.masks]
        before = self.notes.get(frame_index - 1)
        expected = None if before is None else before.motion.predicted()
        scores, overlaps = candidates.predicted_ious, None
        if before is not None and expected is not None and before.frames >= self.STABLE_FRAMES:
            overlaps = np.array([overlap(expected.box, box) for box in boxes])
            scores = self.MOTION_WEIGHT * overlaps + (1 - self.MOTION_WEIGHT) * candidates.predicted_ious
        chosen = int(scores.argmax())
        box, iou = boxes[chosen], candidates.predicted_ious[chosen]
        present = candidates.object_score > self.MEMORY_OBJECT_SCORE and box is not None
        if present and box is not None and iou > self.STABLE_IOU:
            motion = Motion.start(box) if expected is None else expected.updated(box)
            self.notes[frame_index] = Course(motion, 1 if before is None else before.frames + 1)
        fits = overlaps is None or overlaps[chosen] > self.MEMORY_MOTION
        # The last frame is always attended to: nothing else tells what is going on.
        return chosen, "recent" if present and iou > self.MEMORY_IOU and fits else "last"

    def _select(self, frame_index: int) -> list[tuple[int, int]]:
        good = [index for index in sorted(self.kept) if index < frame_index and self.kept[index].role == "recent"]
        last = frame_index - 1
        if last in self.kept and last not in good:
            good.append(last)
        chosen = good[-MAX_SELECTED:]
        return list(zip(range(len(chosen), 0, -1), chosen, strict=True))

    def _note_prompt(self, frame_index: int, mask: Mask) -> None:
        # A prompt says where the object is, not how it got there: its motion starts anew.
        self.notes.pop(frame_index, None)
        if (box := box_of(mask)) is not None:
            self.notes[frame_index] = Course(Motion.start(box), 1)

    def _forget_notes(self, first: int) -> None:
        self.notes = {i: course for i, course in self.notes.items() if i >= first - 1}

    @staticmethod
    def _note_to_json(note: Course) -> Any:
        return {**note.motion.to_json(), "frames": note.frames}

    @staticmethod
    def _note_from_json(value: Any) -> Course:
        return Course(Motion.from_json(value), value["frames"])


def new_policy(kind: MemoryPolicy) -> DistractorAware | MotionAware | None:
    """The state that one object needs; None for SAM 2's own rule, which needs none."""
    match kind:
        case MemoryPolicy.SAM2:
            return None
        case MemoryPolicy.DISTRACTOR_AWARE:
            return DistractorAware()
        case MemoryPolicy.MOTION_AWARE:
            return MotionAware()


def box_of(mask: Mask) -> Box | None:
    """x0, y0 inclusive and x1, y1 exclusive of ``bool[H, W]``; None where it is empty."""
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return (x, y, x + width, y + height) if width else None


def _shows_a_distractor(masks: npt.NDArray[np.bool_], chosen: int, divergence: float) -> bool:
    """Whether another candidate has a large part elsewhere: its box with the chosen mask's is much larger than that."""
    mask = masks[chosen]
    box = box_of(mask)
    for i, other in enumerate(masks):
        elsewhere = other & ~mask
        if i == chosen or box is None or not elsewhere.any():
            continue
        if overlap(box, box_of(mask | _largest_part(elsewhere))) <= divergence:
            return True
    return False


def _largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask that is not empty."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    largest: Mask = labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return largest
