"""masklet: track objects through video with SAM 2, over gRPC.

    import masklet

    with masklet.Client("127.0.0.1:50051") as client:
        prompt = masklet.Prompt(object_id=1, point_coords=[[360, 480]])
        for frame in client.track("clip.mp4", prompt):
            print(frame.frame_index, frame.objects[1].mask.shape, frame.objects[1].predicted_iou)

`Client` and `AsyncClient` track objects through videos and segment pictures; a `Prompt` says what to track. Everything
that can go wrong is an exception under `MaskletError`. A `Recording` holds all results of a video; `masklet.export`
writes it in other people's formats, and `masklet.importing` reads those. A `Batch` does thousands of clips, each once.
`masklet.drawing` draws masks, `masklet.rle`
encodes them as run-lengths, and `masklet.compat` has sam2's own predictors with a server behind them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from masklet.errors import (
    Aborted,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    MaskletError,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from masklet.prompts import Prompt

if TYPE_CHECKING:
    from masklet import batch, drawing, export, importing, rle
    from masklet._aio.annotation import AsyncAnnotation
    from masklet._aio.client import AsyncClient
    from masklet._aio.live import AsyncLive
    from masklet._aio.tracking import AsyncTracking
    from masklet._media.capture.capture import Capture, Captured, CaptureEvent, OnCaptureEvent, capture
    from masklet._media.pictures import PictureLike
    from masklet._media.uploads import SourceUrl, VideoSource
    from masklet._protocol.annotation import Direction
    from masklet._protocol.live import VideoPacket
    from masklet._protocol.options import (
        AnnotateOptions,
        Delivery,
        Edges,
        LiveOptions,
        MemoryPolicy,
        OnError,
        OnPrompt,
        OnResume,
        SegmentOptions,
        SessionOptions,
        TrackOptions,
    )
    from masklet._protocol.pictures import Layout
    from masklet._protocol.results import (
        Box,
        FrameResult,
        ObjectEvent,
        ObjectResult,
        PromptResult,
        Timings,
        VideoInfo,
    )
    from masklet._protocol.resumption import HowResumed, ResumeEvent
    from masklet._protocol.segmentation import ImageId, Segmentation
    from masklet._protocol.server_info import Limits, ModelInfo, ServerInfo, WorkerInfo
    from masklet._sync.annotation import Annotation
    from masklet._sync.client import Client
    from masklet._sync.live import Live
    from masklet._sync.progress import progress
    from masklet._sync.tracking import Tracking
    from masklet._transport.endpoint import Pem
    from masklet.batch import Batch
    from masklet.drawing import Mask, cutout, overlay, save_indexed_masks, save_mask, write_overlay_video
    from masklet.player import Player, show
    from masklet.recording import RecordedObject, Recording
    from masklet.rle import Rle
    from masklet.rle import decode as decode_rle
    from masklet.rle import encode as encode_rle

    __version__: str

__all__ = [
    "Aborted",
    "AnnotateOptions",
    "Annotation",
    "AsyncAnnotation",
    "AsyncClient",
    "AsyncLive",
    "AsyncTracking",
    "Batch",
    "Box",
    "Cancelled",
    "Capture",
    "CaptureEvent",
    "Captured",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "Delivery",
    "Direction",
    "Edges",
    "FailedPrecondition",
    "FieldViolation",
    "FrameResult",
    "HowResumed",
    "ImageId",
    "Internal",
    "InvalidArgument",
    "Layout",
    "Limits",
    "Live",
    "LiveOptions",
    "Mask",
    "MaskletError",
    "MemoryPolicy",
    "ModelInfo",
    "NotFound",
    "ObjectEvent",
    "ObjectResult",
    "OnCaptureEvent",
    "OnError",
    "OnPrompt",
    "OnResume",
    "Pem",
    "PictureLike",
    "Player",
    "Prompt",
    "PromptResult",
    "RecordedObject",
    "Recording",
    "ResourceExhausted",
    "ResumeEvent",
    "Rle",
    "SegmentOptions",
    "Segmentation",
    "ServerInfo",
    "SessionOptions",
    "SourceUrl",
    "Timings",
    "TrackOptions",
    "Tracking",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "VideoInfo",
    "VideoPacket",
    "VideoSource",
    "WorkerInfo",
    "__version__",
    "batch",
    "capture",
    "cutout",
    "decode_rle",
    "drawing",
    "encode_rle",
    "export",
    "importing",
    "overlay",
    "progress",
    "rle",
    "save_indexed_masks",
    "save_mask",
    "show",
    "write_overlay_video",
]

# Imported on first use: the server's sandboxed decoder, which must stay small, needs only errors and prompts, and
# `masklet --help` needs none of these.
_MODULES = ("batch", "drawing", "export", "importing", "rle")
_NAMES_BY_MODULE = {
    "_aio.annotation": ("AsyncAnnotation",),
    "_aio.client": ("AsyncClient",),
    "_aio.live": ("AsyncLive",),
    "_aio.tracking": ("AsyncTracking",),
    "_media.capture.capture": ("Capture", "CaptureEvent", "Captured", "OnCaptureEvent", "capture"),
    "_media.pictures": ("PictureLike",),
    "_media.uploads": ("SourceUrl", "VideoSource"),
    "_protocol.annotation": ("Direction",),
    "_protocol.live": ("VideoPacket",),
    "_protocol.options": (
        "AnnotateOptions",
        "Delivery",
        "Edges",
        "LiveOptions",
        "MemoryPolicy",
        "OnError",
        "OnPrompt",
        "OnResume",
        "SegmentOptions",
        "SessionOptions",
        "TrackOptions",
    ),
    "_protocol.pictures": ("Layout",),
    "_protocol.results": (
        "Box",
        "FrameResult",
        "ObjectEvent",
        "ObjectResult",
        "PromptResult",
        "Timings",
        "VideoInfo",
    ),
    "_protocol.resumption": ("HowResumed", "ResumeEvent"),
    "_protocol.segmentation": ("ImageId", "Segmentation"),
    "_protocol.server_info": ("Limits", "ModelInfo", "ServerInfo", "WorkerInfo"),
    "_sync.annotation": ("Annotation",),
    "_sync.client": ("Client",),
    "_sync.live": ("Live",),
    "_sync.tracking": ("Tracking",),
    "_transport.endpoint": ("Pem",),
    "batch": ("Batch",),
    "drawing": ("Mask", "cutout", "overlay", "save_indexed_masks", "save_mask", "write_overlay_video"),
    "_sync.progress": ("progress",),
    "player": ("Player", "show"),
    "recording": ("RecordedObject", "Recording"),
    "rle": ("Rle",),
}
_PLACES = {name: (module, name) for module, names in _NAMES_BY_MODULE.items() for name in names} | {
    "decode_rle": ("rle", "decode"),
    "encode_rle": ("rle", "encode"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("masklet")
    elif name in _MODULES:
        value = import_module(f"masklet.{name}")
    elif name in _PLACES:
        module, attribute = _PLACES[name]
        value = getattr(import_module(f"masklet.{module}"), attribute)
    else:
        raise AttributeError(f"module 'masklet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
