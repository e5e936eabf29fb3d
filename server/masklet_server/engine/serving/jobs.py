"""What a session asks of the engine for the objects of one stream, and what the engine answers.

A job is one of six operations. Each has a class with exactly the inputs that the operation takes:

- `Track` applies the prompts on a frame, if there are any, and then tracks the objects there;
- `TrackBackward` tracks the objects on a frame while time runs backward (histories only);
- `ApplyPrompt` applies one prompt to one object on a frame, and does not track the frame;
- `ClearPrompts` takes back one object's prompts on a frame (histories only);
- `ConsolidatePrompts` encodes the memories of prompts that were applied; it needs no frame;
- `EncodeFrame` encodes a frame before anything is asked of it; it needs no object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masklet.prompts import Prompt
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.object_memory import ObjectMemory
from masklet_server.engine.serving.recent_features import RecentFeatures
from masklet_server.masks.drawing import Drawing
from masklet_server.masks.edges import Edges
from masklet_server.masks.runs import Runs


@dataclass(frozen=True, eq=False)
class StreamContext:
    """What all jobs of one stream have in common.

    Attributes:
        id: Identifies the stream. The scheduler is fair between streams and keeps the order of each stream's jobs.
        model: Name of a loaded model.
        deterministic: The stream's jobs never share a batch with other jobs.
        return_logits: Outputs contain logits too.
        edges: How the edges of masks are drawn.
        recent: Looked up before a frame is encoded, and filled afterwards; None: every job encodes its frame.
    """

    id: str
    model: str
    deterministic: bool = False
    return_logits: bool = False
    edges: Edges = Edges.NONE
    recent: RecentFeatures | None = None


@dataclass(frozen=True, eq=False)
class FrameInput:
    """A frame of a stream.

    Attributes:
        index: 0-based.
        pixels: ``uint8[S, S, 3]`` RGB, S being the model's `image_size`.
        height: Rows of the video as shown, and of the masks to be made.
        width: Columns of the video as shown, and of the masks to be made.
        clip_length: Frames in the clip if fewer than 16, else None. SAM 2.1's pointer position encoding depends on it.
    """

    index: int
    pixels: npt.NDArray[np.uint8]
    height: int
    width: int
    clip_length: int | None = None


@dataclass(frozen=True, eq=False)
class ObjectTask:
    """One object of a `Track` job.

    Attributes:
        memory: The object's memory. It advances by one frame if the job succeeds, and stays as it is if the job fails.
        prompts: Applied on the frame in this order before the frame is tracked; sizes already checked. The first frame
            of an object needs at least one.
    """

    memory: ObjectMemory
    prompts: Sequence[Prompt] = ()


@dataclass(frozen=True, eq=False)
class TrackingJob(ABC):
    """Base class of the operations on the objects of one stream.

    Attributes:
        stream: The stream that asks.
    """

    stream: StreamContext

    @property
    @abstractmethod
    def memories(self) -> Sequence[ObjectMemory]:
        """The memories that the job may change, one for each object. A job that fails changes none of them."""


@dataclass(frozen=True, eq=False)
class FrameJob(TrackingJob):
    """Base class of the operations that work on a frame.

    Attributes:
        frame: The frame.
    """

    frame: FrameInput


@dataclass(frozen=True, eq=False)
class Track(FrameJob):
    """Apply prompts on a frame, if there are any, then track the objects there, forward in time.

    A `MemoryBank` must be new, or tracked up to the frame before; a `History` takes any frame.

    Attributes:
        tasks: At least one.
        upcoming: Pictures ``uint8[S, S, 3]`` of the next frames. They are encoded together with this frame if the
            stream runs alone, or while the batch goes on by threads that it leaves idle, for the stream's `recent`.
    """

    tasks: Sequence[ObjectTask]
    upcoming: Sequence[npt.NDArray[np.uint8]] = ()

    @property
    def memories(self) -> Sequence[ObjectMemory]:
        """The memory of each task's object."""
        return [task.memory for task in self.tasks]


