"""SAM 2's image predictor for single pictures, on the same weights, with a cache of encoded pictures."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from masklet.errors import InvalidArgument, NotFound
from masklet_server.engine.network.mask_input import logits_of_mask, shrink
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.mask_runs import runs_of
from masklet_server.engine.serving.picture_jobs import Candidate, PicturePrompt
from masklet_server.masks.edges import Edges, Guide, guide_of

# `SAM2ImagePredictor.predict` clamps the logits that it returns, and that clients send back.
LOGITS_LIMIT = 32.0
# Prompts that are decoded in one pass: it bounds the memory for a request with many boxes.
MAX_PROMPT_BATCH = 32


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """Features of one picture, and its size.

    Attributes:
        features: What the image encoder made of the picture.
        square: ``uint8[S, S, 3]`` RGB, the picture at the model's size.
        height: Rows of the picture.
        width: Columns of the picture.
    """

    features: Features
    square: Tensor
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        """Size of features and picture in bytes."""
        return self.features.nbytes + self.square.nbytes


class PictureCache:
    """Encoded pictures by the hash of their pixels; the least recently used ones are dropped first.

    Args:
        max_bytes: Largest size of all encoded pictures together. A picture that is larger is not cached.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._pictures: OrderedDict[tuple[str, str], EncodedPicture] = OrderedDict()

    @staticmethod
    def id_of(pixels: npt.NDArray[np.uint8]) -> str:
        """The name of a picture ``uint8[H, W, 3]``: a hash, which nobody can guess without the picture."""
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).data)
        return digest.hexdigest()[:32]

    def get(self, model: str, image_id: str) -> EncodedPicture | None:
        """The encoded picture, or None if it is not in the cache."""
        picture = self._pictures.get((model, image_id))
        if picture is not None:
            self._pictures.move_to_end((model, image_id))
        return picture

    def put(self, model: str, image_id: str, picture: EncodedPicture) -> None:
        """Add a picture, and drop others if the cache is full."""
        if picture.nbytes > self.max_bytes:
            return
        if (known := self._pictures.pop((model, image_id), None)) is not None:
            self.nbytes -= known.nbytes
        self._pictures[model, image_id] = picture
        self.nbytes += picture.nbytes
        while self.nbytes > self.max_bytes:
            _, oldest = self._pictures.popitem(last=False)
            self.nbytes -= oldest.nbytes

    def __len__(self) -> int:
        return len(self._pictures)


