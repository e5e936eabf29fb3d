"""From the session's replies to the messages of the contract."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet.v1 import common_pb2, tracking_pb2
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.rpc.status import to_status
from masklet_server.session import replies
from masklet_server.session.replies import ObjectEvent

_ENCODINGS = {
    MaskEncoding.COCO_RLE: common_pb2.MASK_ENCODING_COCO_RLE,
    MaskEncoding.PNG: common_pb2.MASK_ENCODING_PNG,
    MaskEncoding.NONE: common_pb2.MASK_ENCODING_NONE,
}
_RESUMPTIONS = {
    replies.Resumption.ATTACHED: tracking_pb2.RESUMPTION_ATTACHED,
    replies.Resumption.RESTORED: tracking_pb2.RESUMPTION_RESTORED,
    replies.Resumption.REWOUND: tracking_pb2.RESUMPTION_REWOUND,
}
_OBJECT_EVENTS = {
    None: common_pb2.OBJECT_EVENT_UNSPECIFIED,
    ObjectEvent.LOST: common_pb2.OBJECT_EVENT_LOST,
    ObjectEvent.REACQUIRED: common_pb2.OBJECT_EVENT_REACQUIRED,
    ObjectEvent.OUT_OF_VIEW: common_pb2.OBJECT_EVENT_OUT_OF_VIEW,
}


def response(answer: replies.Response) -> tracking_pb2.TrackResponse:
    """The message of one reply."""
    match answer:
        case replies.Opened():
            return tracking_pb2.TrackResponse(session=_session_info(answer))
        case replies.Described():
            return tracking_pb2.TrackResponse(video_info=_video_info(answer))
        case replies.PromptResult():
            return tracking_pb2.TrackResponse(
                prompt_result=tracking_pb2.PromptResult(
                    sequence=answer.sequence,
                    frame_index=answer.frame_index,
                    object=_object_result(answer.object),
                    applied_after_frame=None if answer.taken is None else answer.taken.after_frame,
                    applied_after_sequence=0 if answer.taken is None else answer.taken.after_sequence,
                )
            )
        case replies.FrameResult():
            return tracking_pb2.TrackResponse(frame_result=_frame_result(answer))
        case replies.PropagationDone() | replies.PacketsTaken():
            return _progress(answer)
        case replies.Problem():
            return tracking_pb2.TrackResponse(error=to_status(answer.error))
        case replies.Applied():
            return tracking_pb2.TrackResponse(applied=_applied(answer))
        case replies.Answer() | replies.Numbered() | replies.Stored():
            return _wrapped(answer)
        case replies.Done():
            done = tracking_pb2.Done(frame_count=answer.frame_count, undecoded_pts_nanoseconds=answer.undecoded)
            return tracking_pb2.TrackResponse(done=done)
        case replies.Resumed() | replies.InputKept() | replies.Moving():
            return _about_call(answer)


def _progress(answer: replies.PropagationDone | replies.PacketsTaken) -> tracking_pb2.TrackResponse:
    if isinstance(answer, replies.PropagationDone):
        return tracking_pb2.TrackResponse(propagation_done=_propagation_done(answer))
    return tracking_pb2.TrackResponse(packets_taken=tracking_pb2.PacketsTaken(count=answer.count))


def encoded(answer: replies.Response) -> bytes:
    """The bytes of a reply's message, which `replies.Stored` stands for later."""
    return response(answer).SerializeToString()


def _wrapped(answer: replies.Answer | replies.Numbered | replies.Stored) -> tracking_pb2.TrackResponse:
    if isinstance(answer, replies.Stored):
        return tracking_pb2.TrackResponse.FromString(answer.message)
    message = response(answer.response)
    if isinstance(answer, replies.Answer):
        message.request_id = answer.request_id
    else:
        message.number = answer.number
    return message


def _propagation_done(answer: replies.PropagationDone) -> tracking_pb2.PropagationDone:
    return tracking_pb2.PropagationDone(
        start_frame_index=answer.start_frame_index, frame_count=answer.frame_count, stopped=answer.stopped
    )


def _about_call(answer: replies.Resumed | replies.InputKept | replies.Moving) -> tracking_pb2.TrackResponse:
    match answer:
        case replies.Resumed():
            return tracking_pb2.TrackResponse(resumed=_resumed(answer))
        case replies.InputKept():
            kept = tracking_pb2.InputKept(
                request_id=answer.position.request_id,
                snapshot_frame=answer.snapshot_frame,
                **_video_position(answer.position),
            )
            return tracking_pb2.TrackResponse(input_kept=kept)
        case replies.Moving():
            moving = tracking_pb2.Moving(token=answer.token, deadline_seconds=answer.deadline_seconds)
            return tracking_pb2.TrackResponse(moving=moving)


