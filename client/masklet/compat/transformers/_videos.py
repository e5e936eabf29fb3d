"""transformers' ``Sam2VideoModel`` and ``Sam2VideoProcessor``, computed by a masklet server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from masklet._media.pictures import load_rgb
from masklet._protocol.annotation import Direction
from masklet._protocol.results import ObjectResult
from masklet._sync.annotation import Annotation
from masklet.compat._videos.prompts import array_of, mask_arguments
from masklet.compat._videos.state import logits_of
from masklet.compat.transformers._images import PretrainedModel
from masklet.compat.transformers._inputs import PADDING, Picture, Processor
from masklet.compat.transformers._session import Frames, GivenPrompt, Sam2VideoInferenceSession

if TYPE_CHECKING:
    import torch


@dataclass
class Sam2VideoSegmentationOutput:
    """The masks of all objects on a frame.

    Attributes:
        object_ids: The ids of all objects.
        pred_masks: Low-resolution logits ``float32[N, 1, h, w]``, in the order of the ids.
        object_score_logits: ``float32[N, 1]``; above 0 the model takes the object to be in the picture.
        frame_idx: The frame's number, from 0.
    """

    object_ids: list[int]
    pred_masks: torch.Tensor
    object_score_logits: torch.Tensor
    frame_idx: int


class Sam2VideoProcessor(Processor):
    """transformers' ``Sam2VideoProcessor``: sessions, prompts, and masks at the size of the video."""

    def init_video_session(self, video: Any = None, **kwargs: Any) -> Sam2VideoInferenceSession:
        """Begin a session. The video goes to the server when a model is called first.

        Args:
            video: A list of pictures, or ``uint8[T, H, W, 3]``; None: frames come one by one.
            kwargs: Devices and number formats, which change nothing.
        """
        del kwargs
        if video is None:
            return Sam2VideoInferenceSession()
        frames: Frames = [load_rgb(_pixels(frame)) for frame in video]
        if not frames:
            raise ValueError("video has no frames")
        return Sam2VideoInferenceSession(frames, frames[0].shape[0], frames[0].shape[1])

    def add_inputs_to_inference_session(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int,
        obj_ids: list[int] | int,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        original_size: Any = None,
        clear_old_inputs: bool = True,
    ) -> None:
        """Prompt objects on a frame; the next call of a model for the frame answers.

        Args:
            inference_session: The session.
            frame_idx: The frame's number, from 0.
            obj_ids: The id of an object, or those of several.
            input_points: ``[1][object][point][2]``, x and y in pixels.
            input_labels: ``[1][object][point]``, 1 for foreground and 0 for background.
            input_boxes: ``[1][object][4]``, x0, y0, x1, y1 in pixels.
            input_masks: ``[H, W]`` at the video's size, or a list with one for each object. Excludes points and boxes.
            original_size: Height and width of the video, for the first frame of those that come one by one.
            clear_old_inputs: False: add the points to those given before on this frame.

        Raises:
            ValueError: The arguments contradict one another.
        """
        ids = [obj_ids] if isinstance(obj_ids, int) else list(obj_ids)
        if (input_points is not None) != (input_labels is not None):
            raise ValueError("points and labels must be provided together")
        if input_points is None and input_boxes is None and input_masks is None:
            raise ValueError("at least one of points, boxes, or masks must be provided as input")
        if input_masks is not None and (input_points is not None or input_boxes is not None):
            raise ValueError("masks cannot be provided together with points or boxes")
        if input_boxes is not None and not clear_old_inputs:
            raise ValueError(
                "cannot add box without clearing old points, since box prompt must be provided before any point prompt "
                "(please use clear_old_points=True instead)"
            )
        if original_size is not None:
            height, width = (int(side) for side in original_size)
            inference_session.video_height, inference_session.video_width = height, width
        if inference_session.video_height is None or inference_session.video_width is None:
            raise ValueError("original_size must be provided when adding points or boxes on a first streamed frame")
        size = inference_session.video_height, inference_session.video_width
        if input_masks is not None:
            masks = list(input_masks) if isinstance(input_masks, (list, tuple)) else [input_masks]
            _check_count("masks", len(masks), len(ids))
            given = [mask_arguments(size, _without_leading_ones(mask)) for mask in masks]
        else:
            given = self._clicks(size, len(ids), (input_points, input_labels, input_boxes))
        for obj_id, new in zip(ids, given, strict=True):
            key = (inference_session.wire_id(obj_id), frame_idx)
            before = inference_session.prompts.get(key)
            arguments = new if clear_old_inputs or before is None else _added(before.arguments, new)
            replaces = before is not None and (before.is_sent or before.replaces)
            inference_session.prompts[key] = GivenPrompt(arguments, replaces)

    def _clicks(self, size: tuple[int, int], count: int, given: tuple[Any, Any, Any]) -> list[dict[str, Any]]:
        """The arguments of a prompt for each of `count` objects."""
        points, labels, boxes = given
        inputs = self(input_points=points, input_labels=labels, input_boxes=boxes, original_sizes=[size])
        found: list[dict[str, Any]] = [{} for _ in range(count)]
        if points is not None:
            _check_count("points", inputs["input_points"].shape[1], count)
            _check_count("labels", inputs["input_labels"].shape[1], count)
            for place, arguments in enumerate(found):
                marks = inputs["input_labels"][0, place].numpy()
                is_point = marks != PADDING
                arguments["point_coords"] = inputs["input_points"][0, place].numpy()[is_point]
                arguments["point_labels"] = marks[is_point]
        if boxes is not None:
            _check_count("boxes", inputs["input_boxes"].shape[1], count)
            for place, arguments in enumerate(found):
                arguments["box"] = inputs["input_boxes"][0, place].numpy()
        return found


