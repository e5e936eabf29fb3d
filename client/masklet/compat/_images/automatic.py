"""``sam2.automatic_mask_generator``: masks for everything in a picture, computed by a masklet server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from masklet import rle
from masklet._media.pictures import PictureLike, load_rgb
from masklet._sync.client import Client
from masklet.compat._images import crops
from masklet.compat._images.crops import Box
from masklet.compat._images.pictures import PictureOnServer, Prompts
from masklet.compat._images.predictor import SAM2ImagePredictor
from masklet.compat._models.locate import locate_repository, warn
from masklet.compat._models.model import SAM2Model

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
"""The form of a mask: an array, COCO's run-lengths as numbers, or as a string."""


@dataclass(frozen=True)
class _Found:
    """A mask of a crop.

    Attributes:
        mask: ``bool[H, W]`` at the crop's size; at the picture's size once it is `placed`.
        box: Around the mask, within the same frame.
        predicted_iou: The model's own estimate.
        stability_score: See `crops.stability_scores`.
        point: The point that gave the mask.
        crop: The crop.
    """

    mask: npt.NDArray[np.bool_]
    box: Box
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop: Box

    def placed(self, height: int, width: int) -> _Found:
        """The same within the whole picture."""
        left, top, right, bottom = self.crop
        mask = np.zeros((height, width), np.bool_)
        mask[top:bottom, left:right] = self.mask
        x0, y0, x1, y1 = self.box
        box = (x0 + left, y0 + top, x1 + left, y1 + top)
        return replace(self, mask=mask, box=box, point=(self.point[0] + left, self.point[1] + top))


