"""What `init_state` returns: the session on the server, and what sam2 would store of its answers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from masklet._protocol.results import ObjectResult
from masklet._sync.annotation import Annotation
from masklet.compat._models.model import SAM2Model
from masklet.errors import Internal

if TYPE_CHECKING:
    import torch

Logits = npt.NDArray[np.float32]


def logits_of(result: ObjectResult) -> Logits:
    """The low-resolution logits of a result, ``float32[h, w]``.

    Raises:
        Internal: The server sent none, because it is too old.
    """
    if result.logits is None:
        raise Internal("the server sent no logits; it is older than masklet.compat, update it")
    return result.logits


def _by_kind() -> dict[bool, dict[int, Logits]]:
    return {True: {}, False: {}}


@dataclass
class ObjectOutputs:
    """Low-resolution logits ``float32[h, w]`` of one object by frame, stored as sam2 stores them.

    Attributes:
        wire_id: The object's id on the server.
        inputs: The frames with a prompt.
        waiting: Results of prompts since the last propagation, first by whether their frame is a conditioning frame,
            then by frame (sam2's `temp_output_dict_per_obj`).
        settled: Results from before that (`output_dict_per_obj`).
        tracked: The frames that a propagation has tracked (`frames_tracked_per_obj`).
    """

    wire_id: int
    inputs: set[int] = field(default_factory=set)
    waiting: dict[bool, dict[int, Logits]] = field(default_factory=_by_kind)
    settled: dict[bool, dict[int, Logits]] = field(default_factory=_by_kind)
    tracked: set[int] = field(default_factory=set)

    def prompted(self, frame_idx: int, logits: Logits) -> bool:
        """Store the result of a prompt.

        Returns:
            Whether the prompt's frame is a conditioning frame, because it was not tracked before.
        """
        is_cond = frame_idx not in self.tracked
        self.inputs.add(frame_idx)
        self.waiting[is_cond][frame_idx] = logits
        return is_cond

    def settle(self) -> None:
        """Count the results of prompts as tracked, because a propagation begins (`propagate_in_video_preflight`)."""
        for is_cond in (False, True):
            self.settled[is_cond].update(self.waiting[is_cond])
            self.waiting[is_cond].clear()
        for frame_idx in self.settled[True]:
            self.settled[False].pop(frame_idx, None)

    def add_tracked(self, frame_idx: int, logits: Logits) -> None:
        """Store the result of a propagation on a frame."""
        if frame_idx not in self.settled[True]:
            self.settled[False][frame_idx] = logits
        self.tracked.add(frame_idx)

    def clear(self, frame_idx: int) -> None:
        """Forget the prompts of a frame; their result stays as that of a tracked frame."""
        self.inputs.discard(frame_idx)
        for is_cond in (True, False):
            self.waiting[is_cond].pop(frame_idx, None)
        if (out := self.settled[True].pop(frame_idx, None)) is not None:
            self.settled[False][frame_idx] = out
            self.tracked.discard(frame_idx)

    def shown(self, frame_idx: int, *, is_cond: bool) -> Logits | None:
        """What `_consolidate_temp_output_across_obj` takes for the object on a frame."""
        for outputs in (self.waiting[is_cond], self.settled[True], self.settled[False]):
            if frame_idx in outputs:
                return outputs[frame_idx]
        return None


class FramesOnServer(Sequence[Any]):
    """What sam2's ``state["images"]`` tells without the pixels: the number of frames and their shape.

    Args:
        annotation: The session that has the frames.
        model: The model that sees them.
    """

    def __init__(self, annotation: Annotation, model: SAM2Model) -> None:
        self._annotation = annotation
        self._model = model

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, rows and columns of sam2's tensor."""
        return len(self), 3, self._model.image_size, self._model.image_size

    def __len__(self) -> int:
        return self._annotation.frame_count

    def __getitem__(self, index: Any) -> NoReturn:
        raise NotImplementedError('the frames are on the server; read those of state["images"] from the video itself')

    def __repr__(self) -> str:
        return f"FramesOnServer({len(self)} frames)"


class InferenceState(Mapping[str, Any]):
    """A video on the server and the objects on it; answers those keys of sam2's dictionary that programs read.

    It stores the low-resolution logits of every object on every frame that had a result, as sam2 does: a quarter of a
    megabyte each for SAM 2's own models. The session ends with `close`, or when nothing refers to the state.

    Args:
        annotation: The session.
        model: The model that tracks.
        options: Entries that sam2's state has, too, such as ``offload_video_to_cpu``.

    Attributes:
        annotation: The session.
        model: The model that tracks.
        objects: What is stored of each object, by the program's own ids, in the order of their first prompts.
    """

    def __init__(self, annotation: Annotation, model: SAM2Model, **options: bool) -> None:
        self.annotation = annotation
        self.model = model
        self.objects: dict[Hashable, ObjectOutputs] = {}
        self._options = options
        self._last_wire_id = 0

    @property
    def obj_ids(self) -> list[Hashable]:
        """The ids of all objects, in the order in which they were first prompted."""
        return list(self.objects)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the video in pixels; waits until its first frame is decoded."""
        return self.annotation.video.height, self.annotation.video.width

    def next_wire_id(self) -> int:
        """An object id that the server has not seen in this session; no id is used twice."""
        self._last_wire_id += 1
        return self._last_wire_id

    def masks(self, frame_idx: int, *, is_cond: bool) -> torch.Tensor:
        """The logits of all objects on a frame, ``float32[N, 1, H, W]``.

        Args:
            frame_idx: The frame's number, from 0.
            is_cond: The frame is a conditioning frame of the object that was just prompted.
        """
        from masklet.compat import _torch

        shown = [outputs.shown(frame_idx, is_cond=is_cond) for outputs in self.objects.values()]
        return _torch.video_masks(shown, *self.size)

    def close(self) -> None:
        """End the session and free the server."""
        self.annotation.close()

    def __getitem__(self, key: str) -> Any:
        if key in self._options:
            return self._options[key]
        match key:
            case "images":
                return FramesOnServer(self.annotation, self.model)
            case "device" | "storage_device":
                return self.model.device
            case "num_frames":
                return self.annotation.frame_count
            case "video_height":
                return self.annotation.video.height
            case "video_width":
                return self.annotation.video.width
            case "obj_ids":
                return self.obj_ids
            case "obj_id_to_idx":
                return {obj_id: idx for idx, obj_id in enumerate(self.objects)}
            case "obj_idx_to_id":
                return dict(enumerate(self.objects))
        raise KeyError(f"{key!r} is on the server; the state here has only {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        yield from ("images", "num_frames", "video_height", "video_width", "device", "storage_device")
        yield from ("obj_ids", "obj_id_to_idx", "obj_idx_to_id")
        yield from self._options

    def __len__(self) -> int:
        return sum(1 for _ in self)

    # Identity: a comparison of all entries, as of other mappings, would wait for the video.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"InferenceState(session_id={self.annotation.session_id!r}, obj_ids={self.obj_ids})"