@dataclass(frozen=True, eq=False)
class TrackBackward(FrameJob):
    """Track objects on a frame while time runs backward: each step reads the frames after it.

    Attributes:
        histories: Memories of the objects; at least one.
        upcoming: As in `Track`, of the frames before this one, nearest first.
    """

    histories: Sequence[History]
    upcoming: Sequence[npt.NDArray[np.uint8]] = ()

    @property
    def memories(self) -> Sequence[ObjectMemory]:
        """The histories of all tracked objects."""
        return self.histories


@dataclass(frozen=True, eq=False)
class ApplyPrompt(FrameJob):
    """Apply one prompt to one object on a frame, and leave tracking the frame to another job.

    The frame must be new to the memory, or inside its correction window; a `History` takes any frame.

    Attributes:
        memory: The object's memory.
        prompt: Its size already checked.
    """

    memory: ObjectMemory
    prompt: Prompt

    @property
    def memories(self) -> Sequence[ObjectMemory]:
        """The memory of the one object."""
        return [self.memory]


@dataclass(frozen=True, eq=False)
class ClearPrompts(FrameJob):
    """Take back one object's prompts on a frame, and show what is left of the object there.

    Attributes:
        history: The object's memory.
    """

    history: History

    @property
    def memories(self) -> Sequence[ObjectMemory]:
        """The history of the one object."""
        return [self.history]


@dataclass(frozen=True, eq=False)
class EncodeFrame(FrameJob):
    """Encode a frame for the stream's `recent`, so that the next job on the frame need not."""

    @property
    def memories(self) -> Sequence[ObjectMemory]:
        """Always empty: no object is changed."""
        return ()


@dataclass(frozen=True, eq=False)
class ConsolidatePrompts(TrackingJob):
    """Encode the memories of all frames that were prompted since the last step (`propagate_in_video_preflight`).

    A job that tracks does the same before its step. This operation is for memories that no step follows.

    Attributes:
        objects: The objects' memories.
    """

    objects: Sequence[ObjectMemory]

    @property
    def memories(self) -> Sequence[ObjectMemory]:
        """The memories to be consolidated: `objects`."""
        return self.objects


@dataclass(frozen=True, eq=False)
class ObjectOutput:
    """One object's mask on one frame.

    Attributes:
        shape: The mask, or what draws it.
        predicted_iou: The model's own estimate of the mask's quality, 0 to 1.
        object_score: Logit. Above 0 the model sees the object in the picture.
        logits: ``float32[h, w]``, from which the mask was made (SAM 2's `pred_masks`), h and w being the model's
            `logits_size`; None unless the stream asks for them.
    """

    shape: Runs | Drawing
    predicted_iou: float
    object_score: float
    logits: npt.NDArray[np.float32] | None = None

    @property
    def runs(self) -> Runs:
        """The mask as run-lengths; drawn by this thread if that was not done yet."""
        return self.shape.runs if isinstance(self.shape, Drawing) else self.shape

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``bool[H, W]``, painted on each access."""
        return self.runs.mask

    def __repr__(self) -> str:
        scores = f"predicted_iou={self.predicted_iou:.3f}, object_score={self.object_score:.2f}"
        if isinstance(self.shape, Drawing) and not self.shape.is_drawn:
            return f"ObjectOutput(not drawn yet, {scores})"
        return f"ObjectOutput(mask=bool[{self.runs.height}, {self.runs.width}], {scores})"


@dataclass(frozen=True, eq=False)
class FrameOutput:
    """The answer to a `TrackingJob`.

    Attributes:
        objects: One for each tracked object, in the job's order. Empty if the job does not track.
        prompts: For each object of the job, the outcome of each of its prompts, in order. `ClearPrompts` gives one
            outcome: what is left of the object. `TrackBackward`, `ConsolidatePrompts` and `EncodeFrame` give none.
        queue_seconds: Time from the job's arrival to the start of its batch.
        encode_seconds: Time of the image encoder for all streams of the batch. If it encoded several frames of one
            stream, each frame has its share.
        step_seconds: Time of everything else, for all objects of the batch. On a GPU it goes up to the masks at the
            video's size, on a CPU up to those at the model's.
    """

    objects: Sequence[ObjectOutput]
    prompts: Sequence[Sequence[ObjectOutput]]
    queue_seconds: float = 0.0
    encode_seconds: float = 0.0
    step_seconds: float = 0.0
