"""``sam2.sam2_camera_predictor`` of segment-anything-2-real-time, the public fork for cameras, on a masklet server."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from masklet._media.pictures import load_rgb
from masklet._sync.annotation import Annotation
from masklet._sync.client import Client
from masklet._sync.live import Live
from masklet.compat._models.model import SAM2Model
from masklet.compat._videos.prompts import Clicks, click_arguments, mask_arguments
from masklet.compat._videos.state import Logits, logits_of
from masklet.errors import MaskletError
from masklet.prompts import Prompt

if TYPE_CHECKING:
    import torch

_Answer = tuple[int, list[Hashable], "torch.Tensor"]


@dataclass(eq=False)
class _ConditioningFrame:
    """A frame that may be prompted, until the next call of `track`.

    Attributes:
        image: Its picture; None once it was tracked.
        size: Its height and width.
        prompts: The prompts on it, in their order.
        shown: What the model makes of them, ``float32[h, w]`` by the object's id on the server.
        preview: A session of this frame alone, which answers the prompts.
    """

    image: Any
    size: tuple[int, int]
    prompts: list[Prompt] = field(default_factory=list)
    shown: dict[int, Logits] = field(default_factory=dict)
    preview: Annotation | None = None

    @classmethod
    def of(cls, image: Any) -> _ConditioningFrame:
        """A frame with its own copy of the picture, which the caller may change."""
        pixels = load_rgb(image)
        return cls(pixels.copy(), (pixels.shape[0], pixels.shape[1]))

    def close(self) -> None:
        """Forget the picture and end the session."""
        self.image = None
        if self.preview is not None:
            self.preview.close()
            self.preview = None


class SAM2CameraPredictor(SAM2Model):
    """The predictor for frames that come one by one, with the methods of segment-anything-2-real-time.

        predictor.load_first_frame(frame)
        _, obj_ids, masks = predictor.add_new_prompt(frame_idx=0, obj_id=1, points=[[360, 480]], labels=[1])
        while ...:
            obj_ids, masks = predictor.track(frame)

    Masks are logits ``float32[N, 1, H, W]`` on the CPU, in the order of the object ids. Frames are arrays
    ``uint8[H, W, 3]``, whose channels the model takes as RGB, or Pillow images.

    What differs from the fork: the memory is SAM 2's own, that of `SAM2VideoPredictor`; it does not grow with the
    video, and objects may be added at any time. A session ends after `idle_timeout_seconds` of the server without a
    frame.

    Args:
        server: A client, or a server's address for `masklet.Client`.
        model: A name from `masklet.Client.info`; empty: the server's default.

    Attributes:
        frame_idx: The number of frames that `track` has taken.

    Raises:
        ImportError: torch is not installed.
    """

    frame_idx: int

    def __init__(self, server: Client | str, model: str = "") -> None:
        from masklet.compat import _torch  # noqa: F401 - raises where torch is missing

        super().__init__(server, model)
        self.frame_idx = 0
        self._live: Live | None = None
        self._sent = 0
        self._ids: dict[Hashable, int] = {}
        self._frames: list[_ConditioningFrame] = []
        self._last_image: Any = None
        self._last: _Answer | None = None
        self._refused: list[MaskletError] = []

    def load_first_frame(self, img: Any) -> None:
        """Begin a new video with its first frame; an earlier one is forgotten.

        Args:
            img: ``uint8[H, W, 3]`` or a Pillow image.
        """
        self.reset_state()
        self._frames = [_ConditioningFrame.of(img)]

    def add_conditioning_frame(self, img: Any) -> None:
        """Give another frame that prompts may name, as the last one of ``condition_state["images"]``.

        It becomes part of the video before the next frame of `track` if it is prompted.

        Args:
            img: ``uint8[H, W, 3]`` or a Pillow image.
        """
        self._check_loaded()
        self._frames.append(_ConditioningFrame.of(img))

    def add_new_prompt(
        self,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        bbox: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
    ) -> tuple[int, list[Hashable], torch.Tensor]:
        """Prompt an object on a frame that `track` has not gone past.

        Args:
            frame_idx: The place of the frame among those of `load_first_frame` and `add_conditioning_frame`.
            obj_id: The object's id.
            points: ``[N, 2]``, x and y of each click, in pixels.
            labels: ``[N]``, 1 for foreground and 0 for background.
            bbox: ``[4]`` or ``[2, 2]``, x0, y0, x1, y1 in pixels.
            clear_old_points: False: add the points to those given before on this frame.
            normalize_coords: False: coordinates are fractions of the frame's width and height, 0 to 1.

        Returns:
            `frame_idx`, the ids of all objects, and their logits there ``float32[N, 1, H, W]``.

        Raises:
            ValueError: The arguments contradict one another.
            RuntimeError: There is no such frame, or it was tracked already.
        """
        frame = self._frame(frame_idx)
        # The fork takes a box alone where both are given.
        clicks = Clicks(points, labels) if bbox is None else Clicks(box=bbox)
        given = click_arguments(
            frame.size, clicks, keep_old_points=not clear_old_points, are_fractions=not normalize_coords
        )
        return frame_idx, *self._prompt(frame, obj_id, given)

    def add_new_points(
        self,
        frame_idx: int,
        obj_id: Hashable,
        points: Any,
        labels: Any,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
    ) -> tuple[int, list[Hashable], torch.Tensor]:
        """Prompt an object with points, as `add_new_prompt` does."""
        return self.add_new_prompt(frame_idx, obj_id, points, labels, None, clear_old_points, normalize_coords)

    def add_new_mask(self, frame_idx: int, obj_id: Hashable, mask: Any) -> tuple[int, list[Hashable], torch.Tensor]:
        """Prompt an object with a mask.

        Args:
            frame_idx: As for `add_new_prompt`.
            obj_id: The object's id.
            mask: ``[H, W]`` at the frame's size; of floats, those from 0.5 on are foreground.
        """
        frame = self._frame(frame_idx)
        return frame_idx, *self._prompt(frame, obj_id, mask_arguments(frame.size, mask))

    def add_new_prompt_during_track(
        self,
        point: Any = None,
        bbox: Any = None,
        mask: Any = None,
        if_new_target: bool = True,
        obj_id: Hashable | None = None,
        labels: Any = None,
        clear_old_points: bool = True,
    ) -> tuple[int, list[Hashable], torch.Tensor]:
        """Prompt an object between two calls of `track`, on the last conditioning frame.

        If none was added since the last call of `track`, the frame of that call becomes one.

        Args:
            point: ``[N, 2]``, x and y of each click, in pixels.
            bbox: ``[4]`` or ``[2, 2]``, x0, y0, x1, y1 in pixels.
            mask: ``[H, W]`` at the frame's size.
            if_new_target: With `obj_id` None: the prompt is for a new object, whose id is the last one and 1.
            obj_id: The object's id; None: a new one, or the last one.
            labels: ``[N]``, 1 for foreground and 0 for background; None: all are foreground.
            clear_old_points: False: add the points to those given before on this frame.

        Returns:
            As `add_new_prompt`.
        """
        self._check_loaded()
        if self._frames[-1].image is None:
            self._frames.append(_ConditioningFrame.of(self._last_image))
        if obj_id is None:
            last: Any = next(reversed(self._ids), 0)
            obj_id = last + 1 if if_new_target else last
        frame_idx = len(self._frames) - 1
        if mask is not None:
            return self.add_new_mask(frame_idx, obj_id, mask)
        if point is not None and labels is None:
            labels = [1] * len(point)
        return self.add_new_prompt(frame_idx, obj_id, point, labels, bbox, clear_old_points)

    def finalize_new_input(self) -> tuple[int, list[Hashable], torch.Tensor]:
        """Return what the last prompt, or the last call of `track`, has returned: prompts need nothing more.

        Raises:
            RuntimeError: There was none.
        """
        if self._last is None:
            raise RuntimeError("No points are provided; please add points first")
        return self._last

    def track(self, img: Any) -> tuple[list[Hashable], torch.Tensor]:
        """Track all objects on the next frame.

        Args:
            img: ``uint8[H, W, 3]`` or a Pillow image.

        Returns:
            The ids of all objects, and their logits ``float32[N, 1, H, W]``.

        Raises:
            RuntimeError: `load_first_frame` was not called, or nothing is prompted.
            masklet.MaskletError: The session has ended.
        """
        self._check_loaded()
        if not self._ids:
            raise RuntimeError("No points are provided; please add points first")
        live = self._live
        if live is None:
            live = self._live = self.client.live(
                model=self.requested_name,
                delivery="lossless",
                window=1,
                return_logits=True,
                edges="none",
                on_error=self._refused.append,
            )
        for frame in self._frames:
            if frame.image is not None and frame.prompts:
                for prompt in frame.prompts:
                    live.prompt(prompt, frame_index=self._sent)
                self._send(live, frame.image)
            frame.close()
        pixels = load_rgb(img)
        shown = self._send(live, pixels)
        self._last_image = pixels.copy()
        self.frame_idx += 1
        answer = list(self._ids), self._masks(shown, (pixels.shape[0], pixels.shape[1]))
        self._last = (self.frame_idx, *answer)
        return answer

    def reset_state(self) -> None:
        """Forget everything; `load_first_frame` begins anew."""
        for frame in self._frames:
            frame.close()
        if self._live is not None:
            self._live.close()
        self.frame_idx, self._sent, self._live, self._last, self._last_image = 0, 0, None, None, None
        self._ids, self._frames, self._refused = {}, [], []

    @property
    def condition_state(self) -> Mapping[str, Any]:
        """Those entries of the fork's dictionary that programs read."""
        if not self._frames:
            return {}
        return {
            "images": [frame.image for frame in self._frames],
            "num_frames": len(self._frames) + self.frame_idx,
            "video_height": self._frames[-1].size[0],
            "video_width": self._frames[-1].size[1],
            "device": self.device,
            "storage_device": self.device,
            "obj_ids": list(self._ids),
            "obj_id_to_idx": {obj_id: index for index, obj_id in enumerate(self._ids)},
            "obj_idx_to_id": dict(enumerate(self._ids)),
            "tracking_has_started": self._live is not None,
        }

    def _check_loaded(self) -> None:
        if not self._frames:
            raise RuntimeError("Please call 'load_first_frame' first to load the first frame.")

    def _frame(self, frame_idx: int) -> _ConditioningFrame:
        """The frame that a prompt names."""
        self._check_loaded()
        if not 0 <= frame_idx < len(self._frames):
            raise RuntimeError(f"there is no frame {frame_idx}; give it first: add_conditioning_frame(...)")
        if self._frames[frame_idx].image is None:
            raise RuntimeError(f"frame {frame_idx} was tracked already; give another one: add_conditioning_frame(...)")
        return self._frames[frame_idx]

    def _prompt(
        self, frame: _ConditioningFrame, obj_id: Hashable, given: dict[str, Any]
    ) -> tuple[list[Hashable], torch.Tensor]:
        if frame.preview is None:
            frame.preview = self.client.annotate(
                [frame.image], model=self.requested_name, return_logits=True, edges="none"
            )
        wire_id = self._ids.get(obj_id) or len(self._ids) + 1
        prompt = Prompt(wire_id, 0, **given)
        frame.shown[wire_id] = logits_of(frame.preview.prompt(prompt).object)
        frame.prompts.append(prompt)
        self._ids[obj_id] = wire_id
        answer = list(self._ids), self._masks(frame.shown, frame.size)
        self._last = (self._frames.index(frame), *answer)
        return answer

    def _send(self, live: Live, image: Any) -> dict[int, Logits]:
        """Send a frame and take its result."""
        live.send(image)
        result = next(live)
        self._sent += 1
        if self._refused:
            refused, self._refused[:] = self._refused[0], []
            raise refused
        return {wire_id: logits_of(found) for wire_id, found in result.objects.items()}

    def _masks(self, shown: Mapping[int, Logits], size: tuple[int, int]) -> torch.Tensor:
        from masklet.compat import _torch

        return _torch.video_masks([shown.get(wire_id) for wire_id in self._ids.values()], *size)