@torch.inference_mode()
def encode_picture(network: Network, pixels: npt.NDArray[np.uint8]) -> EncodedPicture:
    """Encode a picture ``uint8[H, W, 3]`` RGB, resized as `SAM2Transforms` does: bilinear with antialiasing."""
    height, width = pixels.shape[:2]
    image = torch.from_numpy(pixels).to(network.device).permute(2, 0, 1)
    square = shrink(image, network.image_size, lambda rows: rows.float() / 255)[None]
    rounded = (square[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    return EncodedPicture(network.encode_scaled(square)[0], rounded, height, width)


@torch.inference_mode()
def segment(
    network: Network,
    picture: EncodedPicture,
    prompts: Sequence[PicturePrompt],
    *,
    multimask: bool,
    edges: Edges = Edges.NONE,
) -> list[list[Candidate]]:
    """Masks for each prompt, best first (`SAM2ImagePredictor.predict`); similar prompts are decoded together.

    Raises:
        InvalidArgument: A prompt lies outside the picture, or logits do not have the model's size.
    """
    for i, prompt in enumerate(prompts):
        _check(network, picture, prompt, f"prompts[{i}]")
    guide = guide_of(picture.square, network.logits_size) if edges is Edges.GUIDED else None
    results: dict[int, list[Candidate]] = {}
    forms: dict[tuple[int, bool], list[int]] = {}
    for i, prompt in enumerate(prompts):
        has_logits = prompt.mask is not None or prompt.mask_input is not None
        forms.setdefault((_num_points(prompt), has_logits), []).append(i)
    for members in forms.values():
        for start in range(0, len(members), MAX_PROMPT_BATCH):
            batch = members[start : start + MAX_PROMPT_BATCH]
            candidates = _decode_batch(network, picture, [prompts[i] for i in batch], multimask=multimask)
            found = [_ranked(network, picture, guide, *one) for one in candidates]
            results.update(zip(batch, found, strict=True))
    return [results[i] for i in range(len(prompts))]


def find_picture(cache: PictureCache, model: str, image_id: str) -> EncodedPicture:
    """The picture that a request names.

    Raises:
        NotFound: The picture is not in the cache, or no longer.
    """
    if (picture := cache.get(model, image_id)) is None:
        raise NotFound(f"image_id {image_id!r} is not in the cache of the model {model!r}; send the picture again")
    return picture


def _check(network: Network, picture: EncodedPicture, prompt: PicturePrompt, path: str) -> None:
    try:
        prompt.check_size(picture.height, picture.width)
    except InvalidArgument as error:
        raise error.within(path) from None
    size = (network.logits_size, network.logits_size)
    if prompt.mask_input is not None and prompt.mask_input.shape != size:
        raise InvalidArgument.of(
            f"{path}.mask_input", f"has the shape {list(prompt.mask_input.shape)}; this model needs {list(size)}"
        )


def _num_points(prompt: PicturePrompt) -> int:
    clicks = 0 if prompt.point_labels is None else len(prompt.point_labels)
    return clicks + (0 if prompt.box is None else 2)


def _decode_batch(
    network: Network, picture: EncodedPicture, prompts: Sequence[PicturePrompt], *, multimask: bool
) -> list[tuple[Tensor, Tensor]]:
    """Logits ``[K, 4h, 4w]`` and predicted IoU ``[K]`` of each prompt's candidates."""
    count = len(prompts)
    batch = Features.stack([picture.features])
    candidates = network.decoder.candidates(
        network.without_memory(batch.top).expand(count, -1, -1, -1),
        (batch.fine[0].expand(count, -1, -1, -1), batch.fine[1].expand(count, -1, -1, -1)),
        points=_points(network, picture, prompts),
        mask_logits=_mask_logits(network, prompts),
        multimask=multimask,
    )
    return list(zip(candidates.logits, candidates.predicted_iou, strict=True))


def _ranked(
    network: Network, picture: EncodedPicture, guide: Guide | None, logits: Tensor, ious: Tensor
) -> list[Candidate]:
    ranks = ious.argsort(descending=True)
    maps = logits[ranks][:, None]
    # Logits of a large picture have 140 MB, and freed memory stays with the process: on a CPU one mask at a time.
    parts = [maps[i : i + 1] for i in range(len(maps))] if maps.device.type == "cpu" else [maps]
    runs = [run for part in parts for run in runs_of(_drawn(network, picture, guide, part))]
    ranked = zip(runs, ious[ranks].tolist(), logits[ranks].cpu().numpy(), ranks.tolist(), strict=True)
    return [Candidate(*each) for each in ranked]


def _drawn(network: Network, picture: EncodedPicture, guide: Guide | None, maps: Tensor) -> Tensor:
    """Masks ``bool[K, H, W]`` of logits ``float32[K, 1, 4h, 4w]``."""
    size = (picture.height, picture.width)
    return network.resize(maps, *size)[:, 0] > 0 if guide is None else guide.draw(maps, *size)


def _points(
    network: Network, picture: EncodedPicture, prompts: Sequence[PicturePrompt]
) -> tuple[Tensor, Tensor] | None:
    """Clicks and corners of each prompt, in pixels of the model's square; all prompts have equally many."""
    if _num_points(prompts[0]) == 0:
        return None
    rows = [network.decoder.model_points(p, height=picture.height, width=picture.width) for p in prompts]
    return torch.stack([coords for coords, _ in rows]), torch.stack([labels for _, labels in rows])


def _mask_logits(network: Network, prompts: Sequence[PicturePrompt]) -> Tensor | None:
    """Logits to start from, ``float32[B, 1, 4h, 4w]``: the client's logits, or logits made from its mask."""
    rows = []
    for prompt in prompts:
        if prompt.mask_input is not None:
            rows.append(torch.from_numpy(prompt.mask_input)[None].clamp(-LOGITS_LIMIT, LOGITS_LIMIT))
        elif prompt.mask is not None:
            rows.append(torch.from_numpy(logits_of_mask(prompt.mask, network.logits_size))[None])
    return torch.stack(rows).to(network.device) if rows else None
