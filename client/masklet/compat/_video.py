"""sam2.sam2_video_predictor over the wire."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from masklet._media.uploads import VideoSource
from masklet._protocol.results import PromptResult
from masklet._sync.client import Client
from masklet.compat._state import InferenceState, Logits, ObjectOutputs
from masklet.errors import Internal
from masklet.prompts import Prompt

if TYPE_CHECKING:
    import torch


class SAM2VideoPredictor:
    """``sam2.sam2_video_predictor.SAM2VideoPredictor``, computed by a masklet server.

    Masks are logits ``float32[N, 1, H, W]`` on the CPU, in the order of `obj_ids`; object ids may be anything hashable.
    What differs: clicks outside the picture, labels other than 0 and 1, masks without foreground
    (`masklet.InvalidArgument`) and of another size than the video's (`ValueError`) are refused; an object counts only
    once its first prompt was accepted; the server bounds objects and prompted frames.

    Args:
        server: A client, or a server's address for `masklet.Client`.
        model: A name from `masklet.Client.info`; empty for the server's default.
        deterministic: Never share a batch with other sessions.
        window: Frames that the server may be ahead of a loop over `propagate_in_video`. With 1 a loop that is left
            early leaves the state that sam2 would leave; more is faster, and as exact for loops that run to their end.

    Raises:
        ImportError: torch is not installed.
    """

    def __init__(self, server: Client | str, model: str = "", *, deterministic: bool = False, window: int = 1) -> None:
        from masklet.compat import _torch

        self.client = Client(server) if isinstance(server, str) else server
        self.model = model
        self.device = _torch.CPU
        self._options: dict[str, Any] = {"model": model, "deterministic": deterministic, "window": window}

    def init_state(
        self,
        video_path: VideoSource,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> InferenceState:
        """Begin a session with a video.

        Args:
            video_path: Anything that `masklet.Client.track` takes, such as an MP4's path or a folder of pictures.
            offload_video_to_cpu: Changes nothing: the video is not kept here.
            offload_state_to_cpu: Changes nothing: the state is not kept here.
            async_loading_frames: Return when the first frame is decoded, and not when all are.
        """
        state = InferenceState(
            self.client.annotate(video_path, return_logits=True, **self._options),
            offload_video_to_cpu=offload_video_to_cpu,
            offload_state_to_cpu=offload_state_to_cpu,
        )
        _ = state.annotation.video if async_loading_frames else state.annotation.frame_count
        return state

    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> tuple[int, list[Hashable], torch.Tensor]:
        """Prompt an object on a frame by points, a box, or both.

        Returns:
            The frame, the ids of all objects, and what is known of them there: -1024 everywhere where nothing is.
        """
        if (points is not None) != (labels is not None):
            raise ValueError("points and labels must be provided together")
        if points is None and box is None:
            raise ValueError("at least one of points or box must be provided as input")
        if box is not None and not clear_old_points:
            raise ValueError(
                "cannot add box without clearing old points, since box prompt must be provided before any point prompt "
                "(please use clear_old_points=True instead)"
            )
        height, width = inference_state.size
        scale = np.array([1, 1] if normalize_coords else [width, height], np.float32)
        given: dict[str, Any] = {"keep_old_points": not clear_old_points}
        if points is not None:
            coords, marks = _array(points), _array(labels)
            given["point_coords"] = (coords[0] if coords.ndim == 3 and len(coords) == 1 else coords) * scale
            given["point_labels"] = marks[0] if marks.ndim == 2 and len(marks) == 1 else marks
        if box is not None:
            given["box"] = (_array(box).reshape(2, 2) * scale).reshape(4)
        return self._prompt(inference_state, frame_idx, obj_id, given)

    def add_new_points(self, *args: Any, **kwargs: Any) -> tuple[int, list[Hashable], torch.Tensor]:
        """Deprecated by sam2 for `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: Any
    ) -> tuple[int, list[Hashable], torch.Tensor]:
        """Prompt an object on a frame by a mask ``[H, W]`` of the video's size.

        Returns:
            As `add_new_points_or_box`.
        """
        pixels = _array(mask)
        if pixels.shape != inference_state.size:
            height, width = inference_state.size
            raise ValueError(f"the mask has the shape {list(pixels.shape)}, must be [{height}, {width}] as the video")
        if pixels.dtype.kind == "f":
            pixels = pixels >= 0.5
        return self._prompt(inference_state, frame_idx, obj_id, {"mask": pixels})

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Make sure that every object is prompted; what was shown so far counts as tracked from now on."""
        if not inference_state.objects:
            raise RuntimeError("No input points or masks are provided for any object; please add inputs first.")
        for obj_id, outputs in inference_state.objects.items():
            outputs.settle()
            if not outputs.settled[True]:
                raise RuntimeError(
                    f"No input points or masks are provided for object id {obj_id}; please add inputs first."
                )

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[int, list[Hashable], torch.Tensor]]:
        """Track all objects; yields each frame, the ids of all objects, and their logits ``float32[N, 1, H, W]``.

        Any other call for this state ends the loop, which then cannot go on.
        """
        from masklet.compat import _torch

        self.propagate_in_video_preflight(inference_state)
        objects = dict(inference_state.objects)
        if start_frame_idx is None:
            start_frame_idx = min(frame for outputs in objects.values() for frame in outputs.settled[True])
        frames = inference_state.annotation.propagate(
            start_frame_idx, max_frame_num_to_track, "backward" if reverse else "forward"
        )
        for frame in frames:
            found = []
            for outputs in objects.values():
                found.append(_logits(frame.objects[outputs.wire_id].logits))
                outputs.went_over(frame.frame_index, found[-1])
            masks = _torch.resized(np.stack(found), *inference_state.size)
            yield frame.frame_index, list(objects), masks[:, None]

    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> tuple[int, list[Hashable], torch.Tensor] | None:
        """Take back an object's prompts on a frame; what is known of all objects there, unless it is not needed."""
        outputs = inference_state.objects.get(obj_id)
        if outputs is None:
            raise RuntimeError(f"there is no object id {obj_id}; all existing object ids: {inference_state.obj_ids}")
        if frame_idx in outputs.inputs:
            inference_state.annotation.clear_prompts(outputs.wire_id, frame_idx)
            outputs.clear(frame_idx)
        return _shown(inference_state, frame_idx) if need_output else None

    def remove_object(
        self, inference_state: InferenceState, obj_id: Hashable, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Hashable], list[tuple[int, torch.Tensor]]]:
        """Forget an object.

        Returns:
            The ids of those that are left, and for each frame on which it was prompted what is known of them there.
        """
        if obj_id not in inference_state.objects:
            if strict:
                raise RuntimeError(
                    f"Cannot remove object id {obj_id} as it doesn't exist. "
                    f"All existing object ids: {inference_state.obj_ids}."
                )
            return inference_state.obj_ids, []
        if len(inference_state.objects) == 1:
            self.reset_state(inference_state)
            return [], []
        inference_state.annotation.remove_object(inference_state.objects[obj_id].wire_id)
        removed = inference_state.objects.pop(obj_id)
        shown = [_shown(inference_state, frame_idx) for frame_idx in sorted(removed.inputs) if need_output]
        return inference_state.obj_ids, [(frame_idx, masks) for frame_idx, _, masks in shown]

    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects; the video stays."""
        inference_state.annotation.reset()
        inference_state.objects.clear()

    def _prompt(
        self, state: InferenceState, frame_idx: int, obj_id: Hashable, given: dict[str, Any]
    ) -> tuple[int, list[Hashable], torch.Tensor]:
        outputs = state.objects.get(obj_id) or ObjectOutputs(state.next_wire_id())
        result = state.annotation.prompt(Prompt(outputs.wire_id, frame_idx, **given))
        state.objects[obj_id] = outputs
        is_cond = outputs.prompted(frame_idx, _prompted_logits(result))
        return frame_idx, state.obj_ids, state.masks(frame_idx, is_cond=is_cond)


def _shown(state: InferenceState, frame_idx: int) -> tuple[int, list[Hashable], torch.Tensor]:
    is_cond = any(frame_idx in outputs.waiting[True] for outputs in state.objects.values())
    return frame_idx, state.obj_ids, state.masks(frame_idx, is_cond=is_cond)


def _prompted_logits(result: PromptResult) -> Logits:
    return _logits(result.object.logits)


def _logits(logits: Logits | None) -> Logits:
    if logits is None:
        raise Internal("the server sent no logits, which were asked for; it is older than masklet.compat")
    return logits


def _array(values: Any) -> npt.NDArray[Any]:
    """Of a tensor on any device, or of anything that NumPy makes an array of."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
