"""From the messages of the contract to events and values of the server. Errors name the field by its path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument
from masklet.prompts import MAX_POINTS, Prompt
from masklet.v1 import common_pb2, image_pb2, tracking_pb2
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.serving.picture_jobs import PicturePrompt
from masklet_server.masks import encoding as masks
from masklet_server.masks.edges import Edges
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.session import events
from masklet_server.session.limits import SessionLimits
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.formats import PictureFormat
from masklet_server.video.limits import VideoLimits
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture

_T = TypeVar("_T")

_LABELS = {common_pb2.POINT_LABEL_FOREGROUND: 1, common_pb2.POINT_LABEL_BACKGROUND: 0}
_ENCODINGS: dict[int, MaskEncoding] = {
    common_pb2.MASK_ENCODING_UNSPECIFIED: MaskEncoding.COCO_RLE,
    common_pb2.MASK_ENCODING_COCO_RLE: MaskEncoding.COCO_RLE,
    common_pb2.MASK_ENCODING_PNG: MaskEncoding.PNG,
    common_pb2.MASK_ENCODING_NONE: MaskEncoding.NONE,
}
_PICTURE_FORMATS: dict[int, PictureFormat] = {
    common_pb2.PICTURE_FORMAT_ENCODED: "encoded",
    common_pb2.PICTURE_FORMAT_RGB24: "rgb24",
    common_pb2.PICTURE_FORMAT_BGR24: "bgr24",
    common_pb2.PICTURE_FORMAT_GRAY8: "gray8",
    common_pb2.PICTURE_FORMAT_NV12: "nv12",
}
_DELIVERIES: dict[int, events.Delivery] = {
    tracking_pb2.DELIVERY_UNSPECIFIED: events.Delivery.LOSSLESS,
    tracking_pb2.DELIVERY_LOSSLESS: events.Delivery.LOSSLESS,
    tracking_pb2.DELIVERY_LATEST: events.Delivery.LATEST,
}
_PROPAGATIONS: dict[int, events.Propagation] = {
    tracking_pb2.PROPAGATION_UNSPECIFIED: events.Propagation.AUTOMATIC,
    tracking_pb2.PROPAGATION_AUTOMATIC: events.Propagation.AUTOMATIC,
    tracking_pb2.PROPAGATION_ON_REQUEST: events.Propagation.ON_REQUEST,
}
_DIRECTIONS: dict[int, events.Direction] = {
    tracking_pb2.DIRECTION_UNSPECIFIED: events.Direction.FORWARD,
    tracking_pb2.DIRECTION_FORWARD: events.Direction.FORWARD,
    tracking_pb2.DIRECTION_BACKWARD: events.Direction.BACKWARD,
    tracking_pb2.DIRECTION_BOTH: events.Direction.BOTH,
}
_MEMORY_POLICIES: dict[int, MemoryPolicy] = {
    tracking_pb2.MEMORY_POLICY_UNSPECIFIED: MemoryPolicy.SAM2,
    tracking_pb2.MEMORY_POLICY_SAM2: MemoryPolicy.SAM2,
    tracking_pb2.MEMORY_POLICY_DISTRACTOR_AWARE: MemoryPolicy.DISTRACTOR_AWARE,
    tracking_pb2.MEMORY_POLICY_MOTION_AWARE: MemoryPolicy.MOTION_AWARE,
}
_EDGES: dict[int, Edges | None] = {
    common_pb2.EDGES_UNSPECIFIED: None,
    common_pb2.EDGES_NONE: Edges.NONE,
    common_pb2.EDGES_GUIDED: Edges.GUIDED,
}
# Requests without fields.
_EVENTS_WITHOUT_FIELDS: dict[str, Callable[[], events.Event]] = {
    "stop_propagation": events.StopPropagation,
    "reset": events.Reset,
    "end_of_video": events.EndOfVideo,
    "cancel": events.Cancel,
}
# Requests with one number.
_EVENTS_OF_ONE_NUMBER: dict[str, Callable[[tracking_pb2.TrackRequest], events.Event]] = {
    "ack": lambda request: events.Ack(request.ack.sequence),
    "prepare": lambda request: events.Prepare(request.prepare.frame_index),
}
# Repeated, when a session begins anew, in a message. Each takes some microseconds of the event loop.
_MAX_OPERATIONS = 10_000
# Takes the place of a prompt's mask while the mask is still encoded.
_ANY_MASK = np.ones((1, 1), np.bool_)


class RequestParser:
    """Turns a client's messages into events, within the server's limits.

    Args:
        session_limits: Limit objects, and the bytes of a prompt's mask.
        video_limits: Limit its pixels.
    """

    def __init__(self, session_limits: SessionLimits, video_limits: VideoLimits) -> None:
        self._max_objects = session_limits.max_objects
        self._max_bytes = session_limits.max_mask_bytes
        self._max_pixels = video_limits.max_frame_pixels

    def event(self, request: tracking_pb2.TrackRequest) -> events.Event:
        """The event that a message stands for.

        Returns:
            `Unreadable` for a prompt, or another request, that is wrong: the stream can go on without it.

        Raises:
            InvalidArgument: The message is empty, or has a wrong configuration, picture or packet: the stream must end.
        """
        event = self._event(request)
        if request.request_id and isinstance(event, events.Numbered):
            return dataclasses.replace(event, request_id=request.request_id)
        return event

    def _event(self, request: tracking_pb2.TrackRequest) -> events.Event:
        kind = request.WhichOneof("request")
        match kind:
            case "config":
                return _config(request.config)
            case "video_chunk":
                return events.VideoChunk(request.video_chunk)
            case "frame":
                return events.NextPicture(picture(request.frame, "frame"))
            case "packet":
                return events.NextPacket(_packet(request.packet))
            case "prompt":
                return self._prompt_event(request.prompt)
            case "remove_object":
                return events.RemoveObject(request.remove_object.object_id)
            case "clear_prompts":
                return events.ClearPrompts(request.clear_prompts.object_id, request.clear_prompts.frame_index)
            case "propagate":
                return _propagate(request.propagate, self._max_objects)
            case "ack" | "prepare":
                return _EVENTS_OF_ONE_NUMBER[kind](request)
            case "resume":
                return self._resume(request.resume)
            case "stop_propagation" | "reset" | "end_of_video" | "cancel":
                return _EVENTS_WITHOUT_FIELDS[kind]()
        raise InvalidArgument.of(
            "request", "is not set, or of a kind that this server does not know; set one of the fields of TrackRequest"
        )

    def _resume(self, message: tracking_pb2.Resume) -> events.Resume:
        try:
            if len(message.operations) > _MAX_OPERATIONS:
                raise InvalidArgument.of(
                    "operations", f"has {len(message.operations)} operations; send at most {_MAX_OPERATIONS}"
                )
            operations = tuple(
                events.TakenOperation(self._operation(one, i), one.applied_after_sequence)
                for i, one in enumerate(message.operations)
            )
            return events.Resume(
                token=message.token,
                last_response=message.last_response,
                can_rewind=message.can_rewind,
                config=_config(message.config) if message.HasField("config") else None,
                replay=events.Replay(operations, message.last_sequence, message.last_ack),
                last_frame=message.last.frame_index if message.HasField("last") else None,
            )
        except InvalidArgument as error:
            raise error.within("resume") from None

    def _operation(self, message: tracking_pb2.AppliedOperation, i: int) -> events.Operation:
        """An operation that a session has taken before.

        Raises:
            InvalidArgument: A field is wrong, or the operation is missing.
        """
        kind = message.WhichOneof("operation")
        try:
            match kind:
                case "prompt":
                    prompt = self.prompt(message.prompt)
                    return events.PromptObject(prompt, message.prompt.on_next_frame, request_id=message.request_id)
                case "clear_prompts":
                    cleared = message.clear_prompts
                    return events.ClearPrompts(cleared.object_id, cleared.frame_index, request_id=message.request_id)
                case "remove_object":
                    return events.RemoveObject(message.remove_object.object_id, request_id=message.request_id)
        except InvalidArgument as error:
            raise error.within(f"operations[{i}].prompt") from None
        raise InvalidArgument.of(f"operations[{i}]", "has no operation; set prompt, clear_prompts or remove_object")

    def _prompt_event(self, message: common_pb2.Prompt) -> events.Event:
        try:
            return events.PromptObject(self.prompt(message), message.on_next_frame)
        except InvalidArgument as error:
            return events.Unreadable(error.within("prompt"))

    def prompt(self, message: common_pb2.Prompt) -> GivenPrompt:
        """A prompt for a video; its mask stays encoded.

        Raises:
            InvalidArgument: A field is wrong.
        """
        coords, labels = _points(message.points)
        mask = self.mask(message.mask) if message.HasField("mask") else None
        prompt = Prompt(
            object_id=message.object_id,
            frame_index=message.frame_index,
            point_coords=coords,
            point_labels=labels,
            box=_box(message.box) if message.HasField("box") else None,
            mask=None if mask is None else _ANY_MASK,
            keep_old_points=message.keep_old_points,
            pts_seconds=message.pts_seconds if message.HasField("pts_seconds") else None,
        )
        return GivenPrompt(prompt, mask)

    def mask(self, message: common_pb2.Mask) -> EncodedMask:
        """A prompt's mask, within the limits, still encoded.

        Raises:
            InvalidArgument: The mask is too large, or its encoding is not one for prompts.
        """
        try:
            if message.encoding == common_pb2.MASK_ENCODING_UNSPECIFIED:
                raise InvalidArgument.of("encoding", "is not set; choose COCO_RLE or PNG")
            mask = EncodedMask(mask_encoding(message.encoding, "encoding"), message.height, message.width, message.data)
            masks.check(mask, max_bytes=self._max_bytes, max_pixels=self._max_pixels)
        except InvalidArgument as error:
            raise error.within("mask") from None
        return mask


def mask_encoding(number: int, field: str) -> MaskEncoding:
    """The mask encoding of that number; run-lengths if it is not specified.

    Raises:
        InvalidArgument: There is no such encoding.
    """
    return _one_of(_ENCODINGS, number, field, "MaskEncoding")


def picture(message: common_pb2.Picture, field: str) -> Picture:
    """One picture.

    Args:
        message: The picture.
        field: The field of the request that has it, for errors.

    Raises:
        InvalidArgument: One of its fields is wrong.
    """
    try:
        if message.format not in _PICTURE_FORMATS:
            raise InvalidArgument.of("format", f"is {message.format}, must be ENCODED, RGB24, BGR24, GRAY8 or NV12")
        return Picture(
            format=_PICTURE_FORMATS[message.format],
            data=message.data,
            height=message.height,
            width=message.width,
            pts_seconds=message.pts_seconds if message.HasField("pts_seconds") else None,
            capture_time_nanoseconds=message.capture_time_nanoseconds,
        )
    except InvalidArgument as error:
        raise error.within(field) from None


def segment_prompt(message: image_pb2.SegmentPrompt, mask_logits: npt.NDArray[np.float32] | None) -> PicturePrompt:
    """A prompt for a single picture.

    Args:
        message: The prompt.
        mask_logits: Logits that stand for its mask, at the size of `mask_input`; None if it has no mask.

    Raises:
        InvalidArgument: A field is wrong.
    """
    if mask_logits is not None and message.HasField("mask_input"):
        raise InvalidArgument.of("mask_input", "cannot go with mask; give one of the two")
    coords, labels = _points(message.points)
    return PicturePrompt(
        point_coords=coords,
        point_labels=labels,
        box=_box(message.box) if message.HasField("box") else None,
        mask_input=_logits(message.mask_input) if message.HasField("mask_input") else mask_logits,
    )


def _config(message: tracking_pb2.TrackConfig) -> events.Configure:
    return events.Configure(
        model=message.model,
        mask_encoding=mask_encoding(message.mask_encoding, "config.mask_encoding"),
        deterministic=message.deterministic,
        window=message.window,
        frame_count=message.frame_count,
        delivery=_one_of(_DELIVERIES, message.delivery, "config.delivery", "Delivery"),
        max_latency_seconds=message.max_latency_seconds,
        live=message.live,
        source_url=message.source_url,
        propagation=_one_of(_PROPAGATIONS, message.propagation, "config.propagation", "Propagation"),
        return_logits=message.return_logits,
        timings=message.timings,
        memory_policy=_one_of(_MEMORY_POLICIES, message.memory_policy, "config.memory_policy", "MemoryPolicy"),
        correction_window=message.correction_window,
        edges=edges(message.edges, "config.edges"),
        resumable=message.resumable,
    )


def edges(value: int, field: str) -> Edges | None:
    """How the edges of masks are drawn; None if it is not specified: the model's own way.

    Raises:
        InvalidArgument: There is no such way.
    """
    return _one_of(_EDGES, value, field, "Edges")


def _propagate(message: tracking_pb2.Propagate, max_objects: int) -> events.Propagate | events.Unreadable:
    try:
        if len(message.object_ids) > max_objects:
            raise InvalidArgument.of(
                "propagate.object_ids",
                f"has {len(message.object_ids)} ids; a session has at most {max_objects} objects (max_objects)",
            )
        direction = _one_of(_DIRECTIONS, message.direction, "propagate.direction", "Direction")
    except InvalidArgument as error:
        return events.Unreadable(error)
    return events.Propagate(
        start_frame_index=message.start_frame_index if message.HasField("start_frame_index") else None,
        max_frames=message.max_frames if message.HasField("max_frames") else None,
        direction=direction,
        object_ids=frozenset(message.object_ids),
    )


def _packet(message: tracking_pb2.Packet) -> Packet:
    try:
        return Packet(
            data=message.data,
            codec=message.codec,
            extradata=message.extradata,
            pts_seconds=message.pts_seconds if message.HasField("pts_seconds") else None,
            capture_time_nanoseconds=message.capture_time_nanoseconds,
            is_fragment=message.is_fragment,
        )
    except InvalidArgument as error:
        raise error.within("packet") from None


def _one_of(values: Mapping[int, _T], number: int, field: str, enum: str) -> _T:
    """The value that a protobuf enum's number stands for."""
    if number not in values:
        raise InvalidArgument.of(field, f"is {number}, which is no {enum}; see the contract for its values")
    return values[number]


def _points(
    points: Sequence[common_pb2.Point],
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int32] | None]:
    if not points:
        return None, None
    if len(points) > MAX_POINTS:
        raise InvalidArgument.of("points", f"has {len(points)} points; send at most {MAX_POINTS}")
    for i, point in enumerate(points):
        if point.label not in _LABELS:
            raise InvalidArgument.of(
                f"points[{i}].label",
                f"is {point.label}, must be POINT_LABEL_FOREGROUND (1) or POINT_LABEL_BACKGROUND (2)",
            )
    coords = np.array([(point.x, point.y) for point in points], np.float32)
    return coords, np.array([_LABELS[point.label] for point in points], np.int32)


def _box(message: common_pb2.Box) -> npt.NDArray[np.float32]:
    return np.array([message.x0, message.y0, message.x1, message.y1], np.float32)


def _logits(message: common_pb2.Logits) -> npt.NDArray[np.float32]:
    expected = 4 * message.height * message.width
    if len(message.data) != expected:
        raise InvalidArgument.of(
            "mask_input.data",
            f"has {len(message.data)} bytes; {message.height}x{message.width} values of float32 have {expected}",
        )
    return np.frombuffer(message.data, "<f4").reshape(message.height, message.width).astype(np.float32)
