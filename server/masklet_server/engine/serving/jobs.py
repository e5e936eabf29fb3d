"""What the rest of the server asks of the engine, and what it gets back. Plain data: arrays, numbers, memory banks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument
from masklet.prompts import Prompt, check_box, check_mask, check_points, check_within
from masklet_server.engine.memory.object_memory import ObjectMemory
from masklet_server.engine.network.tensors import Features
from masklet_server.masks.runs import Runs


@dataclass(frozen=True, eq=False)
class ObjectTask:
    """One object on the frame of a `FrameJob`.

    Attributes:
        bank: The object's memory; advanced by one frame when a job that tracks succeeds, untouched when one fails.
        prompts: To be applied on this frame before it is tracked, in order; sizes already checked. The first frame of
            an object needs at least one.
        clear: Take back earlier prompts on this frame first; what is left of the object there is shown before the
            outputs of prompts. Of a `History` only.
    """

    bank: ObjectMemory
    prompts: Sequence[Prompt] = ()
    clear: bool = False


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """What the image encoder made of a frame.

    Attributes:
        features: Its.
        seconds: The encoder's time, shared with the frames of the stream that were encoded with it.
    """

    features: Features
    seconds: float


class RecentFeatures:
    """The features of the frames that one stream had encoded last: for the next click on one, and the frames to come.

    Only the engine's thread uses what is in it. Whoever asks for a stream's jobs may look between two of them which
    frames are there.

    Args:
        capacity: Frames.
    """

    def __init__(self, capacity: int = 1) -> None:
        self._capacity = capacity
        self._frames: dict[int, EncodedFrame] = {}

    def __contains__(self, frame_index: int) -> bool:
        return frame_index in self._frames

    def get(self, frame_index: int) -> EncodedFrame | None:
        """The frame's, if it is among them."""
        return self._frames.get(frame_index)

    def put(self, frame_index: int, encoded: EncodedFrame) -> None:
        """Keep these in place of the oldest."""
        self._frames.pop(frame_index, None)
        self._frames[frame_index] = encoded
        while len(self._frames) > self._capacity:
            del self._frames[next(iter(self._frames))]


@dataclass(frozen=True, eq=False)
class FrameJob:
    """Track some objects of one stream on its next frame, or only prompt them on any frame.

    Attributes:
        model: Name of a loaded model.
        stream: Identity of the stream; the scheduler is fair between streams and keeps each one's order.
        frame_index: 0-based. To be tracked on, each bank must have been tracked up to the frame before, or be new; to
            be prompted alone, it must be new there or still correctable. A `History` takes any.
        pixels: ``uint8[S, S, 3]`` RGB, S being the model's `image_size`.
        height: Rows of the masks to be made.
        width: Columns of the masks to be made.
        tasks: At least one.
        clip_length: Frames in the clip if fewer than 16, else None: an input of SAM 2.1's pointer position encoding.
        deterministic: Never in a batch with other jobs.
        track: False: apply the prompts and leave tracking the frame to another job.
        settle: First of all, encode the memories of prompts that wait for the next step, on whichever frame.
        reverse: Time runs backwards. Of a `History` only.
        recent: Looked into before the picture is encoded; holds it afterwards.
        upcoming: Pictures of the frames after it, or before it if time runs backwards, which go into `recent` if they
            are encoded with it.
        return_logits: The outputs carry logits, too.
    """

    model: str
    stream: str
    frame_index: int
    pixels: npt.NDArray[np.uint8]
    height: int
    width: int
    tasks: Sequence[ObjectTask]
    clip_length: int | None = None
    deterministic: bool = False
    track: bool = True
    settle: bool = False
    reverse: bool = False
    recent: RecentFeatures | None = None
    upcoming: Sequence[npt.NDArray[np.uint8]] = ()
    return_logits: bool = False


