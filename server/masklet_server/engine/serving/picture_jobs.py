"""Jobs for single pictures, and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument
from masklet.prompts import check_box, check_mask, check_points, check_within
from masklet_server.masks.edges import Edges
from masklet_server.masks.runs import Runs


@dataclass(frozen=True, eq=False)
class PicturePrompt:
    """Points, a box, both, or a mask, for a single picture. Logits of an earlier answer may go with points and a box.

    Attributes:
        point_coords: ``float32[N, 2]`` or None.
        point_labels: ``int32[N]``, 1 or 0, or None.
        box: ``float32[4]``, x0, y0, x1, y1, or None.
        mask: ``bool[H, W]`` at the picture's size, or None.
        mask_input: ``float32[h, w]`` low-resolution logits, h and w being the model's `logits_size`, or None; the
            model sees them clamped to +-32.

    Raises:
        InvalidArgument: A value is out of range or of the wrong shape; `violations` names the field.
    """

    point_coords: npt.NDArray[np.float32] | None = None
    point_labels: npt.NDArray[np.int32] | None = None
    box: npt.NDArray[np.float32] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    mask_input: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        coords, labels = check_points(self.point_coords, self.point_labels)
        object.__setattr__(self, "point_coords", coords)
        object.__setattr__(self, "point_labels", labels)
        object.__setattr__(self, "box", check_box(self.box))
        object.__setattr__(self, "mask", check_mask(self.mask))
        if self.mask is not None and self.mask_input is not None:
            raise InvalidArgument.of("mask_input", "cannot go with mask; give one of the two")
        if self.mask_input is not None and (self.mask_input.ndim != 2 or not np.isfinite(self.mask_input).all()):
            raise InvalidArgument.of("mask_input", "must be finite logits of shape [h, w]")
        if all(part is None for part in (coords, self.box, self.mask, self.mask_input)):
            raise InvalidArgument.of("points", "the prompt is empty; give at least one point, a box or a mask")

    def check_size(self, height: int, width: int) -> None:
        """Check the prompt against the picture's size.

        Raises:
            InvalidArgument: A point or the box lies outside the picture, or the mask has another size.
        """
        check_within(height, width, point_coords=self.point_coords, box=self.box, mask=self.mask)


@dataclass(frozen=True, eq=False)
class PictureJob:
    """Segment one picture.

    Attributes:
        model: Name of a loaded model.
        stream: Identifies the caller; the scheduler is fair between callers.
        picture: ``uint8[H, W, 3]`` RGB at full size, or the `image_id` of an earlier answer, whose features are used
            again.
        prompts: At least one.
        multimask_output: Give three candidates for each prompt instead of one.
        edges: How the edges of masks are drawn.
    """

    model: str
    stream: str
    picture: npt.NDArray[np.uint8] | str
    prompts: Sequence[PicturePrompt]
    multimask_output: bool = False
    edges: Edges = Edges.NONE


@dataclass(frozen=True, eq=False)
class Candidate:
    """One mask for a `PicturePrompt`.

    Attributes:
        runs: The mask as run-lengths.
        predicted_iou: The model's own estimate of the mask's quality, 0 to 1.
        logits: ``float32[h, w]``, from which the mask was made.
        output_index: Index of the mask among the decoder's outputs.
    """

    runs: Runs
    predicted_iou: float
    logits: npt.NDArray[np.float32]
    output_index: int = 0

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``bool[H, W]``, painted on each access."""
        return self.runs.mask


@dataclass(frozen=True, eq=False)
class PictureOutput:
    """The answer to a `PictureJob`.

    Attributes:
        image_id: Name of the picture's features, valid while the engine's cache holds them.
        height: Rows of the picture.
        width: Columns of the picture.
        results: The candidates for each prompt, best first.
    """

    image_id: str
    height: int
    width: int
    results: Sequence[Sequence[Candidate]] = field(default_factory=list)