class Sam2VideoModel(PretrainedModel):
    """transformers' ``Sam2VideoModel``, computed by a masklet server.

    What differs: a correction on a frame that was tracked starts from the mask that was tracked there, as in sam2;
    transformers forgets that mask. Of frames that come one by one, only the next one can be prompted.
    """

    def __call__(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int | None = None,
        frame: Any = None,
        reverse: bool = False,
        **kwargs: Any,
    ) -> Sam2VideoSegmentationOutput:
        """Answer the prompts on a frame, or track it.

        Args:
            inference_session: The session.
            frame_idx: The frame's number, from 0; of a frame that comes now, it may be left out.
            frame: A frame that comes now: one of a processor's ``pixel_values``.
            reverse: Track towards the start of the video.
            kwargs: Change nothing.

        Raises:
            ValueError: There are no objects, or `frame_idx` is missing or not the next one.
            masklet.MaskletError: The server refuses a prompt, or the session has ended.
        """
        del kwargs
        if not inference_session.get_obj_num():
            raise ValueError("No objects are provided for tracking; please add inputs first.")
        if frame is not None:
            return self._stream(inference_session, frame, frame_idx)
        if inference_session.video is None:
            raise ValueError("frame must be provided: this session has no video")
        if frame_idx is None:
            raise ValueError("frame_idx must be provided for a session with a video")
        annotation = self._annotation(inference_session)
        answered = self._send_prompts(inference_session, annotation, frame_idx)
        if answered.keys() >= set(inference_session.wire_ids.values()):
            return _output(inference_session, answered, frame_idx)
        (result,) = annotation.propagate(frame_idx, 0, "backward" if reverse and frame_idx else "forward")
        return _output(inference_session, result.objects, frame_idx)

    def propagate_in_video_iterator(
        self,
        inference_session: Sam2VideoInferenceSession,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        show_progress_bar: bool = False,
    ) -> Iterator[Sam2VideoSegmentationOutput]:
        """Track all objects over a range of frames. Any other call for this session ends the loop.

        Args:
            inference_session: The session.
            start_frame_idx: Where to start; None: at the first frame with a prompt.
            max_frame_num_to_track: How many frames to track at most after the first one; None: all.
            reverse: Track towards the start of the video.
            show_progress_bar: Changes nothing.

        Yields:
            The masks on each frame.

        Raises:
            ValueError: Nothing is prompted, or the session has no video.
        """
        del show_progress_bar
        if inference_session.video is None:
            raise ValueError("this session has no video: give the model its frames one by one, as frame=")
        if not inference_session.prompts:
            raise ValueError(
                "Cannot determine the starting frame index; please specify it manually, or run inference on a frame "
                "with inputs first."
            )
        annotation = self._annotation(inference_session)
        self._send_prompts(inference_session, annotation, None)
        if start_frame_idx is None:
            start_frame_idx = min(frame for _, frame in inference_session.prompts)
        direction: Direction = "backward" if reverse else "forward"
        for result in annotation.propagate(start_frame_idx, max_frame_num_to_track, direction):
            yield _output(inference_session, result.objects, result.frame_index)

    def _annotation(self, session: Sam2VideoInferenceSession) -> Annotation:
        if session.connection.annotation is None:
            assert session.video is not None
            session.connection.annotation = self.client.annotate(
                session.video, model=self.requested_name, return_logits=True, edges="none", window=1
            )
        return session.connection.annotation

    def _send_prompts(
        self, session: Sam2VideoInferenceSession, annotation: Annotation, frame_idx: int | None
    ) -> dict[int, ObjectResult]:
        """Send the prompts that wait, on one frame or on all; the answers by the object's id on the server."""
        answers = {}
        for prompt, given in session.waiting(frame_idx):
            if given.replaces:
                # transformers begins anew with all points, and does not refine the mask that it had.
                annotation.clear_prompts(prompt.object_id, prompt.frame_index)
            answers[prompt.object_id] = annotation.prompt(prompt).object
            given.is_sent = True
        return answers

    def _stream(
        self, session: Sam2VideoInferenceSession, frame: Any, frame_idx: int | None
    ) -> Sam2VideoSegmentationOutput:
        if frame_idx not in (None, session.streamed):
            raise ValueError(f"frame_idx is {frame_idx}, must be {session.streamed}: frames come in order")
        late = [prompt.frame_index for prompt, _ in session.waiting() if prompt.frame_index < session.streamed]
        if late:
            raise ValueError(f"frame {late[0]} has come already; prompt frame {session.streamed}, or one after it")
        live = session.connection.live
        if live is None:
            live = session.connection.live = self.client.live(
                model=self.requested_name, delivery="lossless", window=1, return_logits=True, edges="none"
            )
        for prompt, given in session.waiting(session.streamed):
            live.prompt(prompt, frame_index=session.streamed)
            given.is_sent = True
        live.send(_pixels(frame))
        result = next(live)
        session.streamed += 1
        return _output(session, result.objects, result.frame_index)


