"""Both sides of a comparison: Meta's predictor and masklet's engine, driven by the same calls on the same frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
import numpy.typing as npt
import torch
from sam2 import sam2_video_predictor as upstream
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from torch import Tensor

from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.network.network import PIXEL_MEAN, PIXEL_STD, Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.step import Step, apply_prompt, consolidate_prompts, track
from masklet_server.session.on_request.frame_range import frame_range
from masklet_server.video.worker.pixels import FrameResizer

EXAMPLE = Path(__file__).parent.parent / "examples" / "bunny.mp4"
EXAMPLE_CLICK = (360.0, 480.0)

# (frame index, object id) -> logits ``float32[H, W]``
Masks = dict[tuple[int, int], Tensor]


def read_frames(video: Path, size: int, num_frames: int) -> tuple[npt.NDArray[np.uint8], int, int]:
    """The first frames of a video as the server makes them, and its height and width; a short video runs to and fro.

    Returns:
        ``uint8[T, S, S, 3]``, rows, columns.
    """
    resizer = FrameResizer(size)
    with av.open(str(video)) as container:
        decoded = [frame for frame, _ in zip(container.decode(video=0), range(num_frames), strict=False)]
    height, width = decoded[0].height, decoded[0].width
    frames = [np.frombuffer(resizer.pixels(frame), np.uint8).reshape(size, size, 3) for frame in decoded]
    there_and_back = frames + frames[-2:0:-1]
    return np.stack([there_and_back[i % len(there_and_back)] for i in range(num_frames)]), height, width


def normalized(frames: npt.NDArray[np.uint8]) -> Tensor:
    """``float32[T, 3, S, S]`` from ``uint8[T, S, S, 3]``, as both sides' image encoders take it."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)


class Reference:
    """Meta's predictor.

    Args:
        predictor: From `masklet_server.models.build.build_reference`.
        frames: ``float32[T, 3, S, S]``, normalised.
        height: Rows of the video as shown.
        width: Columns of the video as shown.
    """

    def __init__(self, predictor: upstream.SAM2VideoPredictor, frames: Tensor, height: int, width: int) -> None:
        self.predictor = predictor
        with mock.patch.object(upstream, "load_video_frames", return_value=(frames, height, width)):
            self.state: dict[str, Any] = predictor.init_state("")

    @torch.inference_mode()
    def features(self) -> list[Features]:
        """What the predictor's image encoder makes of every frame."""
        levels = [self.predictor.forward_image(frame[None])["backbone_fpn"] for frame in self.state["images"]]
        return [Features(top[0], (fine0[0], fine1[0])) for fine0, fine1, top in levels]

    def prompt(self, prompt: Prompt) -> Tensor:
        """Logits ``float32[H, W]`` of the object on the prompt's frame."""
        if prompt.mask is not None:
            _, ids, masks = self.predictor.add_new_mask(self.state, prompt.frame_index, prompt.object_id, prompt.mask)
        else:
            _, ids, masks = self.predictor.add_new_points_or_box(
                self.state,
                prompt.frame_index,
                prompt.object_id,
                points=prompt.point_coords,
                labels=prompt.point_labels,
                box=prompt.box,
                clear_old_points=not prompt.keep_old_points,
            )
        logits: Tensor = masks[ids.index(prompt.object_id), 0]
        return logits

    def propagate(self, start: int, stop: int) -> Masks:
        """Logits of every object on frames start to stop - 1."""
        found: Masks = {}
        frames = self.predictor.propagate_in_video(self.state, start, max_frame_num_to_track=stop - start - 1)
        for frame_index, ids, masks in frames:
            found.update({(frame_index, i): masks[row, 0].clone() for row, i in enumerate(ids)})
        return found

    def propagate_on_request(self, start: int | None, max_frames: int | None, *, reverse: bool) -> Masks:
        """Logits of every object on the frames of `propagate_in_video`, in their order."""
        found: Masks = {}
        for frame_index, ids, masks in self.predictor.propagate_in_video(self.state, start, max_frames, reverse):
            found.update({(frame_index, i): masks[row, 0].clone() for row, i in enumerate(ids)})
        return found

    def clear(self, object_id: int, frame_index: int) -> Tensor:
        """Logits ``float32[H, W]`` of what is left of the object on the frame once its prompts there are cleared."""
        _, ids, masks = self.predictor.clear_all_prompts_in_frame(self.state, frame_index, object_id)
        logits: Tensor = masks[ids.index(object_id), 0]
        return logits

    def remove(self, object_id: int) -> None:
        """Stop tracking the object."""
        self.predictor.remove_object(self.state, object_id, strict=True)

    def reset(self) -> None:
        """Forget all objects."""
        self.predictor.reset_state(self.state)


