"""``sam2.sam2_image_predictor``, computed by a masklet server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from masklet._media.pictures import PictureLike
from masklet._sync.client import Client
from masklet.compat._images.components import without_specks
from masklet.compat._images.pictures import Candidates, PictureOnServer, Prompts
from masklet.compat._models.locate import locate_repository, warn
from masklet.compat._models.model import SAM2Model, find_model

if TYPE_CHECKING:
    import torch

_Array = npt.NDArray[np.float32]
_OWN_ARGUMENTS = ("mask_threshold", "max_hole_area", "max_sprinkle_area")


class SAM2ImagePredictor:
    """``sam2.sam2_image_predictor.SAM2ImagePredictor``, computed by a masklet server.

    A picture is sent with the first prediction. Later predictions only name it, as long as the server holds it. What
    differs from sam2: labels other than 0 and 1, and predictions without prompts, are refused
    (`masklet.InvalidArgument`).

    Args:
        sam_model: What `masklet.compat.build_sam2` returned, or a video predictor; or a client, or a server's address
            for `masklet.Client`.
        mask_threshold: Pixels whose logits are above it are foreground. Other thresholds than 0 need torch.
        max_hole_area: Holes of at most so many pixels in the low-resolution mask are filled. Above 0 it needs torch.
        max_sprinkle_area: Spots of at most so many pixels there are removed. Above 0 it needs torch.
        model: With a client or an address: a name from `masklet.Client.info`; empty: the server's default.
        kwargs: Change nothing, as in sam2.

    Attributes:
        model: The model, with its `image_size`; in sam2 this is the network itself.
        mask_threshold: As above.
    """

    def __init__(
        self,
        sam_model: SAM2Model | Client | str,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        model: str = "",
        **kwargs: Any,
    ) -> None:
        self.model = find_model(sam_model, model)
        self.mask_threshold = mask_threshold
        self._max_areas = (max_hole_area, max_sprinkle_area)
        self._pictures: list[PictureOnServer] = []
        self._is_batch = False
        if kwargs:
            warn(f"SAM2ImagePredictor has no arguments {', '.join(kwargs)}; they change nothing")

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2ImagePredictor:
        """The predictor of a model on Hugging Face, on the server of MASKLET_SERVER or one in this process.

        Args:
            model_id: Such as "facebook/sam2.1-hiera-large"; or the name of a model here.
            kwargs: Those of the class, and those of `masklet.compat.build_sam2`.

        Raises:
            masklet.NotFound: The server does not have the model.
            masklet.MaskletError: The server cannot be reached or started.
        """
        own = {name: kwargs.pop(name) for name in _OWN_ARGUMENTS if name in kwargs}
        return cls(SAM2Model(*locate_repository(model_id, kwargs)), **own)

    @property
    def client(self) -> Client:
        """The connection to the server."""
        return self.model.client

    @property
    def device(self) -> torch.device:
        """The device of the results: always ``torch.device("cpu")``."""
        return self.model.device

    @property
    def _orig_hw(self) -> list[tuple[int, int]] | None:
        """Height and width of each picture that was set; programs read it in sam2, though it is private there."""
        return [picture.size for picture in self._pictures] or None

    @property
    def _is_image_set(self) -> bool:
        """Whether a picture was set; programs read it in sam2, though it is private there."""
        return bool(self._pictures)

    def set_image(self, image: PictureLike) -> None:
        """Set the picture for `predict`.

        Args:
            image: An array ``uint8[H, W, 3]`` (RGB), a Pillow image, a path, or the bytes of a file.
        """
        self.reset_predictor()
        self._pictures = [PictureOnServer(image, self.model)]

    def set_image_batch(self, image_list: list[Any]) -> None:
        """Set the pictures for `predict_batch`.

        Args:
            image_list: Arrays ``uint8[H, W, 3]`` (RGB).
        """
        self.reset_predictor()
        self._pictures = [PictureOnServer(image, self.model) for image in image_list]
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
        self, picture: PictureOnServer, prompts: Prompts, multimask: bool, return_logits: bool, normalize: bool
    ) -> tuple[_Array, _Array, _Array]:
        if not normalize:
            height, width = picture.size
            for name in prompts.keys() & {"point_coords", "box"}:
                prompts[name] = prompts[name] * np.tile([width, height], prompts[name].shape[-1] // 2)
        parts: Sequence[tuple[_Array, _Array, _Array]] = [
            # sam2 clamps the logits that it returns, "to avoid numerical issues".
            (self._masks(found, return_logits), found.scores, found.logits.clip(-32, 32))
            for found in picture.ask(prompts, multimask=multimask)
        ]
        masks, scores, low = (np.concatenate(part) for part in zip(*parts, strict=True))
        return (masks[0], scores[0], low[0]) if len(scores) == 1 else (masks, scores, low)

    def _masks(self, found: Candidates, return_logits: bool) -> _Array:
        """``float32[B, C, H, W]``, masks or logits."""
        if not (return_logits or self.mask_threshold or any(self._max_areas)):
            return found.masks.astype(np.float32)
        full = self.enlarged(found.logits, found.segmentation.height, found.segmentation.width)
        return full if return_logits else (full > self.mask_threshold).astype(np.float32)

    def enlarged(self, logits: _Array, height: int, width: int) -> _Array:
        """Logits at the picture's size, with holes and specks treated (sam2's ``SAM2Transforms.postprocess_masks``).

        Args:
            logits: ``float32[..., h, w]``, of low resolution.
            height: Rows of the picture.
            width: Columns of the picture.

        Returns:
            ``float32[..., height, width]``.
        """
        from masklet.compat import _torch

        flat = logits.reshape(-1, *logits.shape[-2:])
        if any(self._max_areas):
            flat = without_specks(flat, self.mask_threshold, *self._max_areas)
        full: _Array = _torch.resized(np.ascontiguousarray(flat), height, width).numpy()
        return full.reshape(*logits.shape[:-2], height, width)

    def get_image_embedding(self) -> NoReturn:
        """Not available: the server does not send embeddings.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("embeddings stay on the server, which sends only masks, scores and logits")


def _prompts(point_coords: Any, point_labels: Any, box: Any, mask_input: Any) -> Prompts:
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