def _output(
    session: Sam2VideoInferenceSession, results: Mapping[int, ObjectResult], frame_idx: int
) -> Sam2VideoSegmentationOutput:
    import torch

    known = {obj_id: results[wire_id] for obj_id, wire_id in session.wire_ids.items() if wire_id in results}
    return Sam2VideoSegmentationOutput(
        object_ids=list(known),
        pred_masks=torch.from_numpy(np.stack([logits_of(result) for result in known.values()]))[:, None],
        object_score_logits=torch.tensor([[result.object_score] for result in known.values()]),
        frame_idx=frame_idx,
    )


def _pixels(frame: Any) -> Any:
    """A frame as `masklet.Client` takes it."""
    if isinstance(frame, Picture):
        return frame.pixels
    if hasattr(frame, "detach"):
        frame = array_of(frame)
        if frame.dtype != np.uint8:
            raise TypeError(
                f"the frame is a tensor of {frame.dtype}; give pictures of uint8, or the pixel_values of a processor "
                "of masklet.compat.transformers"
            )
        return np.ascontiguousarray(np.moveaxis(frame, 0, -1)) if frame.shape[0] == 3 else frame
    return frame


def _check_count(name: str, count: int, ids: int) -> None:
    if count != ids:
        raise ValueError(f"Number of object ids ({ids}) does not match number of {name} ({count})")


def _without_leading_ones(mask: Any) -> Any:
    pixels = array_of(mask)
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    return pixels


def _added(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The points of both, with the box of the first."""
    names = ("point_coords", "point_labels")
    together = {name: [part[name] for part in (before, after) if name in part] for name in names}
    joined = {name: np.concatenate(parts) for name, parts in together.items() if parts}
    return {**({"box": before["box"]} if "box" in before else {}), **joined}
