"""The SegmentImage method: one picture and its prompts, from the request to the response."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument, NotFound, ResourceExhausted
from masklet.v1 import image_pb2
from masklet_server.engine.network.mask_input import logits_of_mask
from masklet_server.engine.serving.loaded_model import LoadedModel, find_loaded
from masklet_server.engine.serving.picture_jobs import Candidate, PictureJob, PictureOutput, PicturePrompt
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.masks.pool import MaskPool
from masklet_server.rpc import from_wire, to_wire
from masklet_server.rpc.from_wire import RequestParser
from masklet_server.session.ports import TrackingEngine
from masklet_server.video.picture import Picture

# How many pictures' sizes are kept, by image_id. The engine keeps fewer pictures, because features are megabytes.
MAX_KNOWN_SIZES = 4096

# Pixels of all masks of one response, which take a byte each while it is made. The limits on prompts and on pictures
# bound the two factors, and this bounds their product.
MAX_MASK_PIXELS = 2**30

DecodePicture = Callable[[Picture, str], Awaitable[npt.NDArray[np.uint8]]]


class ServingEngines(Protocol):
    """The part of `masklet_server.engine.engines.Engines` that the service uses."""

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """The loaded models, by name."""

    @property
    def default_model(self) -> str:
        """Name of the model for sessions that name none."""

    def place(self) -> TrackingEngine:
        """The engine for a new session."""

    async def segment(self, job: PictureJob) -> PictureOutput:
        """Find the masks of one picture's prompts."""


@dataclass(frozen=True)
class _GivenMask:
    """A prompt's mask, None if it has none; the size of the model's logits; and who decodes it."""

    mask: EncodedMask | None
    logits_size: int
    pool: MaskPool


