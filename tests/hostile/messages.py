"""Sequences of messages that a client with bad intentions, or with bugs, might send."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from masklet.v1 import common_pb2, image_pb2, tracking_pb2

Request = tracking_pb2.TrackRequest

# How many sequences there are; scripts/test has fewer than one runs by hand.
SEQUENCES = int(os.environ.get("MASKLET_HOSTILE_SEQUENCES", "2000"))


@dataclass(frozen=True)
class Attack:
    """What is sent on one stream.

    Attributes:
        messages: Encoded, or meant to look so.
        cancels: The client goes away behind the last message; otherwise it half-closes.
    """

    messages: tuple[bytes, ...]
    cancels: bool


def jpeg(width: int = 64, height: int = 48) -> bytes:
    """A picture of this size in some hundred bytes."""
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, "JPEG")
    return file.getvalue()


_UINT32 = st.sampled_from([0, 1, 2, 3, 5, 17, 2**31, 2**32 - 1])
_INT64 = st.sampled_from([0, 1, -1, 10**18, 2**63 - 1, -(2**63)])
_DOUBLES = st.sampled_from([0.0, 0.04, 1.0, -1.0, 1e300, math.inf, -math.inf, math.nan])
_FLOATS = st.sampled_from([0.0, 4.0, 7.5, -3.0, 1e30, math.inf, math.nan])
_ENUM = st.integers(0, 5)
_TEXT = st.sampled_from(["", "nano", "fake", "x" * 3000, "../../etc/passwd", "h264", "\ud83d", "a\nb"]).map(
    lambda text: text.encode(errors="replace").decode()
)
_BYTES = st.binary(max_size=40) | st.just(jpeg()) | st.just(bytes(64 * 48 * 3))
_POINTS = st.lists(st.builds(common_pb2.Point, x=_FLOATS, y=_FLOATS, label=st.integers(0, 3)), max_size=3)
_BOX = st.builds(common_pb2.Box, x0=_FLOATS, y0=_FLOATS, x1=_FLOATS, y1=_FLOATS)
_MASK = st.builds(common_pb2.Mask, encoding=_ENUM, height=_UINT32, width=_UINT32, data=_BYTES)
_LOGITS = st.builds(common_pb2.Logits, height=_UINT32, width=_UINT32, data=_BYTES)


def _maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


_CONFIG = st.builds(
    tracking_pb2.TrackConfig,
    model=st.just("") | _TEXT,
    mask_encoding=_ENUM,
    deterministic=st.booleans(),
    window=_UINT32,
    frame_count=st.just(0) | _UINT32,
    delivery=st.integers(0, 3),
    max_latency_seconds=st.just(0.0) | _DOUBLES,
    live=st.booleans(),
    propagation=st.integers(0, 3),
    correction_window=_UINT32,
    memory_policy=st.integers(0, 4),
    source_url=st.sampled_from(["", "", "", "file:///etc/passwd", "http://127.0.0.1/", "\n"]),
    timings=st.booleans(),
    return_logits=st.booleans(),
    edges=st.integers(0, 3),
)
_GOOD_CONFIG = st.builds(
    tracking_pb2.TrackConfig,
    window=st.integers(0, 3),
    delivery=st.integers(0, 2),
    live=st.booleans(),
    propagation=st.integers(0, 2),
    correction_window=st.integers(0, 3),
)
_PICTURE = st.builds(
    common_pb2.Picture,
    format=_ENUM,
    data=_BYTES,
    height=st.just(48) | _UINT32,
    width=st.just(64) | _UINT32,
    pts_seconds=_maybe(_DOUBLES),
    capture_time_nanoseconds=_INT64,
)
_PACKET = st.builds(
    tracking_pb2.Packet,
    codec=st.sampled_from(["h264", "vp9", "av1", "", "gif"]),
    extradata=st.binary(max_size=20),
    data=_BYTES,
    pts_seconds=_maybe(_DOUBLES),
    is_fragment=st.booleans(),
)
_PROMPT = st.builds(
    common_pb2.Prompt,
    object_id=_UINT32,
    frame_index=_UINT32,
    points=_POINTS,
    box=_maybe(_BOX),
    mask=_maybe(_MASK),
    keep_old_points=st.booleans(),
    pts_seconds=_maybe(_DOUBLES),
    on_next_frame=st.booleans(),
)
_CLICK = st.builds(
    common_pb2.Prompt,
    object_id=st.integers(1, 3),
    frame_index=st.integers(0, 4),
    points=st.just([common_pb2.Point(x=4, y=4, label=common_pb2.POINT_LABEL_FOREGROUND)]),
)
_PROPAGATE = st.builds(
    tracking_pb2.Propagate,
    start_frame_index=_maybe(_UINT32),
    max_frames=_maybe(_UINT32),
    direction=st.integers(0, 4),
    object_ids=st.lists(_UINT32, max_size=3),
)
_VIDEO_CHUNK = st.binary(max_size=12).map(lambda data: Request(video_chunk=data))


def _in(name: str, strategy: st.SearchStrategy[object]) -> st.SearchStrategy[Request]:
    return st.builds(lambda message, number: Request(**{name: message, "request_id": number}), strategy, _UINT32)


_ANY = st.one_of(
    _VIDEO_CHUNK,
    _in("frame", _PICTURE),
    _in("packet", _PACKET),
    _in("prompt", _PROMPT),
    _in("prompt", _CLICK),
    _in("config", _CONFIG),
    _in("remove_object", st.builds(tracking_pb2.RemoveObject, object_id=_UINT32)),
    _in("ack", st.builds(tracking_pb2.Ack, sequence=st.integers(0, 9) | st.just(2**64 - 1))),
    _in("end_of_video", st.just(tracking_pb2.EndOfVideo())),
    _in("clear_prompts", st.builds(tracking_pb2.ClearPrompts, object_id=_UINT32, frame_index=_UINT32)),
    _in("propagate", _PROPAGATE),
    _in("stop_propagation", st.just(tracking_pb2.StopPropagation())),
    _in("reset", st.just(tracking_pb2.Reset())),
    _in("cancel", st.just(tracking_pb2.Cancel())),
    st.just(Request()),
)
_ENCODED = _ANY.map(lambda message: message.SerializeToString())
# Once in a while something that is no message.
_MESSAGE = st.one_of(*[_ENCODED] * 9, st.binary(max_size=30))
_FIRST = st.one_of(
    *[_in("config", _GOOD_CONFIG).map(lambda message: message.SerializeToString())] * 6,
    _in("config", _CONFIG).map(lambda message: message.SerializeToString()),
    _MESSAGE,
)

_CANCELS = st.sampled_from([False, False, False, True])
_END = Request(end_of_video=tracking_pb2.EndOfVideo()).SerializeToString()


@st.composite
def _nearly_right(draw: st.DrawFn) -> Attack:
    """A stream as it should be, with a few messages more or less, or in another order."""
    config = Request(config=draw(_GOOD_CONFIG))
    video = [Request(video_chunk=bytes(draw(st.integers(1, 20)))) for _ in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        picture = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=jpeg())
        video = [Request(frame=picture) for _ in range(draw(st.integers(1, 6)))]
    clicks = draw(st.lists(_in("prompt", _CLICK), max_size=3))
    messages = [message.SerializeToString() for message in (config, *clicks, *video)]
    messages.append(_END)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(messages)))
        if draw(st.booleans()):
            messages.insert(place, draw(_MESSAGE))
        elif place < len(messages):
            del messages[place]
    return Attack(tuple(messages), draw(_CANCELS))


STREAMS = _nearly_right() | st.builds(
    lambda first, rest, cancels: Attack((first, *rest), cancels), _FIRST, st.lists(_MESSAGE, max_size=10), _CANCELS
)

_RIGHT_PICTURE = image_pb2.SegmentImageRequest(
    picture=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=jpeg()),
    prompts=[image_pb2.SegmentPrompt(points=[common_pb2.Point(x=4, y=4, label=common_pb2.POINT_LABEL_FOREGROUND)])],
)

PICTURE_REQUESTS = (
    st.builds(
        image_pb2.SegmentImageRequest,
        model=st.sampled_from(["", "", "nano", "?"]),
        picture=_maybe(_PICTURE | st.just(common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=jpeg()))),
        prompts=st.lists(
            st.builds(
                image_pb2.SegmentPrompt,
                points=_POINTS,
                box=_maybe(_BOX),
                mask=_maybe(_MASK),
                mask_input=_maybe(_LOGITS),
            ),
            max_size=3,
        ),
        multimask_output=st.booleans(),
        return_logits=st.booleans(),
        mask_encoding=_ENUM,
        edges=st.integers(0, 3),
    ).map(lambda request: request.SerializeToString())
    | st.binary(max_size=60)
    | st.just(_RIGHT_PICTURE.SerializeToString())
)
