"""``sam2.sam2_video_predictor``, computed by a masklet server."""

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

    Masks are logits ``float32[N, 1, H, W]`` on the CPU, in the order of `obj_ids`. Object ids may be any hashable
    values.

    What differs from sam2: clicks outside the picture, labels other than 0 and 1, and masks without foreground are
    refused (`masklet.InvalidArgument`), and so are masks of another size than the video's (`ValueError`). An object
    exists only after its first prompt was accepted. The server limits the numbers of objects and of prompted frames.

    Args:
        server: A client, or a server's address for `masklet.Client`.
        model: A name from `masklet.Client.info`; empty: the server's default.
        deterministic: Never share a batch with other sessions, so that two runs give the same bits.
        window: How many frames the server may be ahead of a loop over `propagate_in_video`. With 1, a loop that is left
            early leaves the state that sam2 would leave. More is faster, and as exact for loops that run to their end.

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
            async_loading_frames: True: return when the first frame is decoded. False: when all frames are.

        Returns:
            The state of the session, for the other methods.

        Raises:
            masklet.MaskletError: The video cannot be decoded, or the server cannot be reached.
        """
        state = InferenceState(
            self.client.annotate(video_path, return_logits=True, edges="none", **self._options),
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
        """Prompt an object on a frame with points, a box, or both.

        Args:
            inference_state: What `init_state` returned.
            frame_idx: The frame's number, from 0.
            obj_id: The object's id.
            points: ``[N, 2]``, x and y of each click, in pixels.
            labels: ``[N]``, 1 for foreground and 0 for background.
            clear_old_points: False: add the points to those given before on this frame.
            normalize_coords: False: coordinates are fractions of the video's width and height, 0 to 1.
            box: ``[4]``, x0, y0, x1, y1 in pixels.

        Returns:
            The frame's number, the ids of all objects, and their logits there ``float32[N, 1, H, W]``: -1024 for an
            object that has no result on the frame.

        Raises:
            ValueError: The arguments contradict one another.
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
        """The older name of `add_new_points_or_box` in sam2."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: Any
    ) -> tuple[int, list[Hashable], torch.Tensor]:
        """Prompt an object on a frame with a mask.

        Args:
            inference_state: What `init_state` returned.
            frame_idx: The frame's number, from 0.
            obj_id: The object's id.
            mask: ``[H, W]`` at the video's size; of floats, those from 0.5 on are foreground.

        Returns:
            As `add_new_points_or_box`.

        Raises:
            ValueError: The mask has another size.
        """
        pixels = _array(mask)
        if pixels.shape != inference_state.size:
            height, width = inference_state.size
            raise ValueError(
                f"the mask has the shape {list(pixels.shape)}, must be [{height}, {width}], the size of the video"
            )
        if pixels.dtype.kind == "f":
            pixels = pixels >= 0.5
        return self._prompt(inference_state, frame_idx, obj_id, {"mask": pixels})

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Check that every object is prompted; the results of prompts count as tracked from now on.

        Raises:
            RuntimeError: There is no object, or one without a prompt.
        """
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
        """Track all objects over a range of frames. Any other call for this state ends the loop.

        Args:
            inference_state: What `init_state` returned.
            start_frame_idx: Where to start; None: at the first frame with a prompt.
            max_frame_num_to_track: How many frames to track at most after the first one; None: all.
            reverse: Track towards the start of the video.

        Yields:
            The frame's number, the ids of all objects, and their logits ``float32[N, 1, H, W]``.

        Raises:
            RuntimeError: There is no object, or one without a prompt.
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
                outputs.add_tracked(frame.frame_index, found[-1])
            masks = _torch.resized(np.stack(found), *inference_state.size)
            yield frame.frame_index, list(objects), masks[:, None]

    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> tuple[int, list[Hashable], torch.Tensor] | None:
        """Take back an object's prompts on a frame.

        Args:
            inference_state: What `init_state` returned.
            frame_idx: The frame's number, from 0.
            obj_id: The object's id.
            need_output: False: return None.

        Returns:
            As `add_new_points_or_box`.

        Raises:
            RuntimeError: There is no such object.
        """
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

        Args:
            inference_state: What `init_state` returned.
            obj_id: The object's id.
            strict: True: raise an error if there is no such object.
            need_output: False: the second value is an empty list.

        Returns:
            The ids of the objects that are left; and for each frame on which the object was prompted, the frame's
            number and their logits there ``float32[N, 1, H, W]``.

        Raises:
            RuntimeError: There is no such object, and `strict` is true.
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
        """Forget all objects with their prompts and results; the video stays."""
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
        raise Internal("the server sent no logits; it is older than masklet.compat, update it")
    return logits


def _array(values: Any) -> npt.NDArray[Any]:
    """A NumPy array of a tensor on any device, or of anything from which NumPy can make one."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