@dataclass(frozen=True, eq=False)
class ObjectOutput:
    """One object's mask.

    Attributes:
        runs: The mask's.
        predicted_iou: The model's own estimate, 0 to 1.
        object_score: Logit; above 0 the object is held to be in the picture.
        logits: ``float32[h, w]``, of which the mask was made (SAM 2's `pred_masks`), h and w being the model's
            `logits_size`; None unless the job asks for them.
    """

    runs: Runs
    predicted_iou: float
    object_score: float
    logits: npt.NDArray[np.float32] | None = None

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``bool[H, W]``, made anew each time."""
        return self.runs.mask

    def __repr__(self) -> str:
        scores = f"predicted_iou={self.predicted_iou:.3f}, object_score={self.object_score:.2f}"
        return f"ObjectOutput(mask=bool[{self.runs.height}, {self.runs.width}], {scores})"


@dataclass(frozen=True, eq=False)
class FrameOutput:
    """The answer to a `FrameJob`.

    Attributes:
        objects: One for each task, in the same order; none where nothing was to be tracked.
        prompts: For each task, one output for each of its prompts, in the same order, after that of clearing.
        queue_seconds: From the job's arrival to the start of its batch.
        encode_seconds: Of the image encoder, for the frames of all streams that ran with it; of frames of one stream
            that did, each one's share.
        step_seconds: Of all else up to the masks at the video's size, for all objects that ran with it.
    """

    objects: Sequence[ObjectOutput]
    prompts: Sequence[Sequence[ObjectOutput]]
    queue_seconds: float = 0.0
    encode_seconds: float = 0.0
    step_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class PicturePrompt:
    """Points, a box, both, or a mask, for a single picture; points and box may go with logits of an earlier answer.

    Attributes:
        point_coords: ``float32[N, 2]`` or None.
        point_labels: ``int32[N]``, 1 or 0, or None.
        box: ``float32[4]``, x0, y0, x1, y1, or None.
        mask: ``bool[H, W]`` at the picture's size, or None.
        mask_input: ``float32[h, w]`` low-resolution logits, h and w being the model's `logits_size`, or None; counted
            as if clamped to +-32.

    Raises:
        InvalidArgument: A value is out of range or of the wrong shape; `violations` names the field.
    """

    point_coords: npt.NDArray[np.float32] | None = None
    point_labels: npt.NDArray[np.int32] | None = None
    box: npt.NDArray[np.float32] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    mask_input: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        coords, labels = check_points(self.point_coords, self.point_labels)
        object.__setattr__(self, "point_coords", coords)
        object.__setattr__(self, "point_labels", labels)
        object.__setattr__(self, "box", check_box(self.box))
        object.__setattr__(self, "mask", check_mask(self.mask))
        if self.mask is not None and self.mask_input is not None:
            raise InvalidArgument.of("mask_input", "excludes mask; give one of the two")
        if self.mask_input is not None and (self.mask_input.ndim != 2 or not np.isfinite(self.mask_input).all()):
            raise InvalidArgument.of("mask_input", "must be finite logits of shape [h, w]")
        if all(part is None for part in (coords, self.box, self.mask, self.mask_input)):
            raise InvalidArgument.of("points", "the prompt is empty; give at least one point, a box or a mask")

    def check_size(self, height: int, width: int) -> None:
        """Hold the prompt against the picture's size.

        Raises:
            InvalidArgument: A point or the box lies outside, or the mask has another size.
        """
        check_within(height, width, point_coords=self.point_coords, box=self.box, mask=self.mask)


@dataclass(frozen=True, eq=False)
class PictureJob:
    """Segment one picture.

    Attributes:
        model: Name of a loaded model.
        stream: Identity of the caller, for fairness.
        pixels: ``uint8[H, W, 3]`` RGB at full size, or None if `image_id` is given.
        image_id: Of an earlier answer, whose features are used again.
        prompts: At least one.
        multimask_output: Three candidates for each prompt rather than one.
    """

    model: str
    stream: str
    prompts: Sequence[PicturePrompt]
    pixels: npt.NDArray[np.uint8] | None = None
    image_id: str = ""
    multimask_output: bool = False


@dataclass(frozen=True, eq=False)
class Candidate:
    """One mask for a `PicturePrompt`.

    Attributes:
        runs: The mask's.
        predicted_iou: The model's own estimate, 0 to 1.
        logits: ``float32[h, w]``, of which the mask was made.
        output_index: Which of the decoder's outputs this is, in its own order.
    """

    runs: Runs
    predicted_iou: float
    logits: npt.NDArray[np.float32]
    output_index: int = 0

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``bool[H, W]``, made anew each time."""
        return self.runs.mask


@dataclass(frozen=True, eq=False)
class PictureOutput:
    """The answer to a `PictureJob`.

    Attributes:
        image_id: Names the picture's features while the engine's cache holds them.
        height: Rows of the picture.
        width: Columns of the picture.
        results: For each prompt its candidates, best first.
    """

    image_id: str
    height: int
    width: int
    results: Sequence[Sequence[Candidate]] = field(default_factory=list)


@dataclass(frozen=True)
class LoadedModel:
    """What the engine says of a model it holds.

    Attributes:
        name: As in the registry.
        image_size: Side of the square the model sees, in pixels.
        logits_size: Side of its low-resolution logits.
        dtype: "float32" or "bfloat16".
        device: "cpu" or "cuda:0".
        device_name: The device's own name.
        parameter_count: Of all weights.
        encode_ahead: Frames of one stream that are best encoded in one pass.
    """

    name: str
    image_size: int
    logits_size: int
    dtype: str
    device: str
    device_name: str
    parameter_count: int
    encode_ahead: int = 1