class SegmentImageHandler:
    """Answers SegmentImage requests, and remembers the sizes of pictures that may be asked for again.

    Args:
        engine: Segments the pictures.
        pool: Encodes and decodes masks.
        parser: Reads masks within the limits.
        max_prompts: Prompts in one request, at most.
        decode_picture: Makes ``uint8[H, W, 3]`` RGB of a client's picture, in a sandbox.
    """

    def __init__(
        self,
        engine: ServingEngines,
        pool: MaskPool,
        parser: RequestParser,
        *,
        max_prompts: int,
        decode_picture: DecodePicture,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._parser = parser
        self._max_prompts = max_prompts
        self._decode_picture = decode_picture
        self._sizes: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    async def segment(self, request: image_pb2.SegmentImageRequest, client: str) -> image_pb2.SegmentImageResponse:
        """Answer one request.

        Args:
            request: From the client.
            client: Whose request it is. Clients take turns, and a picture's id is known to the client that sent it.

        Raises:
            InvalidArgument: A field is wrong.
            NotFound: The model is not loaded, or the server no longer has the picture.
            ResourceExhausted: There are too many prompts, or the picture is beyond a limit.
            DataLoss: The picture is damaged.
        """
        model = find_loaded(self._engine.models, request.model)
        encoding = from_wire.mask_encoding(request.mask_encoding, "mask_encoding")
        edges = from_wire.edges(request.edges, "edges") or model.edges
        self._check_count(len(request.prompts))
        masks = [self._encoded_mask(prompt, i) for i, prompt in enumerate(request.prompts)]
        for i, prompt in enumerate(request.prompts):
            if masks[i] is None:  # a prompt without a mask can be checked before the picture is decoded
                _prompt(prompt, i, None)
        pixels, size = await self._picture(request, client)
        _check_masks(len(masks) * (3 if request.multimask_output else 1), *size)
        pool = self._pool.of(client)
        job = PictureJob(
            model=model.name,
            stream=f"pictures of {client}",
            prompts=[
                await self._complete(prompt, i, _GivenMask(mask, model.logits_size, pool), size)
                for i, (prompt, mask) in enumerate(zip(request.prompts, masks, strict=True))
            ],
            picture=request.image_id if pixels is None else pixels,
            multimask_output=request.multimask_output,
            edges=edges,
        )
        output = await self._engine.segment(job)
        self._remember(output, client)
        return image_pb2.SegmentImageResponse(
            image_id=output.image_id,
            height=output.height,
            width=output.width,
            results=[await _result(pool, found, encoding, request.return_logits) for found in output.results],
            model=model.name,
        )

    def _check_count(self, count: int) -> None:
        if count == 0:
            raise InvalidArgument.of("prompts", "is empty; send at least one")
        if count > self._max_prompts:
            raise ResourceExhausted(
                f"the request has {count} prompts; send at most max_objects = {self._max_prompts} in one"
            )

    def _encoded_mask(self, prompt: image_pb2.SegmentPrompt, index: int) -> EncodedMask | None:
        if not prompt.HasField("mask"):
            return None
        try:
            return self._parser.mask(prompt.mask)
        except InvalidArgument as error:
            raise error.within(f"prompts[{index}]") from None

    async def _picture(
        self, request: image_pb2.SegmentImageRequest, client: str
    ) -> tuple[npt.NDArray[np.uint8] | None, tuple[int, int]]:
        """The picture's pixels (None if the engine has the picture already), and its height and width."""
        source = request.WhichOneof("source")
        if source == "picture":
            picture = from_wire.picture(request.picture, "picture")
            try:
                pixels = await self._decode_picture(picture, client)
            except InvalidArgument as error:
                raise error.within("picture") from None
            return pixels, (pixels.shape[0], pixels.shape[1])
        if not request.image_id:
            raise InvalidArgument.of("source", "is not set; send a picture, or the image_id of an earlier response")
        if (client, request.image_id) not in self._sizes:
            raise NotFound(
                f"the server has no picture {request.image_id!r}, or not any longer; send the picture itself"
            )
        return None, self._sizes[client, request.image_id]

    async def _complete(
        self,
        message: image_pb2.SegmentPrompt,
        index: int,
        given: _GivenMask,
        picture_size: tuple[int, int],
    ) -> PicturePrompt:
        """The prompt with its mask as logits of the model's size.

        A mask of a few bytes may stand for 35 MB of pixels, so that the pool decodes few of them at a time, and none is
        kept.
        """
        logits, mask = None, given.mask
        if mask is not None:
            field = f"prompts[{index}].mask"
            if (mask.height, mask.width) != picture_size:
                height, width = picture_size
                raise InvalidArgument.of(
                    field,
                    f"is {mask.width}x{mask.height} pixels, the picture {width}x{height}; send one of the same size",
                )
            try:
                logits = await given.pool.decode(mask, lambda pixels: _logits(pixels, given.logits_size))
            except InvalidArgument as error:
                raise error.within(field) from None
            if logits is None:
                raise InvalidArgument.of(field, "has no foreground pixel")
        complete = _prompt(message, index, logits)
        try:
            complete.check_size(*picture_size)
        except InvalidArgument as error:
            raise error.within(f"prompts[{index}]") from None
        return complete

    def _remember(self, output: PictureOutput, client: str) -> None:
        self._sizes[client, output.image_id] = (output.height, output.width)
        self._sizes.move_to_end((client, output.image_id))
        if len(self._sizes) > MAX_KNOWN_SIZES:
            self._sizes.popitem(last=False)


def _check_masks(count: int, height: int, width: int) -> None:
    if count * height * width > MAX_MASK_PIXELS:
        raise ResourceExhausted(
            f"{count} masks of {width}x{height} pixels are too many for one request; "
            f"ask for {max(1, MAX_MASK_PIXELS // (height * width))} at a time, or send a smaller picture"
        )


def _logits(pixels: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.float32] | None:
    """The mask ``bool[H, W]`` as logits ``float32[size, size]``; None if it has no foreground."""
    return logits_of_mask(pixels, size) if pixels.any() else None


def _prompt(message: image_pb2.SegmentPrompt, index: int, mask_logits: npt.NDArray[np.float32] | None) -> PicturePrompt:
    try:
        return from_wire.segment_prompt(message, mask_logits)
    except InvalidArgument as error:
        raise error.within(f"prompts[{index}]") from None


async def _result(
    pool: MaskPool, candidates: Sequence[Candidate], encoding: MaskEncoding, with_logits: bool
) -> image_pb2.SegmentResult:
    prepared = await asyncio.gather(*(pool.prepare(one.runs, encoding) for one in candidates))
    return image_pb2.SegmentResult(
        candidates=[
            image_pb2.MaskCandidate(
                mask=to_wire.mask(mask.encoded),
                predicted_iou=candidate.predicted_iou,
                box=to_wire.box(mask.box),
                area=mask.area,
                logits=to_wire.logits(candidate.logits) if with_logits else None,
                output_index=candidate.output_index,
            )
            for candidate, mask in zip(candidates, prepared, strict=True)
        ]
    )
