"""One picture in, masks out, with the names and shapes of SAM 2's image predictor."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet._protocol import wire
from masklet._protocol.options import SegmentOptions, check_names, edges_to_wire
from masklet.errors import InvalidArgument
from masklet.prompts import check_box, check_mask, check_points
from masklet.rle import Rle
from masklet.rle import decode as decode_rle
from masklet.v1 import common_pb2, image_pb2


class ImageId(str):
    """The server's name for a picture that it has encoded and still holds."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Masks of one picture; unpacks as ``masks, scores, logits``.

    N is 3 with `multimask_output`, best first, and 1 without. For a batch of B > 1 prompts, all shapes begin with B, as
    those of ``SAM2ImagePredictor.predict`` do. As there, the answer to a batch of one prompt has no B.

    Attributes:
        rles: For each prompt of the batch, its N masks as run-lengths.
        scores: ``float32[N]``, the model's own estimate of each mask's intersection over union with the truth, 0 to 1.
        logits: ``float32[N, h, w]``, low-resolution logits for `mask_input`; None where they were not asked for.
        image_id: Names the picture in later calls, so that it is not sent and encoded again.
        model: The model that was used.
        height: Rows of the picture.
        width: Columns of the picture.
        output_indices: ``int64[N]``, the place of each mask in SAM 2's own order of candidates.
    """

    rles: tuple[tuple[Rle, ...], ...]
    scores: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32] | None
    image_id: ImageId
    model: str
    height: int
    width: int
    output_indices: npt.NDArray[np.int64]

    @functools.cached_property
    def masks(self) -> npt.NDArray[np.bool_]:
        """``bool[N, H, W]``, or ``bool[B, N, H, W]`` for a batch; decoded on first use."""
        return _unbatched(np.stack([np.stack([decode_rle(rle) for rle in rles]) for rles in self.rles]))

    def __iter__(self) -> Iterator[npt.NDArray[Any] | None]:
        return iter((self.masks, self.scores, self.logits))

    def __repr__(self) -> str:
        shape = [*self.scores.shape, self.height, self.width]
        return (
            f"Segmentation(masks=bool{shape}, scores={np.round(self.scores, 3).tolist()}, image_id={self.image_id!r})"
        )


def segment_request(
    image: common_pb2.Picture | Segmentation | ImageId, options: SegmentOptions
) -> image_pb2.SegmentImageRequest:
    """Check the arguments of `Client.segment` and make its message.

    Args:
        image: The picture, or what names it on the server.
        options: As the caller gave them.

    Raises:
        TypeError: An option is unknown.
        InvalidArgument: An option has a wrong shape, or a value is out of range.
    """
    check_names(options, SegmentOptions, "segment")
    prompts = _prompts(options)
    return_logits = options.get("return_logits")
    request = image_pb2.SegmentImageRequest(
        model=options.get("model", ""),
        prompts=prompts,
        multimask_output=options.get("multimask_output", True),
        return_logits=len(prompts) == 1 if return_logits is None else return_logits,
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        edges=edges_to_wire(options),
    )
    if isinstance(image, Segmentation):
        request.image_id = image.image_id
        request.model = request.model or image.model
    elif isinstance(image, ImageId):
        request.image_id = image
    else:
        request.picture.CopyFrom(image)
    return request


def segmentation_from_wire(response: image_pb2.SegmentImageResponse) -> Segmentation:
    """The server's answer as plain data."""
    results = [result.candidates for result in response.results]
    logits = [[wire.logits_from_wire(c.logits) for c in candidates if c.HasField("logits")] for candidates in results]
    return Segmentation(
        rles=tuple(tuple(wire.rle_from_wire(c.mask) for c in candidates) for candidates in results),
        scores=_unbatched(np.array([[c.predicted_iou for c in candidates] for candidates in results], np.float32)),
        logits=_unbatched(np.array(logits, np.float32)) if all(logits) else None,
        image_id=ImageId(response.image_id),
        model=response.model,
        height=response.height,
        width=response.width,
        output_indices=_unbatched(np.array([[c.output_index for c in candidates] for candidates in results], np.int64)),
    )


def _unbatched(stack: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return stack[0] if len(stack) == 1 else stack


def _prompts(options: SegmentOptions) -> list[image_pb2.SegmentPrompt]:
    batches = {
        "point_coords": _batch("point_coords", options.get("point_coords"), single_ndim=2),
        "point_labels": _batch("point_labels", options.get("point_labels"), single_ndim=1),
        "box": _batch("box", options.get("box"), single_ndim=1),
        "mask_input": _logits_batch(options.get("mask_input")),
        "mask": _batch("mask", options.get("mask"), single_ndim=2),
    }
    given = {name: batch for name, batch in batches.items() if batch is not None}
    lengths = {name: len(batch) for name, batch in given.items()}
    if not given.keys() - {"point_labels"}:
        raise InvalidArgument.of("point_coords", "there is no prompt; give points, a box or a mask")
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InvalidArgument.of(
            next(iter(lengths)), f"the arguments hold different numbers of prompts ({listed}); give each as many"
        )
    count = next(iter(lengths.values()))
    if count == 0:
        raise InvalidArgument.of(next(iter(lengths)), "is an empty batch; give at least one prompt")
    return [_prompt({name: batch[i] for name, batch in given.items()}) for i in range(count)]


def _prompt(parts: dict[str, npt.NDArray[Any]]) -> image_pb2.SegmentPrompt:
    coords, labels = check_points(parts.get("point_coords"), parts.get("point_labels"))
    if "mask" in parts and len(parts) > 1:
        raise InvalidArgument.of("mask", "excludes other prompts; leave out points, box and mask_input")
    return image_pb2.SegmentPrompt(
        points=wire.points_to_wire(coords, labels),
        box=wire.box_to_wire(check_box(parts.get("box"))),
        mask=wire.mask_to_wire(check_mask(parts.get("mask"))),
        mask_input=_logits_to_wire(parts.get("mask_input")),
    )


def _batch(field: str, values: npt.ArrayLike | None, *, single_ndim: int) -> Sequence[npt.NDArray[Any]] | None:
    if values is None:
        return None
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidArgument.of(field, f"must be an array: {error}") from error
    if array.ndim not in (single_ndim, single_ndim + 1):
        raise InvalidArgument.of(
            field, f"has the shape {list(array.shape)}, must have {single_ndim} dimensions, or one more for a batch"
        )
    return list(array) if array.ndim > single_ndim else [array]


def _logits_batch(values: npt.ArrayLike | None) -> Sequence[npt.NDArray[Any]] | None:
    """SAM gives logits back as [1, h, w] for one prompt and [B, 1, h, w] for a batch; both are taken, and [h, w]."""
    if values is not None:
        array = np.asarray(values)
        values = array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array
    return _batch("mask_input", values, single_ndim=2)


def _logits_to_wire(logits: npt.NDArray[Any] | None) -> common_pb2.Logits | None:
    if logits is None:
        return None
    if logits.dtype.kind != "f" or not np.isfinite(logits).all():
        raise InvalidArgument.of("mask_input", "must be finite floating-point logits; a binary mask goes into `mask`")
    height, width = logits.shape
    return common_pb2.Logits(height=height, width=width, data=logits.astype("<f4").tobytes())
