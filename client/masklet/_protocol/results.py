"""What comes back from tracking: a `FrameResult` for each frame, and another where a correction changes a frame."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from masklet.notebook import masks_png
from masklet.rle import Rle
from masklet.rle import decode as decode_rle

Box = tuple[float, float, float, float]
"""x0, y0 (inclusive), x1, y1 (exclusive), in pixels."""
ObjectEvent = Literal["lost", "reacquired", "out_of_view"]
"""What happened to an object; `ObjectResult.event` says when each is reported."""


@dataclass(frozen=True, eq=False)
class ObjectResult:
    """One object on one frame.

    Attributes:
        object_id: As in the object's prompts.
        rle: The mask's run-lengths, ready for JSON.
        box: The smallest box around the mask: x0, y0 (inclusive), x1, y1 (exclusive), in pixels; None where the mask is
            empty.
        area: The number of foreground pixels.
        predicted_iou: The model's own estimate of the mask's intersection over union with the truth, 0 to 1.
        object_score: A logit; above 0 the model takes the object to be in the picture.
        visible: True where `object_score` is above 0 and the mask is not empty.
        logits: ``float32[h, w]``, the low-resolution logits from which the mask was made (SAM 2's `pred_masks`); None
            where they were not asked for.
        event: What happened to the object, decided on this frame from the last few frames: "lost" (last seen inside the
            picture), "out_of_view" (last seen at its edge), "reacquired" (seen again), or None. Always None in results
            with a `FrameResult.revision` above 0.
    """

    object_id: int
    rle: Rle
    box: Box | None
    area: int
    predicted_iou: float
    object_score: float
    visible: bool
    logits: npt.NDArray[np.float32] | None = None
    event: ObjectEvent | None = None

    @functools.cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask, ``bool[H, W]`` at the video's size; decoded on first use."""
        return decode_rle(self.rle)

    def _repr_png_(self) -> bytes | None:
        """The mask as a picture, in notebooks."""
        return masks_png({self.object_id: self.mask})

    def __repr__(self) -> str:
        height, width = self.rle["size"]
        event = f", event={self.event!r}" if self.event else ""
        return (
            f"ObjectResult(object_id={self.object_id}, mask=bool[{height}, {width}], area={self.area}, "
            f"predicted_iou={self.predicted_iou:.3f}, object_score={self.object_score:.2f}, "
            f"visible={self.visible}{event})"
        )


@dataclass(frozen=True)
class Timings:
    """Where the time of a frame went on the server, in seconds.

    A stage that several frames or objects ran through together counts in full for each of them.

    Attributes:
        decode: To read, decode and resize the picture.
        queue: To wait for the device.
        encode: The image encoder.
        step: Prompts, memory attention, mask decoder and memory encoder.
        mask: To draw the masks at the size of the video on a CPU (a GPU does it within the step), and to find their
            run-lengths, boxes and areas.
        send: To hand the result before this one to the network.
    """

    decode: float
    queue: float
    encode: float
    step: float
    mask: float
    send: float


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One frame with all objects that are tracked on it.

    Attributes:
        frame_index: The frame's number, from 0, in order of presentation.
        pts_seconds: The frame's presentation time in seconds.
        sequence: The number of this result among all results of the session, from 1.
        revision: 0 for a frame's first result; higher where a later correction changed it. If there are several results
            for an object on a frame, the one with the highest revision is valid.
        objects: The objects' results by object id, in ascending order; empty on frames before the first prompt. With a
            revision above 0 it holds only the objects that were corrected.
        skipped_frame_indices: Frames before this one that were not tracked (`delivery="latest"`).
        capture_time_nanoseconds: What was sent with the frame; 0 where nothing was.
        server_latency_seconds: From the arrival of the frame's data at the server to the sending of this result.
        received_time_nanoseconds: When this result arrived, by this machine's `time.time_ns`.
        timings: Where the time of the frame went; None where that was not asked for.
        size: Height and width of the frame as shown, in pixels, as of its masks.
        model: The model that made the masks.
        undecoded_pts_seconds: Times of the frames between the frame before and this one that the file has and that
            could not be decoded, because the file is damaged there. `frame_index` does not count them.
    """

    frame_index: int
    pts_seconds: float
    sequence: int
    revision: int
    objects: Mapping[int, ObjectResult]
    skipped_frame_indices: tuple[int, ...] = ()
    capture_time_nanoseconds: int = 0
    server_latency_seconds: float = 0.0
    received_time_nanoseconds: int = 0
    timings: Timings | None = None
    size: tuple[int, int] = (0, 0)
    model: str = ""
    undecoded_pts_seconds: tuple[float, ...] = ()

    @property
    def latency_seconds(self) -> float | None:
        """Seconds from capture to this result, by this machine's clock; None where no capture time was sent."""
        if not self.capture_time_nanoseconds:
            return None
        return (self.received_time_nanoseconds - self.capture_time_nanoseconds) / 1e9

    @property
    def masks(self) -> dict[int, npt.NDArray[np.bool_]]:
        """Each object's mask, ``bool[H, W]``, by object id: what the drawing functions take."""
        return {object_id: result.mask for object_id, result in self.objects.items()}

    def _repr_png_(self) -> bytes | None:
        """The masks as a picture, in notebooks; None where there are none."""
        return masks_png(self.masks)

    def __repr__(self) -> str:
        objects = ", ".join(f"{i}: area {o.area}" for i, o in self.objects.items())
        which = f"frame_index={self.frame_index}" + (f", revision={self.revision}" if self.revision else "")
        return f"FrameResult({which}, pts_seconds={self.pts_seconds:.3f}, objects={{{objects}}})"


@dataclass(frozen=True)
class PromptResult:
    """What the model makes of a prompt on its frame, before the frame is tracked.

    Attributes:
        sequence: The number of this result among all results of the session, from 1.
        frame_index: The prompt's frame.
        object: The result for the prompted object.
    """

    sequence: int
    frame_index: int
    object: ObjectResult


@dataclass(frozen=True)
class VideoInfo:
    """What the video's header says; it can be wrong.

    Attributes:
        height: Rows of a frame as shown (rotation applied).
        width: Columns of a frame as shown.
        frame_rate: Average frames per second; 0.0 if unknown.
        duration_seconds: Length of the video in seconds; 0.0 if unknown.
        frame_count: Number of frames; 0 if unknown.
        container: FFmpeg's name of the container, or "pictures".
        codec: FFmpeg's name of the codec, or "pictures".
        rotation_degrees: By how much frames are turned clockwise to be shown: 0, 90, 180 or 270.
        undecoded_pts_seconds: Times of all frames that the file has and that could not be decoded. Only of an
            annotation whose video is decoded; in tracking, results have them.
        broken_off: Why the video ended before its end; the frames before are there. Only of an annotation whose video
            is decoded; tracking raises this as an error after the last result. Empty where the video is whole.
    """

    height: int
    width: int
    frame_rate: float
    duration_seconds: float
    frame_count: int
    container: str
    codec: str
    rotation_degrees: int
    undecoded_pts_seconds: tuple[float, ...] = ()
    broken_off: str = ""
