"""The options of the client's calls, each declared once, and the first message of a call that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, get_args

import numpy.typing as npt

from masklet._protocol.results import PromptResult
from masklet._protocol.resumption import ResumeEvent
from masklet.errors import InvalidArgument, MaskletError
from masklet.v1 import common_pb2, tracking_pb2

OnPrompt = Callable[[PromptResult], None]
"""Called with what the model makes of a prompt."""
OnError = Callable[[MaskletError], None]
"""Called with an error after which the stream goes on."""
OnResume = Callable[[ResumeEvent], None]
"""Called when a stream has lost its connection, and when it goes on."""

MemoryPolicy = Literal["sam2", "distractor_aware", "motion_aware"]
"""What an object's memory keeps: SAM 2's own rule; or one that keeps look-alikes apart; or one that follows motion."""
_MEMORY_POLICIES = {
    "sam2": tracking_pb2.MEMORY_POLICY_SAM2,
    "distractor_aware": tracking_pb2.MEMORY_POLICY_DISTRACTOR_AWARE,
    "motion_aware": tracking_pb2.MEMORY_POLICY_MOTION_AWARE,
}

Edges = Literal["none", "guided"]
"""How the edges of masks are drawn: as the model gives them; or moved to nearby edges of colour."""
_EDGES = {"none": common_pb2.EDGES_NONE, "guided": common_pb2.EDGES_GUIDED}

Delivery = Literal["latest", "lossless"]
"""Which frames of a live video are tracked: the latest ones, where they come too fast; or all."""
_DELIVERIES = {"latest": tracking_pb2.DELIVERY_LATEST, "lossless": tracking_pb2.DELIVERY_LOSSLESS}


class SessionOptions(TypedDict, total=False):
    """Options of every call that works on a video. All of them may be left out.

    Attributes:
        model: A name from `Client.info`. Default: the server's default model.
        deterministic: True: never share a batch with other sessions, so that two runs give the same bits. Default:
            False.
        window: How many results the server may send before the caller has taken them; 0: as many as the server allows.
            Default: 0.
        timeout: Seconds for the whole call; None: no limit. Default: None.
        edges: How the edges of masks are drawn. "none": as the model gives them, enlarged. "guided": moved to the edges
            of colour nearby. Default: the model's own way, which is "guided" for nano and "none" for Meta's models.
        return_logits: True: results carry low-resolution logits, too (`ObjectResult.logits`). Default: False.
        resume: True: when the connection is lost or the server starts again, connect again and go on, so that the
            caller sees nothing of it: each result comes once, in order. False: such a call ends with `Unavailable`.
            Default: True.
        resume_seconds: How long to try to reach the server again. Then the call ends with `Unavailable`. Default: 120.
        on_resume: Called when the connection is lost, and when the stream goes on. It runs on the thread (or event
            loop) that takes the results. Default: None.
    """

    model: str
    deterministic: bool
    window: int
    timeout: float | None
    edges: Edges
    return_logits: bool
    resume: bool
    resume_seconds: float
    on_resume: OnResume | None


class AnnotateOptions(SessionOptions, total=False):
    """Options of `Client.annotate`: those of `SessionOptions`. All of them may be left out."""


class TrackOptions(SessionOptions, total=False):
    """Options of `Client.track`, beside those of `SessionOptions`. All of them may be left out.

    Attributes:
        memory_policy: What an object's memory keeps. "sam2": SAM 2's own rule, the prompted frames and the last six
            (with nano: the last three). "distractor_aware": frames that tell the object from look-alikes are kept
            longer. "motion_aware": masks that fit the object's motion are preferred, and only good frames are
            remembered. Default: "sam2".
        correction_window: How many of the last tracked frames are kept ready to be corrected; 0: as many as the server
            allows. Of a file every frame can be corrected, but earlier ones take longer. A number above 0 also says
            that the caller wants to correct: then the server waits for the caller before it ends the stream, so that
            the last frames can be corrected, too. Default: 0.
        timings: True: each result says where the time of its frame went (`FrameResult.timings`). Default: False.
        on_prompt: Called with what the model makes of each prompt, before the prompt's frame comes. It runs on the
            thread (or event loop) that takes the results. Default: None.
        on_error: Called, in the same place, with errors after which the stream goes on, such as a correction that comes
            too late. None: such an error is raised from the loop over the results, which ends the call. Default: None.
    """

    memory_policy: MemoryPolicy
    correction_window: int
    timings: bool
    on_prompt: OnPrompt | None
    on_error: OnError | None


class LiveOptions(TrackOptions, total=False):
    """Options of `Client.live`, beside those of `TrackOptions`. All of them may be left out.

    Attributes:
        delivery: What happens to frames that come faster than they can be tracked. "latest": they are skipped, and
            named in the next result. "lossless": every frame is tracked, and `Live.send` waits. Default: "latest".
        max_latency: Seconds that a frame may wait to be tracked before a newer one takes its place; 0: the server's
            default. Goes with delivery="latest" alone. Default: 0.
    """

    delivery: Delivery
    max_latency: float


class SegmentOptions(TypedDict, total=False):
    """Prompts and options of `Client.segment`. At least one prompt is needed; all else may be left out.

    Every prompt may have one dimension more: B prompts that share the picture. Boxes of shape [B, 4] from a detector
    give B objects.

    Attributes:
        point_coords: ``[N, 2]``, x and y of each click in pixels.
        point_labels: ``[N]``, 1 for foreground and 0 for background. Default: all are foreground.
        box: ``[4]``, x0, y0, x1, y1 in pixels.
        mask_input: ``float[1, h, w]``, logits of an earlier answer for the same picture, to refine it.
        mask: ``bool[H, W]`` at the picture's size. Excludes all other prompts.
        multimask_output: True: three candidates for each prompt, best first, which is right for an ambiguous prompt
            such as one click. False: one mask. Default: True.
        return_logits: True: also return low-resolution logits, which a later call takes as `mask_input`. None: only for
            a single prompt, because those of a batch take megabytes. Default: None.
        model: A name from `Client.info`. Default: the model of the earlier answer, or the server's default.
        edges: How the edges of masks are drawn; see `SessionOptions`. Default: the model's own way.
    """

    point_coords: npt.ArrayLike | None
    point_labels: npt.ArrayLike | None
    box: npt.ArrayLike | None
    mask_input: npt.ArrayLike | None
    mask: npt.ArrayLike | None
    multimask_output: bool
    return_logits: bool | None
    model: str
    edges: Edges


def check_names(options: Mapping[str, Any], known: type, call: str) -> None:
    """Refuse options that do not exist, as Python does for other arguments.

    Args:
        options: What the caller gave.
        known: The `TypedDict` that declares the options.
        call: The name of the method, for the error.

    Raises:
        TypeError: An option is unknown.
    """
    for name in options:
        if name not in known.__annotations__:
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}")


def track_config(options: TrackOptions, *, frame_count: int = 0, source_url: str = "") -> tracking_pb2.TrackConfig:
    """The first message of a track call.

    Args:
        options: As the caller gave them.
        frame_count: Frames of the video; 0 where the number is not known.
        source_url: Where the server fetches the video itself; empty where the client sends it.

    Raises:
        TypeError: An option is unknown.
        InvalidArgument: An option has a wrong value.
    """
    check_names(options, TrackOptions, "track")
    return _config(options, frame_count, source_url)


def annotate_config(
    options: AnnotateOptions, *, frame_count: int = 0, source_url: str = ""
) -> tracking_pb2.TrackConfig:
    """The first message of an annotation; arguments and errors are those of `track_config`."""
    check_names(options, AnnotateOptions, "annotate")
    config = _config(options, frame_count, source_url)
    config.propagation = tracking_pb2.PROPAGATION_ON_REQUEST
    return config


def live_config(options: LiveOptions) -> tracking_pb2.TrackConfig:
    """The first message of a live call; arguments and errors are those of `track_config`."""
    check_names(options, LiveOptions, "live")
    delivery, max_latency = options.get("delivery", "latest"), options.get("max_latency", 0.0)
    if delivery not in _DELIVERIES:
        raise InvalidArgument.of("delivery", f"is {delivery!r}, must be one of {', '.join(get_args(Delivery))}")
    if not 0 <= max_latency < float("inf"):
        raise InvalidArgument.of("max_latency", f"is {max_latency!r}, must be a number of seconds, 0 or above")
    if max_latency and delivery != "latest":
        raise InvalidArgument.of("max_latency", "goes with delivery='latest' alone; leave it out")
    config = _config(options)
    config.live = True
    config.delivery = _DELIVERIES[delivery]
    config.max_latency_seconds = max_latency
    return config


def _config(options: Mapping[str, Any], frame_count: int = 0, source_url: str = "") -> tracking_pb2.TrackConfig:
    memory_policy = options.get("memory_policy", "sam2")
    if memory_policy not in _MEMORY_POLICIES:
        policies = ", ".join(get_args(MemoryPolicy))
        raise InvalidArgument.of("memory_policy", f"is {memory_policy!r}, must be one of {policies}")
    if not 0 <= options.get("resume_seconds", 0.0) < float("inf"):
        raise InvalidArgument.of("resume_seconds", f"is {options['resume_seconds']!r}, must be seconds, 0 or above")
    return tracking_pb2.TrackConfig(
        model=options.get("model", ""),
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        deterministic=options.get("deterministic", False),
        window=_frames(options, "window"),
        correction_window=_frames(options, "correction_window"),
        frame_count=frame_count,
        source_url=source_url,
        timings=options.get("timings", False),
        memory_policy=_MEMORY_POLICIES[memory_policy],
        edges=edges_to_wire(options),
        return_logits=bool(options.get("return_logits", False)),
        resumable=bool(options.get("resume", True)),
    )


def edges_to_wire(options: Mapping[str, Any]) -> common_pb2.Edges.ValueType:
    """The option `edges` of any call.

    Raises:
        InvalidArgument: It has a wrong value.
    """
    edges = options.get("edges")
    if edges is None:
        return common_pb2.EDGES_UNSPECIFIED
    if edges not in _EDGES:
        raise InvalidArgument.of("edges", f"is {edges!r}, must be one of {', '.join(_EDGES)}")
    return _EDGES[edges]


def _frames(options: Mapping[str, Any], name: str) -> int:
    value = options.get(name, 0)
    if not isinstance(value, int) or not 0 <= value < 2**32:
        raise InvalidArgument.of(name, f"is {value!r}, must be a whole number of frames, 0 or above")
    return value