class SAM2AutomaticMaskGenerator:
    """``sam2.automatic_mask_generator.SAM2AutomaticMaskGenerator``, computed by a masklet server.

    A grid of points covers the picture. The model gives masks for each point, and those that are poor, unstable or
    found already are dropped. Needs torch. Every mask's low-resolution logits come over the wire: with SAM 2's own
    models 0.75 MB a point, which takes a fast network.

    Args:
        model: What `masklet.compat.build_sam2` returned, or a video predictor; or a client, or a server's address for
            `masklet.Client`, whose default model is used.
        points_per_side: Points along each side of the picture; None: `point_grids` has them.
        points_per_batch: Points in one request, at most. The server's limits may make it fewer.
        pred_iou_thresh: Masks whose `predicted_iou` is not above it are dropped.
        stability_score_thresh: Masks whose stability score is below it are dropped.
        stability_score_offset: How far the threshold moves up and down for the stability score.
        mask_threshold: Pixels whose logits are above it are foreground.
        box_nms_thresh: Masks of one crop whose boxes overlap more than this with a better one are dropped.
        crop_n_layers: Layers of crops that are searched, too. Layer n has 4**n crops.
        crop_nms_thresh: As `box_nms_thresh`, between crops; a smaller crop is better.
        crop_overlap_ratio: How much crops of the first layer overlap, as a part of the picture's shorter side.
        crop_n_points_downscale_factor: In layer n there are so many times fewer points along a side, to the power of n.
        point_grids: ``[N, 2]``, x and y from 0 to 1, for the picture and for each layer. Excludes `points_per_side`.
        min_mask_region_area: Holes and spots of at most so many pixels of the low-resolution masks are filled and
            removed.
        output_mode: "binary_mask" (``bool[H, W]``), "uncompressed_rle" or "coco_rle".
        use_m2m: Refine every mask once, with itself as `mask_input`.
        multimask_output: Three masks for each point, not one.
        kwargs: Change nothing, as in sam2.

    Attributes:
        predictor: The predictor for pictures.
        point_grids: ``[N, 2]`` for the picture and each layer of crops.

    Raises:
        ValueError: Arguments contradict one another, or `output_mode` is unknown.
    """

    def __init__(
        self,
        model: SAM2Model | Client | str,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[npt.ArrayLike] | None = None,
        min_mask_region_area: int = 0,
        output_mode: OutputMode = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
        **kwargs: Any,
    ) -> None:
        if (points_per_side is None) == (point_grids is None):
            raise ValueError("Exactly one of points_per_side or point_grids must be provided.")
        if output_mode not in get_args(OutputMode):
            raise ValueError(f"output_mode is {output_mode!r}, must be one of {', '.join(get_args(OutputMode))}")
        if kwargs:
            warn(f"SAM2AutomaticMaskGenerator has no arguments {', '.join(kwargs)}; they change nothing")
        self.point_grids: list[npt.NDArray[np.float64]] = (
            crops.point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
            if points_per_side is not None
            else [np.asarray(grid, np.float64) for grid in point_grids or ()]
        )
        if len(self.point_grids) <= crop_n_layers:
            raise ValueError(f"point_grids has {len(self.point_grids)} grids, must have {crop_n_layers + 1}")
        self.predictor = SAM2ImagePredictor(
            model, max_hole_area=min_mask_region_area, max_sprinkle_area=min_mask_region_area
        )
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.mask_threshold = mask_threshold
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """The generator of a model on Hugging Face, on the server of MASKLET_SERVER or one in this process.

        Args:
            model_id: Such as "facebook/sam2.1-hiera-large"; or the name of a model here.
            kwargs: Those of the class, and `device`.
        """
        device = {"device": kwargs.pop("device")} if "device" in kwargs else {}
        return cls(SAM2Model(*locate_repository(model_id, device)), **kwargs)

    def generate(self, image: PictureLike) -> list[dict[str, Any]]:
        """Find masks for everything in a picture.

        Args:
            image: ``uint8[H, W, 3]`` (RGB), a Pillow image, a path, or the bytes of a file.

        Returns:
            For each mask: "segmentation", in the form of `output_mode`; "area" in pixels; "bbox", x, y, width and
            height; "predicted_iou"; "point_coords", ``[1][2]``; "stability_score"; and "crop_box", x, y, width and
            height.
        """
        pixels = load_rgb(image)
        height, width, _ = pixels.shape
        boxes = crops.crop_boxes(height, width, self.crop_n_layers, self.crop_overlap_ratio)
        found = [
            one.placed(height, width)
            for crop, layer in boxes
            for one in self._without_duplicates(list(self._in_crop(pixels, crop, self.point_grids[layer])))
        ]
        if len(boxes) > 1 and found:
            # Prefer masks from smaller crops.
            scores = [1 / ((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in (one.crop for one in found)]
            kept = crops.without_duplicates(
                np.array([one.box for one in found], np.float32), np.array(scores, np.float32), self.crop_nms_thresh
            )
            found = [found[index] for index in kept]
        return [self._record(one) for one in found]

    def _without_duplicates(self, found: list[_Found]) -> list[_Found]:
        if not found:
            return []
        boxes = np.array([one.box for one in found], np.float32)
        scores = np.array([one.predicted_iou for one in found], np.float32)
        return [found[index] for index in crops.without_duplicates(boxes, scores, self.box_nms_thresh)]

    def _in_crop(self, pixels: npt.NDArray[np.uint8], crop: Box, grid: npt.NDArray[np.float64]) -> Iterator[_Found]:
        left, top, right, bottom = crop
        cropped = np.ascontiguousarray(pixels[top:bottom, left:right])
        picture = PictureOnServer(cropped, self.predictor.model)
        points = (grid * [right - left, bottom - top]).astype(np.float32)
        whole = (0, 0, pixels.shape[1], pixels.shape[0])
        for first in range(0, len(points), self.points_per_batch):
            for point, score, logits in self._candidates(picture, points[first : first + self.points_per_batch]):
                if self.pred_iou_thresh > 0 and not score > self.pred_iou_thresh:
                    continue
                (full,) = self.predictor.enlarged(logits[None], bottom - top, right - left)
                (stability,) = crops.stability_scores(full[None], self.mask_threshold, self.stability_score_offset)
                if self.stability_score_thresh > 0 and not stability >= self.stability_score_thresh:
                    continue
                mask = full > self.mask_threshold
                box = x0, y0, x1, y1 = crops.mask_box(mask)
                if not crops.touches_crop((x0 + left, y0 + top, x1 + left, y1 + top), crop, whole):
                    yield _Found(mask, box, float(score), float(stability), (float(point[0]), float(point[1])), crop)

    def _candidates(
        self, picture: PictureOnServer, points: npt.NDArray[np.float32]
    ) -> Iterator[tuple[npt.NDArray[np.float32], np.float32, npt.NDArray[np.float32]]]:
        """Each candidate of each point: the point, its score, and its low-resolution logits ``float32[h, w]``."""
        answers = picture.ask(_clicks(points), multimask=self.multimask_output)
        first = 0
        for answer in answers:
            count, per_point = answer.scores.shape
            some = np.repeat(points[first : first + count], per_point, axis=0)
            scores, logits = answer.scores.reshape(-1), answer.logits.reshape(-1, *answer.logits.shape[-2:])
            first += count
            if self.use_m2m:
                scores, logits = self._refined(picture, some, logits)
            yield from zip(some, scores, logits, strict=True)

    def _refined(
        self, picture: PictureOnServer, points: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Scores and logits of each candidate once more, with itself as a prompt (``refine_with_m2m``)."""
        prompts = {**_clicks(points), "mask_input": logits[:, None].clip(-32, 32)}
        answers = list(picture.ask(prompts, multimask=False))
        return (
            np.concatenate([answer.scores[:, 0] for answer in answers]),
            np.concatenate([answer.logits[:, 0] for answer in answers]),
        )

    def _record(self, found: _Found) -> dict[str, Any]:
        segmentation: Any = found.mask
        if self.output_mode == "uncompressed_rle":
            segmentation = {"size": list(found.mask.shape), "counts": rle.find_runs(found.mask).tolist()}
        elif self.output_mode == "coco_rle":
            segmentation = rle.encode(found.mask)
        return {
            "segmentation": segmentation,
            "area": int(found.mask.sum()),
            "bbox": _as_xywh(found.box),
            "predicted_iou": found.predicted_iou,
            "point_coords": [list(found.point)],
            "stability_score": found.stability_score,
            "crop_box": _as_xywh(found.crop),
        }


def _clicks(points: npt.NDArray[np.float32]) -> Prompts:
    """One foreground click for each prompt."""
    return {"point_coords": points[:, None], "point_labels": np.ones((len(points), 1), np.float32)}


def _as_xywh(box: Box) -> list[float]:
    x0, y0, x1, y1 = box
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