class Ours:
    """The engine's step, one object at a time, and the features of every frame, so that frames can be corrected.

    Args:
        network: The model.
        frames: ``float32[T, 3, S, S]``, normalised.
        height: Rows of the video as shown.
        width: Columns of the video as shown.
        correction_window: Of each object's bank.
    """

    def __init__(
        self, network: Network, frames: Tensor, height: int, width: int, *, correction_window: int = 0
    ) -> None:
        self.network = network
        self.height, self.width = height, width
        self.correction_window = correction_window
        self.clip_length = len(frames) if len(frames) < 16 else None
        with torch.inference_mode():
            self.features: list[Features] = [network.encode_normalized(frame[None])[0] for frame in frames]
        self.banks: dict[int, MemoryBank] = {}

    def prompt(self, prompt: Prompt) -> Tensor:
        """Logits ``float32[H, W]`` of the object on the prompt's frame."""
        self.banks.setdefault(prompt.object_id, self._new_bank())
        step = self._step(prompt.object_id, prompt.frame_index)
        return self._shown(apply_prompt(self.network, step, prompt, height=self.height, width=self.width).logits)

    def propagate(self, start: int, stop: int) -> Masks:
        """Logits of every object on frames start to stop - 1; frames that were tracked before are tracked again."""
        found: Masks = {}
        for bank in self.banks.values():
            if bank.was_tracked(start):
                bank.rewind(start - 1)
        for frame_index in range(start, stop):
            for object_id in self.banks:
                (memory,) = track(self.network, [self._step(object_id, frame_index)])
                found[frame_index, object_id] = self._shown(memory.logits)
        return found

    def remove(self, object_id: int) -> None:
        """Stop tracking the object."""
        del self.banks[object_id]

    def _new_bank(self) -> MemoryBank:
        return MemoryBank(correction_window=self.correction_window, recent_memories=self.network.recent_memories)

    def _step(self, object_id: int, frame_index: int) -> Step:
        return Step(self.banks[object_id], self.features[frame_index], frame_index, self.clip_length)

    def _shown(self, logits: Tensor | None) -> Tensor:
        assert logits is not None
        return self.network.resize(logits[None], self.height, self.width)[0, 0]


class OursOnRequest:
    """The engine's step with histories: any frame, in either direction, as often as wanted; see `Ours`.

    Args:
        network: The model.
        features: Of every frame.
        height: Rows of the video as shown.
        width: Columns of the video as shown.
    """

    def __init__(self, network: Network, features: list[Features], height: int, width: int) -> None:
        self.network = network
        self.features = features
        self.height, self.width = height, width
        self.clip_length = len(features) if len(features) < 16 else None
        self.tensor_file = TensorFile(max_bytes=8 * 1024**3)
        self.histories: dict[int, History] = {}

    def prompt(self, prompt: Prompt) -> Tensor:
        """Logits ``float32[H, W]`` of the object on the prompt's frame."""
        history = self.histories.setdefault(
            prompt.object_id, History("", self.tensor_file, self.network.recent_memories)
        )
        step = self._step(history, prompt.frame_index)
        return self._shown(apply_prompt(self.network, step, prompt, height=self.height, width=self.width).logits)

    def propagate_on_request(self, start: int | None, max_frames: int | None, *, reverse: bool) -> Masks:
        """Logits of every object on the frames of `propagate_in_video`, in their order."""
        for history in self.histories.values():
            consolidate_prompts(self.network, history)
        if start is None:
            start = min(i for history in self.histories.values() for i in history.conditioning_frames)
        found: Masks = {}
        for frame_index in frame_range(start, max_frames, reverse=reverse):
            if frame_index >= len(self.features):
                break
            steps = [self._step(history, frame_index, reverse=reverse) for history in self.histories.values()]
            for object_id, step in zip(self.histories, steps, strict=True):
                (memory,) = track(self.network, [step])  # alone, as upstream
                found[frame_index, object_id] = self._shown(memory.logits)
        return found

    def clear(self, object_id: int, frame_index: int) -> Tensor:
        """Logits ``float32[H, W]`` of what is left of the object on the frame once its prompts there are cleared."""
        history = self.histories[object_id]
        history.clear_prompts(frame_index)
        left = history.outcome(frame_index)
        return torch.full((self.height, self.width), NO_OBJ_SCORE) if left is None else self._shown(left.logits)

    def remove(self, object_id: int) -> None:
        """Stop tracking the object."""
        del self.histories[object_id]

    def reset(self) -> None:
        """Forget all objects."""
        self.histories.clear()

    def _step(self, history: History, frame_index: int, *, reverse: bool = False) -> Step:
        return Step(history, self.features[frame_index], frame_index, self.clip_length, reverse)

    def _shown(self, logits: Tensor | None) -> Tensor:
        assert logits is not None
        return self.network.resize(logits[None], self.height, self.width)[0, 0]
