"""What `masklet` exports: the list itself, that it suffices for every public signature, and that importing is cheap."""

from __future__ import annotations

import ast
import builtins
import inspect
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest

import masklet
import masklet.batch
import masklet.compat
import masklet.compat.transformers
import masklet.drawing
import masklet.export
import masklet.importing
import masklet.rle

EXPORTS = {
    "clients": {"Client", "AsyncClient", "Pem"},
    "running calls": {"Tracking", "AsyncTracking", "Live", "AsyncLive", "Annotation", "AsyncAnnotation"},
    "what callers give": {
        "Prompt", "VideoSource", "SourceUrl", "VideoPacket", "PictureLike", "ImageId", "Layout", "Delivery", "Edges",
        "Direction", "MemoryPolicy", "OnPrompt", "OnError", "OnResume",
        "SessionOptions", "TrackOptions", "LiveOptions", "AnnotateOptions", "SegmentOptions",
    },
    "what they get": {
        "FrameResult", "ObjectResult", "PromptResult", "VideoInfo", "Timings", "Box", "ObjectEvent", "Rle", "Mask",
        "ResumeEvent", "HowResumed",
        "Segmentation", "ServerInfo", "ModelInfo", "WorkerInfo", "Limits", "Recording", "RecordedObject",
    },
    "cameras": {"capture", "Capture", "Captured", "CaptureEvent", "OnCaptureEvent"},
    "errors": {
        "MaskletError", "FieldViolation", "Aborted", "Cancelled", "DataLoss", "DeadlineExceeded", "FailedPrecondition",
        "Internal", "InvalidArgument", "NotFound", "ResourceExhausted", "Unauthenticated", "Unavailable",
        "Unimplemented",
    },
    "drawing and run-lengths": {
        "drawing", "rle", "cutout", "overlay", "save_indexed_masks", "save_mask", "write_overlay_video", "encode_rle",
        "decode_rle",
    },
    "results in files": {"export", "importing"},
    "batches": {"batch", "Batch"},
    "notebooks": {"progress", "show", "Player"},
    "version": {"__version__"},
}  # fmt: skip

MODULES = [
    masklet,
    masklet.batch,
    masklet.drawing,
    masklet.export,
    masklet.importing,
    masklet.rle,
    masklet.errors,
    masklet.prompts,
    masklet.compat,
    masklet.compat.transformers,
]


def test_the_list_of_exports() -> None:
    assert set(masklet.__all__) == set().union(*EXPORTS.values())
    assert len(masklet.__all__) == len(set(masklet.__all__))
    assert set(masklet.__all__) <= set(dir(masklet))
    assert all(hasattr(masklet, name) for name in masklet.__all__)
    assert masklet.__version__


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(masklet, "nonsense")


def public_names(module: types.ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def signatures(name: str, value: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Everything with annotations in a public class or function: where it is, itself, and its annotations."""
    if inspect.isfunction(value):
        yield name, value, value.__annotations__
    elif inspect.isclass(value):
        for cls in value.__mro__:
            if not cls.__module__.startswith("masklet") or cls.__module__.startswith("masklet.v1"):
                continue
            yield f"{name} ({cls.__name__})", cls, inspect.get_annotations(cls)
            for member, inner in vars(cls).items():
                if member.startswith("_") and member != "__init__":
                    continue
                if member == "__init__" and cls.__module__.startswith(MADE_BY_FUNCTIONS):
                    continue  # made by the clients, and by `capture`, alone
                function = (
                    getattr(inner, "fget", None) or getattr(inner, "func", None) or getattr(inner, "__func__", inner)
                )
                if inspect.isfunction(function):
                    yield f"{name}.{member}", function, function.__annotations__


MADE_BY_FUNCTIONS = ("masklet._sync", "masklet._aio", "masklet._media.capture")


def names_in(annotation: Any, scope: dict[str, Any]) -> Iterator[str]:
    """The names of masklet's own that an annotation mentions; what is imported from elsewhere is left out."""
    if not isinstance(annotation, str):
        annotation = getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__name__", "None")
    tree = ast.parse(annotation.strip("'\""), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id) and is_ours(node.id, scope):
            yield node.id


def is_ours(name: str, scope: dict[str, Any]) -> bool:
    value = scope.get(name)
    if isinstance(value, types.ModuleType):
        return value.__name__.partition(".")[0] == "masklet"
    if name.startswith("_"):
        return False  # type variables
    home = getattr(value, "__module__", None)
    return name not in STANDARD and (home or "masklet").partition(".")[0] not in ("collections", "numpy", "torch")


# Of Python and other packages, some of them imported for type checkers only.
STANDARD = {
    "Any", "AsyncIterable", "AsyncIterator", "Callable", "ClassVar", "Generator", "Hashable",
    "IO", "Image", "Iterable",
    "Iterator", "Literal", "Mapping", "NoReturn", "Path", "Sequence", "Unpack", "torch",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_everything_that_a_public_signature_mentions_can_be_imported(module: types.ModuleType) -> None:
    exported = {*masklet.__all__, *(name for place in MODULES for name in public_names(place))}
    mentioned: dict[str, str] = {}
    for name in public_names(module):
        for place, holder, hints in signatures(name, getattr(module, name)):
            scope = vars(sys.modules[holder.__module__])
            for annotation in hints.values():
                mentioned |= dict.fromkeys(names_in(annotation, scope), place)
    assert {name: place for name, place in mentioned.items() if name not in exported} == {}
    if module is masklet:
        assert {"VideoSource", "TrackOptions", "Pem", "Layout", "PictureLike", "Box"} <= set(mentioned), "it looks"


def test_names_in_an_alias_are_what_they_say() -> None:
    assert get_origin(masklet.Delivery) is get_origin(masklet.Direction)
    assert get_args(masklet.Delivery) == ("latest", "lossless")
    assert masklet.drawing.overlay is masklet.overlay


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["Client", "Tracking", "Live", "Annotation"])
def test_both_faces_have_the_same_methods(name: str) -> None:
    blocking, awaited = public(getattr(masklet, name)), public(getattr(masklet, f"Async{name}"))
    assert awaited - blocking == {"aclose"}
    assert blocking <= awaited


def test_running_calls_name_the_same_act_alike() -> None:
    acts = {"prompt", "remove_object", "clear_prompts", "cancel", "close", "session_id", "model", "video"}
    assert all(acts <= public(cls) for cls in (masklet.Tracking, masklet.Live, masklet.Annotation))


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    return set(output.split())


def test_importing_masklet_is_light() -> None:
    assert not loaded_after("import masklet") & {"torch", "cv2", "masklet_server", "grpc", "av", "PIL"}


def test_everything_public_is_there_and_needs_no_server() -> None:
    loaded = loaded_after("import masklet\nfor name in masklet.__all__: getattr(masklet, name)")
    assert not loaded & {"torch", "cv2", "masklet_server"}


def test_what_is_said_needs_no_channel() -> None:
    """The protocol has no input or output: it imports neither gRPC, nor threads' work, nor what reads files."""
    names = "track, live, annotation, options, pictures, results, segmentation, server_info, status, wire"
    assert not loaded_after(f"from masklet._protocol import {names}") & {"grpc", "av", "PIL", "asyncio", "torch"}
