"""masklet: follow objects through video with SAM 2, over gRPC.

    import masklet

    with masklet.Client("127.0.0.1:50051") as client:
        prompt = masklet.Prompt(object_id=1, point_coords=[[360, 480]])
        for frame in client.track("clip.mp4", prompt):
            print(frame.frame_index, frame.objects[1].mask.shape, frame.objects[1].predicted_iou)

`Client` and `AsyncClient` track objects through videos and segment pictures; `Prompt` says what to follow. Everything
that can go wrong is an exception under `MaskletError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from masklet.errors import (
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
    from masklet import rle
    from masklet._aio import AsyncClient
    from masklet._aio_annotation import AsyncAnnotation
    from masklet._aio_live import AsyncLive
    from masklet._aio_tracking import AsyncTracking
    from masklet._annotation import Annotation
    from masklet._client import Client
    from masklet._drawing import cutout, overlay, save_indexed_masks, save_mask
    from masklet._live import Live
    from masklet._live_protocol import VideoPacket
    from masklet._overlay_video import write_overlay_video
    from masklet._results import FrameResult, ObjectResult, PromptResult, Timings, VideoInfo
    from masklet._segmentation import ImageId, Segmentation
    from masklet._server_info import Limits, ModelInfo, ServerInfo
    from masklet._tracking import Tracking
    from masklet._video import SourceUrl
    from masklet.rle import Rle
    from masklet.rle import decode as decode_rle
    from masklet.rle import encode as encode_rle

    __version__: str

__all__ = [
    "Annotation",
    "AsyncAnnotation",
    "AsyncClient",
    "AsyncLive",
    "AsyncTracking",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldViolation",
    "FrameResult",
    "ImageId",
    "Internal",
    "InvalidArgument",
    "Limits",
    "Live",
    "MaskletError",
    "ModelInfo",
    "NotFound",
    "ObjectResult",
    "Prompt",
    "PromptResult",
    "ResourceExhausted",
    "Rle",
    "Segmentation",
    "ServerInfo",
    "SourceUrl",
    "Timings",
    "Tracking",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "VideoInfo",
    "VideoPacket",
    "__version__",
    "cutout",
    "decode_rle",
    "encode_rle",
    "overlay",
    "rle",
    "save_indexed_masks",
    "save_mask",
    "write_overlay_video",
]

# Imported on first use: the server's sandboxed decoder, which must stay small, needs the errors and prompts alone, and
# `masklet --help` none of these.
_HOMES = {
    "_aio": ("AsyncClient",),
    "_aio_annotation": ("AsyncAnnotation",),
    "_aio_live": ("AsyncLive",),
    "_aio_tracking": ("AsyncTracking",),
    "_annotation": ("Annotation",),
    "_client": ("Client",),
    "_drawing": ("cutout", "overlay", "save_indexed_masks", "save_mask"),
    "_live": ("Live",),
    "_live_protocol": ("VideoPacket",),
    "_overlay_video": ("write_overlay_video",),
    "_results": ("FrameResult", "ObjectResult", "PromptResult", "Timings", "VideoInfo"),
    "_segmentation": ("ImageId", "Segmentation"),
    "_server_info": ("Limits", "ModelInfo", "ServerInfo"),
    "_tracking": ("Tracking",),
    "_video": ("SourceUrl",),
}
_HOME_OF = {name: (module, name) for module, names in _HOMES.items() for name in names} | {
    "Rle": ("rle", "Rle"),
    "decode_rle": ("rle", "decode"),
    "encode_rle": ("rle", "encode"),
}
_MODULES = ("rle",)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("masklet")
    elif name in _MODULES:
        value = import_module(f"masklet.{name}")
    elif name in _HOME_OF:
        module, attribute = _HOME_OF[name]
        value = getattr(import_module(f"masklet.{module}"), attribute)
    else:
        raise AttributeError(f"module 'masklet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
