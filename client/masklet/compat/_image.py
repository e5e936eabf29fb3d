"""``sam2.sam2_image_predictor``, computed by a masklet server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from masklet._media.pictures import PictureLike, load_rgb
from masklet._protocol.pictures import check_pixels
from masklet._protocol.segmentation import ImageId, Segmentation
from masklet._protocol.server_info import ModelInfo, ServerInfo
from masklet._sync.client import Client
from masklet.errors import NotFound

if TYPE_CHECKING:
    import torch

_Array = npt.NDArray[np.float32]


@dataclass
class _Picture:
    """A picture that was set.

    Attributes:
        source: What is sent; kept, because the server may have dropped the picture by the next prediction.
        image_id: The server's name for the picture, once it was sent.
    """

    source: PictureLike
    image_id: ImageId | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, np.ndarray):
            self.source = check_pixels(self.source).copy()  # the caller may change the array later

    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if isinstance(self.source, np.ndarray):
            return self.source.shape[0], self.source.shape[1]
        height, width, _ = load_rgb(self.source).shape
        return height, width


class SAM2ImagePredictor:
    """``sam2.sam2_image_predictor.SAM2ImagePredictor``, computed by a masklet server.

    A picture is sent with the first prediction. Later predictions only name it, as long as the server holds it. What
    differs from sam2: labels other than 0 and 1, and predictions without prompts, are refused
    (`masklet.InvalidArgument`).

    Args:
        server: A client, or a server's address for `masklet.Client`.
        mask_threshold: Pixels whose logits are above it are foreground. Other thresholds than 0 need torch.
        max_hole_area: Must be 0: holes are not filled.
        max_sprinkle_area: Must be 0: small spots are not removed.
        model: A name from `masklet.Client.info`; empty: the server's default.

    Raises:
        NotImplementedError: One of the areas is not 0.
    """

    def __init__(
        self,
        server: Client | str,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        model: str = "",
    ) -> None:
        if max_hole_area or max_sprinkle_area:
            raise NotImplementedError(
                "masklet does not fill holes or remove sprinkles; leave max_hole_area and max_sprinkle_area at 0"
            )
        self.client = Client(server) if isinstance(server, str) else server
        self.mask_threshold = mask_threshold
        self._model = model
        self._info: ServerInfo | None = None
        self._pictures: list[_Picture] = []
        self._is_batch = False

    @property
    def model(self) -> ModelInfo:
        """The model in use, with its `image_size`; in sam2 this is the network itself."""
        info = self._server_info()
        found = [m for m in info.models if (m.name == self._model if self._model else m.default)]
        if not found:
            raise NotFound(f"the server has no model {self._model!r}; it has {', '.join(m.name for m in info.models)}")
        return found[0]

    @property
    def device(self) -> torch.device:
        """The device of the results: always ``torch.device("cpu")``."""
        from masklet.compat import _torch

        return _torch.CPU

    def set_image(self, image: PictureLike) -> None:
        """Set the picture for `predict`.

        Args:
            image: An array ``uint8[H, W, 3]`` (RGB), a Pillow image, a path, or the bytes of a file.
        """
        self.reset_predictor()
        self._pictures = [_Picture(image)]

    def set_image_batch(self, image_list: list[Any]) -> None:
        """Set the pictures for `predict_batch`.

        Args:
            image_list: Arrays ``uint8[H, W, 3]`` (RGB).
        """
        self.reset_predictor()
        self._pictures = [_Picture(image) for image in image_list]
        self._is_batch = True

    def reset_predictor(self) -> None:
        """Forget all pictures that were set."""
        self._pictures = []
        self._is_batch = False

    def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Segment the picture that was set, for one prompt, or for B prompts if arguments have one dimension more.

        C is 3 with `multimask_output`, in the decoder's own order, and 1 without. With B > 1 prompts, all shapes begin
        with B.

        Args:
            point_coords: ``[N, 2]``, x and y of each click, in pixels.
            point_labels: ``[N]``, 1 for foreground and 0 for background.
            box: ``[4]``, x0, y0, x1, y1 in pixels.
            mask_input: ``float32[1, h, w]``, logits of an earlier prediction.
            multimask_output: Return three candidates for each prompt.
            return_logits: Return logits in place of masks. Needs torch.
            normalize_coords: False: coordinates are fractions of the picture's width and height, 0 to 1.

        Returns:
            Masks ``float32[C, H, W]``, 0 and 1, or logits with `return_logits`; their scores ``float32[C]``; and
            low-resolution logits ``float32[C, h, w]`` for `mask_input`.
        """
        if not self._pictures:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        prompts = _prompts(point_coords, point_labels, box, mask_input)
        # As sam2 does: after `set_image_batch` it takes the last picture here.
        return self._predict(self._pictures[-1], prompts, multimask_output, return_logits, normalize_coords)

    def predict_batch(
        self,
        point_coords_batch: list[Any] | None = None,
        point_labels_batch: list[Any] | None = None,
        box_batch: list[Any] | None = None,
        mask_input_batch: list[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
        """Do as `predict` does for each picture of `set_image_batch`, with its item of every list."""
        if not self._is_batch:
            raise RuntimeError("An image must be set with .set_image_batch(...) before mask prediction.")
        given = (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)
        found = [
            self._predict(
                picture,
                _prompts(*(None if batch is None else batch[i] for batch in given)),
                multimask_output,
                return_logits,
                normalize_coords,
            )
            for i, picture in enumerate(self._pictures)
        ]
        return [masks for masks, _, _ in found], [scores for _, scores, _ in found], [low for _, _, low in found]

    def _predict(
        self, picture: _Picture, prompts: dict[str, _Array], multimask: bool, return_logits: bool, normalize: bool
    ) -> tuple[_Array, _Array, _Array]:
        if not normalize:
            height, width = picture.size()
            for name in prompts.keys() & {"point_coords", "box"}:
                prompts[name] = prompts[name] * np.tile([width, height], prompts[name].shape[-1] // 2)
        count, parts = max(map(len, prompts.values()), default=1), []
        at_once = count if count == 1 else self._prompts_at_once(3 if multimask else 1)
        for first in range(0, count, at_once):
            some = {name: batch[first : first + at_once] for name, batch in prompts.items()}
            segmentation = self._segment(picture, multimask_output=multimask, return_logits=True, **some)
            parts.append(self._found(segmentation, return_logits))
        masks, scores, low = (np.concatenate(part) for part in zip(*parts, strict=True))
        return (masks[0], scores[0], low[0]) if count == 1 else (masks, scores, low)

    def _segment(self, picture: _Picture, **arguments: Any) -> Segmentation:
        if picture.image_id is not None:
            try:
                return self.client.segment(picture.image_id, model=self._model, edges="none", **arguments)
            except NotFound:
                picture.image_id = None  # the server does not hold it any more
        found = self.client.segment(picture.source, model=self._model, edges="none", **arguments)
        picture.image_id = found.image_id
        return found

    def _found(self, segmentation: Segmentation, return_logits: bool) -> tuple[_Array, _Array, _Array]:
        """Masks, scores and logits with the batch first, in the decoder's own order of candidates."""
        count, height, width = len(segmentation.rles), segmentation.height, segmentation.width
        assert segmentation.logits is not None
        order = np.argsort(segmentation.output_indices.reshape(count, -1), axis=1)
        rows = np.arange(count)[:, None]
        scores = segmentation.scores.reshape(count, -1)[rows, order]
        low = segmentation.logits.reshape(count, -1, *segmentation.logits.shape[-2:])[rows, order]
        if return_logits or self.mask_threshold != 0:
            from masklet.compat import _torch

            full = np.stack([_torch.resized(one, height, width).numpy() for one in low])
            masks = full if return_logits else (full > self.mask_threshold).astype(np.float32)
        else:
            masks = segmentation.masks.reshape(count, -1, height, width)[rows, order].astype(np.float32)
        return masks, scores, low.clip(-32, 32)  # as sam2 gives them, "to avoid numerical issues"

    def _prompts_at_once(self, candidates: int) -> int:
        """How many prompts one request may have, so that the server takes them and the logits fit into a message."""
        limits = self._server_info().limits
        logits_bytes = 4 * (self.model.image_size // 4) ** 2
        return max(1, min(limits.max_objects, limits.max_message_bytes * 3 // 4 // (candidates * logits_bytes)))

    def _server_info(self) -> ServerInfo:
        if self._info is None:
            self._info = self.client.info()
        return self._info

    def get_image_embedding(self) -> NoReturn:
        """Not available: the server does not send embeddings.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("embeddings stay on the server, which sends only masks, scores and logits")


def _prompts(point_coords: Any, point_labels: Any, box: Any, mask_input: Any) -> dict[str, _Array]:
    """The prompts that are given, each with the batch as its first dimension."""
    if (point_coords is None) != (point_labels is None):
        raise ValueError("point_labels must be supplied if point_coords is supplied, and only then")
    given = {
        "point_coords": _batch(point_coords, ndim=3),
        "point_labels": _batch(point_labels, ndim=2),
        "box": _batch(box, ndim=2),
        "mask_input": _batch(mask_input, ndim=4),
    }
    prompts = {name: values for name, values in given.items() if values is not None}
    count = max(map(len, prompts.values()), default=0)
    if "mask_input" in prompts and len(prompts["mask_input"]) == 1:
        prompts["mask_input"] = np.repeat(prompts["mask_input"], count, axis=0)  # the same for all prompts
    return prompts


def _batch(values: Any, *, ndim: int) -> _Array | None:
    if values is None:
        return None
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, np.float32)
    return array[None] if array.ndim == ndim - 1 else array
