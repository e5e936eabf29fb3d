"""Masks as a client sees them."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from masklet_server.masks import encoding
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox.picture_pool import decode_picture


def decode(mask: EncodedMask) -> npt.NDArray[np.bool_]:
    """A mask of either encoding as ``bool[H, W]``; the server decodes PNGs in a sandbox alone."""
    if mask.encoding is not MaskEncoding.PNG:
        return encoding.decode(mask)
    with Image.open(io.BytesIO(mask.data), formats=["PNG"]) as image:
        return np.asarray(image) > 127


async def sandboxed_png(data: bytes, client: str) -> npt.NDArray[np.uint8]:
    """What a server's pool decodes clients' PNGs with."""
    del client
    return await decode_picture(Picture("encoded", data), VideoLimits())
