"""``NAME@SIZE``: a model that sees another square than the one it was trained with.

Everything in SAM 2 that depends on the size is made anew, or resampled by upstream's own code: `Hiera._get_pos_embed`
enlarges or shrinks the learnt positions, `PositionEmbeddingSine` computes its own, and `RoPEAttention` gets the new
grid. So every checkpoint loads at every size.
"""

from __future__ import annotations

import re
from typing import Literal

from masklet.errors import InvalidArgument

SMALLEST_SIZE = 64
LARGEST_SIZE = 2048
SIZE_STEP = 32  # the coarsest features have this stride
ALLOWED_SIZES = f"a multiple of {SIZE_STEP} from {SMALLEST_SIZE} to {LARGEST_SIZE}"

# How frames of video are made as small as a model wants them; `masklet_server.video.worker.pixels.FrameResizer` says
# what each means.
Scaling = Literal["bicubic", "area"]

_SIZED = re.compile(r"(?P<name>[^@]+)@(?P<size>[^@]*)")


def split_size(text: str) -> tuple[str, int | None]:
    """The name and the size of ``NAME@SIZE``; None as the size if `text` has no "@".

    Raises:
        InvalidArgument: What follows the "@" is not an allowed size.
    """
    if "@" not in text:
        return text, None
    match = _SIZED.fullmatch(text)
    if match is None:
        raise InvalidArgument.of("model", f"is {text!r}; write NAME@SIZE, such as sam2.1-tiny@512")
    size = match["size"]
    if not re.fullmatch(r"[1-9][0-9]{0,5}", size) or not is_allowed(int(size)):
        raise InvalidArgument.of(
            "model",
            f"is {text!r}, but {size!r} is no size; the number after '@' is the side of the model's square input in "
            f"pixels, {ALLOWED_SIZES}",
        )
    return match["name"], int(size)


def is_allowed(size: int) -> bool:
    """Whether a model can see a square with this side."""
    return size % SIZE_STEP == 0 and SMALLEST_SIZE <= size <= LARGEST_SIZE
