"""transformers' ``Sam2Model`` and ``Sam2Processor``, computed by a masklet server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from masklet.compat._images.pictures import PictureOnServer, Prompts
from masklet.compat._models.locate import locate_repository
from masklet.compat._models.model import SAM2Model
from masklet.compat.transformers._inputs import PADDING, Pictures, Processor, on_server

if TYPE_CHECKING:
    import torch

_Self = TypeVar("_Self", bound="PretrainedModel")
_Array = npt.NDArray[np.float32]

# sam2's NO_OBJ_SCORE, for the masks of a place that was only filled up.
_NO_OBJECT = -1024.0


class PretrainedModel(SAM2Model):
    """A model on a masklet server, as transformers makes its own: `from_pretrained`, then calls."""

    @classmethod
    def from_pretrained(cls: type[_Self], model_id: str, **kwargs: Any) -> _Self:
        """The model of a repository, on the server of MASKLET_SERVER or one in this process.

        Args:
            model_id: Such as "facebook/sam2.1-hiera-large"; or the name of a model here.
            kwargs: Change nothing; one warning names them.

        Raises:
            masklet.NotFound: The server does not have the model.
            masklet.MaskletError: The server cannot be reached or started.
        """
        return cls(*locate_repository(model_id, kwargs))

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the results: always ``torch.float32``."""
        import torch

        return torch.float32


@dataclass
class Sam2ImageSegmentationOutput:
    """The masks of P prompts for each of B pictures, with C candidates each.

    Attributes:
        iou_scores: ``float32[B, P, C]``.
        pred_masks: Low-resolution logits ``float32[B, P, C, h, w]``.
        image_embeddings: The pictures, for `Sam2Model` once more: they are encoded already.
    """

    iou_scores: torch.Tensor
    pred_masks: torch.Tensor
    image_embeddings: Pictures


class Sam2Processor(Processor):
    """transformers' ``Sam2Processor``: inputs for `Sam2Model`, and masks at the size of the picture."""


class Sam2Model(PretrainedModel):
    """transformers' ``Sam2Model``, computed by a masklet server.

    What differs: every picture needs a prompt; labels are 1, 0 and -10 (no point); `image_embeddings` are not numbers,
    but name the pictures on the server.
    """

    def get_image_embeddings(self, pixel_values: Pictures, **kwargs: Any) -> Pictures:
        """Return the pictures themselves, as `image_embeddings` of a later call: the server keeps what it has encoded.

        Args:
            pixel_values: Those of a processor's inputs.
            kwargs: Change nothing.
        """
        del kwargs
        return pixel_values

    def __call__(
        self,
        pixel_values: Pictures | None = None,
        input_points: torch.Tensor | None = None,
        input_labels: torch.Tensor | None = None,
        input_boxes: torch.Tensor | None = None,
        input_masks: torch.Tensor | None = None,
        image_embeddings: Pictures | None = None,
        multimask_output: bool = True,
        **kwargs: Any,
    ) -> Sam2ImageSegmentationOutput:
        """Segment pictures.

        Args:
            pixel_values: Those of a processor's inputs.
            input_points: ``float32[B, P, N, 2]``, as a processor returns them.
            input_labels: ``int64[B, P, N]``; None: all points are foreground.
            input_boxes: ``float32[B, P, 4]``.
            input_masks: ``float32[B, P, h, w]``, logits of an earlier call.
            image_embeddings: In place of `pixel_values`: those of an earlier call.
            multimask_output: Three candidates for each prompt, in the decoder's own order; False: one.
            kwargs: Change nothing.

        Raises:
            ValueError: There is not exactly one of `pixel_values` and `image_embeddings`.
            masklet.InvalidArgument: A picture has no prompt.
        """
        import torch

        del kwargs
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("Exactly one of pixel_values or image_embeddings must be provided.")
        pictures = pixel_values if pixel_values is not None else image_embeddings
        if not isinstance(pictures, Pictures):
            raise TypeError(
                f"pixel_values is a {type(pictures).__qualname__}, must come from a processor of "
                "masklet.compat.transformers: the picture itself goes to the server"
            )
        given = _Given(input_points, input_labels, input_boxes, input_masks)
        found = [
            self._segment(on_server(picture, self), given.of_picture(index), multimask=multimask_output)
            for index, picture in enumerate(pictures)
        ]
        return Sam2ImageSegmentationOutput(
            torch.from_numpy(np.stack([scores for scores, _ in found])),
            torch.from_numpy(np.stack([logits for _, logits in found])),
            pictures,
        )

    def _segment(
        self, picture: PictureOnServer, prompts: list[Prompts | None], *, multimask: bool
    ) -> tuple[_Array, _Array]:
        """Scores ``float32[P, C]`` and logits ``float32[P, C, h, w]`` of one picture."""
        count, side = 3 if multimask else 1, self.image_size // 4
        scores = np.zeros((len(prompts), count), np.float32)
        logits = np.full((len(prompts), count, side, side), _NO_OBJECT, np.float32)
        alike: dict[tuple[Any, ...], list[int]] = {}
        for place, prompt in enumerate(prompts):
            if prompt is not None:
                alike.setdefault(tuple((name, part.shape) for name, part in prompt.items()), []).append(place)
        for places in alike.values():
            together = [prompt for place in places if (prompt := prompts[place]) is not None]
            batch = {name: np.concatenate([prompt[name] for prompt in together]) for name in together[0]}
            answers = list(picture.ask(batch, multimask=multimask))
            scores[places] = np.concatenate([answer.scores for answer in answers])
            logits[places] = np.concatenate([answer.logits for answer in answers])
        return scores, logits


@dataclass(frozen=True)
class _Given:
    """The prompts of a call, as tensors."""

    points: Any
    labels: Any
    boxes: Any
    masks: Any

    def of_picture(self, index: int) -> list[Prompts | None]:
        """The P prompts of a picture, each as a batch of one; None for a place that was only filled up."""
        points, labels, boxes, masks = (
            None if values is None else np.asarray(values[index].cpu(), np.float32)
            for values in (self.points, self.labels, self.boxes, self.masks)
        )
        count = max((len(values) for values in (points, boxes) if values is not None), default=1)
        found: list[Prompts | None] = []
        for place in range(count):
            prompt: Prompts = {}
            if points is not None:
                marks = np.ones(points.shape[1], np.float32) if labels is None else labels[place]
                is_point = marks != PADDING
                if is_point.any():
                    prompt["point_coords"] = points[None, place, is_point]
                    prompt["point_labels"] = marks[None, is_point]
            if boxes is not None:
                prompt["box"] = boxes[None, place]
            if masks is not None and (prompt or not found):
                prompt["mask_input"] = masks[None, min(place, len(masks) - 1)][None]
            is_filled_up = not prompt and points is not None
            found.append(None if is_filled_up else prompt)
        return found
