"""What the engine found, as it is told to the client."""

from __future__ import annotations

from collections.abc import Sequence

from masklet_server.engine.serving.jobs import FrameOutput, ObjectOutput
from masklet_server.masks.encoding import MaskEncoding
from masklet_server.masks.pool import MaskPool
from masklet_server.session.replies import ObjectResult, Timings
from masklet_server.video.frame import Frame


async def object_result(pool: MaskPool, encoding: MaskEncoding, object_id: int, output: ObjectOutput) -> ObjectResult:
    """One object on one frame, its mask encoded and measured in the pool."""
    prepared = await pool.prepare(output.runs, encoding)
    return ObjectResult(
        object_id=object_id,
        mask=prepared.encoded,
        box=prepared.box,
        area=prepared.area,
        predicted_iou=output.predicted_iou,
        object_score=output.object_score,
        logits=output.logits,
    )


def timings(frame: Frame, answers: Sequence[FrameOutput], *, mask: float, send: float) -> Timings:
    """Where a frame's time went.

    Args:
        frame: Knows how long it took to decode.
        answers: All that the engine was asked for the result's sake.
        mask: Seconds for encoding and measuring masks.
        send: Seconds for sending the result before.
    """
    return Timings(
        decode=frame.decode_seconds,
        queue=sum(answer.queue_seconds for answer in answers),
        encode=sum(answer.encode_seconds for answer in answers),
        step=sum(answer.step_seconds for answer in answers),
        mask=mask,
        send=send,
    )
