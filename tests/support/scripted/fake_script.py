"""The part that a `FakeServer` plays, what it saw of each call, and the messages it sends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf import any_pb2
from google.rpc import status_pb2

import masklet.rle
from masklet.v1 import common_pb2, tracking_pb2

HEIGHT, WIDTH = 48, 64


def square(frame_index: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.bool_]:
    """The mask that the fake gives for every object on a frame: a square that moves right."""
    mask = np.zeros((height, width), np.bool_)
    mask[10:30, 5 + frame_index : 25 + frame_index] = True
    return mask


def wire_mask(mask: npt.NDArray[np.bool_]) -> common_pb2.Mask:
    rle = masklet.rle.encode(mask)
    return common_pb2.Mask(
        encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        height=mask.shape[0],
        width=mask.shape[1],
        data=rle["counts"].encode(),
    )


def wire_object(object_id: int, mask: npt.NDArray[np.bool_]) -> common_pb2.ObjectResult:
    rows, columns = np.nonzero(mask)
    box = None
    if rows.size:
        box = common_pb2.Box(x0=columns.min(), y0=rows.min(), x1=columns.max() + 1, y1=rows.max() + 1)
    return common_pb2.ObjectResult(
        object_id=object_id,
        mask=wire_mask(mask),
        box=box,
        area=int(mask.sum()),
        predicted_iou=0.75,
        object_score=5.0 if rows.size else -5.0,
        visible=bool(rows.size),
    )


def status(code: grpc.StatusCode, message: str, *details: Any) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


@dataclass
class Session:
    """What one Track call saw."""

    messages: list[tracking_pb2.TrackRequest] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    half_closed: threading.Event = field(default_factory=threading.Event)
    acked: int = 0
    sequence: int = 0
    frame_sequences: list[int] = field(default_factory=list)
    max_unacked: int = 0
    max_frames_ahead: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def results_sent(self) -> int:
        return len(self.frame_sequences)

    @property
    def unacked(self) -> int:
        return sum(sequence > self.acked for sequence in self.frame_sequences)

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence

    def kinds(self) -> list[str]:
        return [m.WhichOneof("request") or "" for m in self.messages]

    @property
    def config(self) -> tracking_pb2.TrackConfig:
        return self.messages[0].config

    @property
    def prompts(self) -> list[common_pb2.Prompt]:
        return [m.prompt for m in self.messages if m.WhichOneof("request") == "prompt"]

    @property
    def video(self) -> bytes:
        return b"".join(m.video_chunk for m in self.messages)

    @property
    def frames(self) -> list[common_pb2.Picture]:
        return [m.frame for m in self.messages if m.WhichOneof("request") == "frame"]


@dataclass
class Script:
    """How the fake behaves.

    Attributes:
        frame_count: Frames in an uploaded file; for pictures there is one result a picture.
        window: Results sent ahead of acknowledgements.
        size: Height and width of the video.
        fail_at: Frame before which the call ends with `failure`.
        failure: A status for any call; None to succeed.
        inline_at: Frame before which `failure` is sent as an inline error instead.
        stall_at: Frame at which nothing more is sent.
        silent_end: End the stream without `done`.
        seconds_per_frame: Slows the fake down.
        knows_timings: Sends timings where they are asked for: the frame's index in milliseconds for each stage.
        events: What happens to every object, by frame.
        model: The name of the default model.
        tuning: What the server says that it has measured on its GPU.
        describes: Tell what is known of the video before its first frame.
        can_prepare: Takes the message `prepare`, as older servers do not.
    """

    frame_count: int = 5
    window: int = 4
    size: tuple[int, int] = (HEIGHT, WIDTH)
    fail_at: int | None = None
    failure: status_pb2.Status | None = None
    plain_failure: tuple[grpc.StatusCode, str] | None = None
    inline_at: int | None = None
    stall_at: int | None = None
    silent_end: bool = False
    seconds_per_frame: float = 0.0
    knows_timings: bool = True
    events: dict[int, common_pb2.ObjectEvent.ValueType] = field(default_factory=dict)
    model: str = "nano"
    tuning: str = ""
    describes: bool = True
    can_prepare: bool = True
    mask: Callable[..., npt.NDArray[np.bool_]] = square


def wire_logits() -> common_pb2.Logits:
    return common_pb2.Logits(height=2, width=2, data=np.arange(4, dtype="<f4").tobytes())


def wire_timings(index: int) -> tracking_pb2.Timings:
    stages = ("decode", "queue", "encode", "step", "mask", "send")
    return tracking_pb2.Timings(**dict.fromkeys(stages, index / 1000))
