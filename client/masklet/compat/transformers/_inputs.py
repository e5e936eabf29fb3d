"""What processors make of pictures and prompts, and what they make of a model's masks."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from masklet._media.pictures import load_rgb
from masklet.compat._images.pictures import PictureOnServer
from masklet.compat._models.model import SAM2Model

if TYPE_CHECKING:
    import torch

_Self = TypeVar("_Self")

PADDING = -10
"""The label of a point that is none: it makes the lists of several objects equally long."""


class Picture:
    """One picture of `Pictures`, in place of its pixels as a tensor.

    Args:
        pixels: ``uint8[H, W, 3]``.

    Attributes:
        pixels: As above.
        on_servers: What `on_server` has made of it.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.on_servers: dict[SAM2Model, PictureOnServer] = {}

    def to(self: _Self, *args: Any, **kwargs: Any) -> _Self:
        """Return the picture itself: it goes to the server with the first prompt."""
        return self


def on_server(picture: Picture, model: SAM2Model) -> PictureOnServer:
    """A picture as a model's server has it; always the same, so that it is sent once."""
    if model not in picture.on_servers:
        picture.on_servers[model] = PictureOnServer(picture.pixels, model)
    return picture.on_servers[model]


class Pictures(Sequence[Picture]):
    """The pictures of a call, in place of ``pixel_values`` and ``image_embeddings``: the model is on a server.

    Args:
        pictures: At least one.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._pictures = list(pictures)

    def __getitem__(self, index: Any) -> Any:
        found = self._pictures[index]
        return Pictures(found) if isinstance(found, list) else found

    def __len__(self) -> int:
        return len(self._pictures)

    def to(self: _Self, *args: Any, **kwargs: Any) -> _Self:
        """Return the pictures themselves: they go to the server with the first prompt."""
        return self


class ModelInputs(UserDict[str, Any]):
    """What a processor returns: ``pixel_values``, ``original_sizes`` and the prompts, as items and as attributes.

    Points and boxes are in pixels of the picture; those of transformers are in pixels of what the model sees.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(f"the inputs have no {name!r}, but {', '.join(self)}") from None

    def to(self: _Self, *args: Any, **kwargs: Any) -> _Self:
        """Return the inputs themselves: the model is on a server."""
        return self


class Processor:
    """What both processors do: inputs out of pictures and prompts, and masks at the size of the picture."""

    @classmethod
    def from_pretrained(cls: type[_Self], model_id: str, **kwargs: Any) -> _Self:
        """A processor; nothing is loaded.

        Args:
            model_id: Changes nothing.
            kwargs: Change nothing.
        """
        del model_id, kwargs
        return cls()

    def __call__(
        self,
        images: Any = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        original_sizes: Any = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> ModelInputs:
        """Inputs for a model.

        Args:
            images: A picture as for `masklet.Client.segment`, or a list of them.
            input_points: ``[image][object][point][2]``, x and y in pixels.
            input_labels: ``[image][object][point]``, 1 for foreground and 0 for background.
            input_boxes: ``[image][object][4]``, x0, y0, x1, y1 in pixels.
            original_sizes: ``[image][2]``, height and width, where there are no `images`.
            return_tensors: Changes nothing: tensors are returned.
            kwargs: Change nothing.

        Raises:
            ValueError: There is neither a picture nor a size, or a prompt has the wrong number of dimensions.
        """
        import torch

        del return_tensors, kwargs
        inputs = ModelInputs()
        if images is not None:
            pictures = [Picture(load_rgb(image).copy()) for image in _as_list(images)]
            inputs["pixel_values"] = Pictures(pictures)
            original_sizes = [picture.pixels.shape[:2] for picture in pictures]
        elif original_sizes is None:
            raise ValueError("Either images or original_sizes must be provided")
        inputs["original_sizes"] = torch.as_tensor(original_sizes)
        if input_points is not None:
            inputs["input_points"] = _tensor("points", input_points, depth=4, fill=float(PADDING))
        if input_labels is not None:
            inputs["input_labels"] = _tensor("labels", input_labels, depth=3, fill=float(PADDING)).long()
        if input_boxes is not None:
            inputs["input_boxes"] = _tensor("boxes", input_boxes, depth=3, fill=None)
        if (
            input_points is not None
            and input_labels is not None
            and inputs["input_points"].shape[:3] != inputs["input_labels"].shape
        ):
            raise ValueError(
                "Input points and labels have inconsistent dimensions. Please ensure they have the same dimensions."
            )
        return inputs

    def post_process_masks(
        self,
        masks: Any,
        original_sizes: Any,
        mask_threshold: float = 0.0,
        binarize: bool = True,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        apply_non_overlapping_constraints: bool = False,
        **kwargs: Any,
    ) -> list[torch.Tensor]:
        """A model's masks at the size of the picture.

        Args:
            masks: For each picture ``float32[N, C, h, w]``.
            original_sizes: ``[image][2]``, height and width.
            mask_threshold: Pixels whose logits are above it are foreground.
            binarize: False: return logits.
            max_hole_area: Changes nothing, as in transformers.
            max_sprinkle_area: Changes nothing, as in transformers.
            apply_non_overlapping_constraints: Of N masks, a pixel belongs to the one with the highest logit alone.
            kwargs: Change nothing.

        Returns:
            For each picture ``bool[N, C, H, W]``, or ``float32``.
        """
        import torch
        import torch.nn.functional as F

        del max_hole_area, max_sprinkle_area, kwargs
        found = []
        for low, (height, width) in zip(masks, torch.as_tensor(original_sizes).tolist(), strict=False):
            logits = torch.as_tensor(low)
            full = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            if apply_non_overlapping_constraints and len(full) > 1:
                highest = full.argmax(dim=0, keepdim=True)
                own = torch.arange(len(full), device=full.device).view(-1, 1, 1, 1)
                full = torch.where(highest == own, full, full.clamp(max=-10.0))
            found.append(full > mask_threshold if binarize else full)
        return found


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, (list, tuple)):
        return list(images)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    return [images]


def _tensor(name: str, values: Any, *, depth: int, fill: float | None) -> torch.Tensor:
    """Nested lists as a tensor; shorter ones are filled up.

    Raises:
        ValueError: The lists are not nested `depth` times; or they differ in length, and `fill` is None.
    """
    import torch

    nested = _lists(values)
    shape = _shape(nested)
    if len(shape) != depth:
        raise ValueError(f"Input {name} must be a nested list with {depth} levels, not {len(shape)}")
    padded = np.full(shape, np.nan if fill is None else fill, np.float32)
    _fill(padded, nested)
    if np.isnan(padded).any():
        raise ValueError(f"Input {name} have inconsistent dimensions; give every image the same number of them")
    return torch.from_numpy(padded)


def _lists(values: Any) -> Any:
    if hasattr(values, "tolist"):
        return values.tolist()
    return [_lists(value) for value in values] if isinstance(values, (list, tuple)) else values


def _shape(nested: Any) -> list[int]:
    if not isinstance(nested, list):
        return []
    shapes = [_shape(item) for item in nested]
    longest = max(map(len, shapes), default=0)
    padded = [shape + [0] * (longest - len(shape)) for shape in shapes]
    return [len(nested), *(max(sizes) for sizes in zip(*padded, strict=True))]


def _fill(array: npt.NDArray[np.float32], nested: list[Any]) -> None:
    for index, item in enumerate(nested):
        if isinstance(item, list):
            _fill(array[index], item)
        else:
            array[index] = item