def mask(encoded: EncodedMask) -> common_pb2.Mask:
    """The message of an encoded mask."""
    return common_pb2.Mask(
        encoding=_ENCODINGS[encoded.encoding], height=encoded.height, width=encoded.width, data=encoded.data
    )


def box(corners: tuple[int, int, int, int] | None) -> common_pb2.Box | None:
    """The message of a box x0, y0, x1, y1; None if the mask is empty."""
    if corners is None:
        return None
    x0, y0, x1, y1 = corners
    return common_pb2.Box(x0=x0, y0=y0, x1=x1, y1=y1)


def logits(values: npt.NDArray[np.float32]) -> common_pb2.Logits:
    """The message of ``float32[h, w]`` logits: little endian, row by row."""
    height, width = values.shape
    return common_pb2.Logits(height=height, width=width, data=values.astype("<f4").tobytes())


def _applied(answer: replies.Applied) -> tracking_pb2.Applied:
    if answer.taken is None:
        return tracking_pb2.Applied()
    return tracking_pb2.Applied(
        applied_after_frame=answer.taken.after_frame, applied_after_sequence=answer.taken.after_sequence
    )


def _session_info(opened: replies.Opened) -> tracking_pb2.SessionInfo:
    info = tracking_pb2.SessionInfo(
        session_id=opened.session_id,
        model=opened.model,
        window=opened.window,
        max_objects=opened.max_objects,
        idle_timeout_seconds=max(1, round(opened.idle_timeout_seconds)),
        can_prepare=opened.can_prepare,
    )
    if opened.resume is not None:
        info.resume_token, info.epoch = opened.resume.token, opened.resume.epoch
        info.park_seconds, info.keep_bytes = max(1, int(opened.resume.park_seconds)), opened.resume.keep_bytes
    return info


def _resumed(answer: replies.Resumed) -> tracking_pb2.Resumed:
    return tracking_pb2.Resumed(
        how=_RESUMPTIONS[answer.how],
        end_of_video_taken=answer.position.end_of_video,
        last_request_id=answer.position.request_id,
        rewound_to_frame=answer.rewound_to_frame,
        **_video_position(answer.position),
    )


def _video_position(position: replies.InputPosition) -> dict[str, Any]:
    """The field that says how much of the video was taken; none if there was no video."""
    return {position.unit: position.count} if position.unit else {}


def _video_info(described: replies.Described) -> tracking_pb2.VideoInfo:
    info = described.info
    return tracking_pb2.VideoInfo(
        height=info.height,
        width=info.width,
        frame_rate=info.frame_rate,
        duration_seconds=info.duration_seconds,
        frame_count=info.frame_count,
        container=info.container,
        codec=info.codec,
        rotation_degrees=info.rotation_degrees,
        undecoded_pts_nanoseconds=described.undecoded,
        broken_off=None if described.broken_off is None else to_status(described.broken_off),
    )


def _object_result(result: replies.ObjectResult) -> common_pb2.ObjectResult:
    return common_pb2.ObjectResult(
        object_id=result.object_id,
        mask=mask(result.mask),
        box=box(result.box),
        area=result.area,
        predicted_iou=result.predicted_iou,
        object_score=result.object_score,
        visible=result.visible,
        logits=None if result.logits is None else logits(result.logits),
        event=_OBJECT_EVENTS[result.event],
    )


def _frame_result(result: replies.FrameResult) -> tracking_pb2.FrameResult:
    return tracking_pb2.FrameResult(
        sequence=result.sequence,
        frame_index=result.frame_index,
        pts=result.pts,
        time_base_numerator=result.time_base.numerator,
        time_base_denominator=result.time_base.denominator,
        pts_nanoseconds=result.pts_nanoseconds,
        revision=result.revision,
        objects=[_object_result(one) for one in result.objects],
        skipped_frame_indices=result.skipped,
        capture_time_nanoseconds=result.capture_time_nanoseconds,
        latency_seconds=result.latency_seconds,
        timings=None if result.timings is None else tracking_pb2.Timings(**dataclasses.asdict(result.timings)),
        undecoded_pts_nanoseconds=result.undecoded,
    )
