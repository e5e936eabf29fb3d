"""``sam2.sam2_video_predictor``, computed by a masklet server."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from masklet._media.uploads import VideoSource
from masklet._sync.client import Client
from masklet.compat._models.locate import locate_repository
from masklet.compat._models.model import SAM2Model
from masklet.compat._videos.prompts import Clicks, click_arguments, mask_arguments
from masklet.compat._videos.state import InferenceState, ObjectOutputs, logits_of
from masklet.prompts import Prompt

if TYPE_CHECKING:
    import torch


class SAM2VideoPredictor(SAM2Model):
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

    model: str

    def __init__(self, server: Client | str, model: str = "", *, deterministic: bool = False, window: int = 1) -> None:
        from masklet.compat import _torch  # noqa: F401 - raises where torch is missing

        super().__init__(server, model)
        self.model = model
        self._options: dict[str, Any] = {"model": model, "deterministic": deterministic, "window": window}

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
        """The predictor of a model on Hugging Face, on the server of MASKLET_SERVER or one in this process.

        Args:
            model_id: Such as "facebook/sam2.1-hiera-large"; or the name of a model here.
            kwargs: As those of `masklet.compat.build_sam2_video_predictor`.

        Raises:
            masklet.NotFound: The server does not have the model.
            masklet.MaskletError: The server cannot be reached or started.
        """
        return cls(*locate_repository(model_id, kwargs))

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
            self,
            offload_video_to_cpu=offload_video_to_cpu,
            offload_state_to_cpu=offload_state_to_cpu,
        )
        _ = state.annotation.video if async_loading_frames else state.annotation.frame_count
        state.annotation.prepare(0)  # as sam2's own init_state encodes frame 0 ("warm up the visual backbone")
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
        given = click_arguments(
            inference_state.size,
            Clicks(points, labels, box),
            keep_old_points=not clear_old_points,
            are_fractions=not normalize_coords,
        )
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
        return self._prompt(inference_state, frame_idx, obj_id, mask_arguments(inference_state.size, mask))

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
                found.append(logits_of(frame.objects[outputs.wire_id]))
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
        is_cond = outputs.prompted(frame_idx, logits_of(result.object))
        return frame_idx, state.obj_ids, state.masks(frame_idx, is_cond=is_cond)


def _shown(state: InferenceState, frame_idx: int) -> tuple[int, list[Hashable], torch.Tensor]:
    is_cond = any(frame_idx in outputs.waiting[True] for outputs in state.objects.values())
    return frame_idx, state.obj_ids, state.masks(frame_idx, is_cond=is_cond)
