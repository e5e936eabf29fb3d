"""A picture that a program has set, and what the server's model makes of prompts for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet._media.pictures import PictureLike, load_rgb
from masklet._protocol.pictures import check_pixels
from masklet._protocol.segmentation import ImageId, Segmentation
from masklet.compat._models.model import SAM2Model
from masklet.errors import NotFound

Prompts = dict[str, npt.NDArray[np.float32]]
"""The given ones of ``point_coords[B, N, 2]``, ``point_labels[B, N]``, ``box[B, 4]``, ``mask_input[B, 1, h, w]``."""


@dataclass(frozen=True)
class Candidates:
    """The C candidates for each of B prompts, in the decoder's own order.

    Attributes:
        scores: ``float32[B, C]``.
        logits: ``float32[B, C, h, w]``, of low resolution, as the model gives them.
        segmentation: The server's answer.
        order: ``int64[B, C]``, the place of each candidate in the answer.
    """

    scores: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    segmentation: Segmentation
    order: npt.NDArray[np.int64]

    @classmethod
    def of(cls, segmentation: Segmentation) -> Candidates:
        """The candidates of an answer that has logits."""
        count = len(segmentation.rles)
        assert segmentation.logits is not None
        order = np.argsort(segmentation.output_indices.reshape(count, -1), axis=1)
        rows = np.arange(count)[:, None]
        scores = segmentation.scores.reshape(count, -1)[rows, order]
        logits = segmentation.logits.reshape(count, -1, *segmentation.logits.shape[-2:])[rows, order]
        return cls(scores, logits, segmentation, order)

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """``bool[B, C, H, W]``: where the logits, resized to the picture, are above 0."""
        count, height, width = len(self.order), self.segmentation.height, self.segmentation.width
        masks: npt.NDArray[np.bool_] = self.segmentation.masks.reshape(count, -1, height, width)
        return masks[np.arange(count)[:, None], self.order]


class PictureOnServer:
    """A picture that is sent with the first prompts, and only named with later ones while the server holds it.

    Args:
        source: The picture. An array is copied, because the caller may change it.
        model: The model that segments it.
    """

    def __init__(self, source: PictureLike, model: SAM2Model) -> None:
        # Kept, because the server may drop the picture.
        self._source = check_pixels(source).copy() if isinstance(source, np.ndarray) else source
        self._model = model
        self._image_id: ImageId | None = None
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if self._size is None:
            shape = (self._source if isinstance(self._source, np.ndarray) else load_rgb(self._source)).shape
            self._size = shape[0], shape[1]
        return self._size

    def ask(self, prompts: Prompts, *, multimask: bool) -> Iterator[Candidates]:
        """Ask for the candidates of all prompts, in as many requests as the server's limits need.

        Args:
            prompts: At least one.
            multimask: Three candidates for each prompt, not one.

        Yields:
            The candidates of the next prompts.
        """
        count = max(map(len, prompts.values()), default=1)
        at_once = count if count == 1 else self._prompts_at_once(3 if multimask else 1)
        for first in range(0, count, at_once):
            some = {name: batch[first : first + at_once] for name, batch in prompts.items()}
            yield Candidates.of(self._segment(some, multimask))

    def _segment(self, prompts: Mapping[str, Any], multimask: bool) -> Segmentation:
        options: dict[str, Any] = {
            **prompts,
            "model": self._model.requested_name,
            "multimask_output": multimask,
            "return_logits": True,
            "edges": "none",
        }
        if self._image_id is not None:
            try:
                return self._model.client.segment(self._image_id, **options)
            except NotFound:
                self._image_id = None  # the server does not hold it any more
        found = self._model.client.segment(self._source, **options)
        self._image_id = found.image_id
        return found

    def _prompts_at_once(self, candidates: int) -> int:
        """How many prompts one request may have, so that the server takes them and the logits fit into a message."""
        limits = self._model.server_info.limits
        logits_bytes = 4 * (self._model.image_size // 4) ** 2
        return max(1, min(limits.max_objects, limits.max_message_bytes * 3 // 4 // (candidates * logits_bytes)))
