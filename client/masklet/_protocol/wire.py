"""masklet's own types as messages of `masklet.v1`, and back."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from masklet._protocol.results import Box, FrameResult, ObjectEvent, ObjectResult, PromptResult, Timings, VideoInfo
from masklet.errors import Internal
from masklet.prompts import FOREGROUND, Prompt
from masklet.rle import Rle
from masklet.rle import encode as encode_rle
from masklet.v1 import common_pb2, tracking_pb2

_EVENTS: dict[int, ObjectEvent] = {
    common_pb2.OBJECT_EVENT_LOST: "lost",
    common_pb2.OBJECT_EVENT_REACQUIRED: "reacquired",
    common_pb2.OBJECT_EVENT_OUT_OF_VIEW: "out_of_view",
}


def prompt_to_wire(prompt: Prompt) -> common_pb2.Prompt:
    """A tracking prompt as a message."""
    return common_pb2.Prompt(
        object_id=prompt.object_id,
        frame_index=prompt.frame_index,
        points=points_to_wire(prompt.point_coords, prompt.point_labels),
        box=box_to_wire(prompt.box),
        mask=mask_to_wire(prompt.mask),
        keep_old_points=prompt.keep_old_points,
        pts_seconds=prompt.pts_seconds,
    )


def points_to_wire(
    coords: npt.NDArray[np.float32] | None, labels: npt.NDArray[np.int32] | None
) -> list[common_pb2.Point]:
    """Clicks of shape [N, 2] and [N] as messages."""
    if coords is None or labels is None:
        return []
    return [
        common_pb2.Point(
            x=x,
            y=y,
            label=common_pb2.POINT_LABEL_FOREGROUND if label == FOREGROUND else common_pb2.POINT_LABEL_BACKGROUND,
        )
        for (x, y), label in zip(coords.tolist(), labels.tolist(), strict=True)
    ]


def box_to_wire(box: npt.NDArray[np.float32] | None) -> common_pb2.Box | None:
    """A box of shape [4] as a message."""
    if box is None:
        return None
    x0, y0, x1, y1 = box.tolist()
    return common_pb2.Box(x0=x0, y0=y0, x1=x1, y1=y1)


def mask_to_wire(mask: npt.NDArray[np.bool_] | None) -> common_pb2.Mask | None:
    """A mask of shape [H, W] as run-lengths."""
    if mask is None:
        return None
    rle = encode_rle(mask)
    height, width = rle["size"]
    return common_pb2.Mask(
        encoding=common_pb2.MASK_ENCODING_COCO_RLE, height=height, width=width, data=rle["counts"].encode("ascii")
    )


def rle_from_wire(mask: common_pb2.Mask) -> Rle:
    """The run-lengths of a mask that the server sent.

    Raises:
        Internal: It is in another encoding than this client asks for.
    """
    if mask.encoding != common_pb2.MASK_ENCODING_COCO_RLE:
        raise Internal(
            f"the server sent a mask as {common_pb2.MaskEncoding.Name(mask.encoding)} where run-lengths were asked for"
        )
    return Rle(size=[mask.height, mask.width], counts=mask.data.decode("ascii"))


def logits_from_wire(logits: common_pb2.Logits) -> npt.NDArray[np.float32]:
    """Low-resolution logits of a mask as ``float32[h, w]``."""
    return np.frombuffer(logits.data, "<f4").reshape(logits.height, logits.width).astype(np.float32)


def box_from_wire(box: common_pb2.Box) -> Box:
    """x0, y0, x1, y1 of a box."""
    return box.x0, box.y0, box.x1, box.y1


def object_from_wire(message: common_pb2.ObjectResult) -> ObjectResult:
    """The result for one object on one frame."""
    return ObjectResult(
        object_id=message.object_id,
        rle=rle_from_wire(message.mask),
        box=box_from_wire(message.box) if message.HasField("box") else None,
        area=message.area,
        predicted_iou=message.predicted_iou,
        object_score=message.object_score,
        visible=message.visible,
        logits=logits_from_wire(message.logits) if message.HasField("logits") else None,
        event=_EVENTS.get(message.event),
    )


def frame_from_wire(
    message: tracking_pb2.FrameResult, *, size: tuple[int, int] = (0, 0), model: str = ""
) -> FrameResult:
    """The results for all objects on one frame.

    Args:
        message: The message.
        size: Height and width of the video; the masks' own size counts where there are any.
        model: The model in use.
    """
    masks = [one.mask for one in message.objects]
    return FrameResult(
        frame_index=message.frame_index,
        pts_seconds=_seconds(message),
        sequence=message.sequence,
        revision=message.revision,
        objects={o.object_id: object_from_wire(o) for o in message.objects},
        skipped_frame_indices=tuple(message.skipped_frame_indices),
        capture_time_nanoseconds=message.capture_time_nanoseconds,
        server_latency_seconds=message.latency_seconds,
        received_time_nanoseconds=time.time_ns(),
        timings=_timings(message.timings) if message.HasField("timings") else None,
        size=(masks[0].height, masks[0].width) if masks else size,
        model=model,
        undecoded_pts_seconds=seconds_of(message.undecoded_pts_nanoseconds),
    )


def seconds_of(nanoseconds: Iterable[int]) -> tuple[float, ...]:
    """Times that came in nanoseconds, in seconds."""
    return tuple(one / 1e9 for one in nanoseconds)


def _timings(message: tracking_pb2.Timings) -> Timings:
    return Timings(
        decode=message.decode,
        queue=message.queue,
        encode=message.encode,
        step=message.step,
        mask=message.mask,
        send=message.send,
    )


def _seconds(message: tracking_pb2.FrameResult) -> float:
    if message.time_base_denominator == 0:
        return message.pts_nanoseconds / 1e9
    return message.pts * message.time_base_numerator / message.time_base_denominator


def prompt_result_from_wire(message: tracking_pb2.PromptResult) -> PromptResult:
    """The answer to one prompt."""
    return PromptResult(message.sequence, message.frame_index, object_from_wire(message.object))


def video_from_wire(message: tracking_pb2.VideoInfo) -> VideoInfo:
    """What the server knows of the video."""
    return VideoInfo(
        height=message.height,
        width=message.width,
        frame_rate=message.frame_rate,
        duration_seconds=message.duration_seconds,
        frame_count=message.frame_count,
        container=message.container,
        codec=message.codec,
        rotation_degrees=message.rotation_degrees,
        undecoded_pts_seconds=seconds_of(message.undecoded_pts_nanoseconds),
        broken_off=message.broken_off.message,
    )
