"""Draws masks: over pictures and videos, as cut-outs, and as PNG files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from masklet._media.atomic_file import refuse_same_file, replacing
from masklet._media.mask_files import davis_colours
from masklet._media.pictures import PictureLike, load_rgb
from masklet._media.uploads import VideoSource
from masklet._protocol.results import FrameResult
from masklet.colours import PALETTE, Colour, colour_of
from masklet.errors import InvalidArgument

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MAX_INDEX",
    "PALETTE",
    "VIDEO_SUFFIXES",
    "Colour",
    "Mask",
    "colour_of",
    "cutout",
    "overlay",
    "save_indexed_masks",
    "save_mask",
    "write_overlay_video",
]

Mask = npt.NDArray[np.bool_]
"""``bool[H, W]``: one object's pixels in a picture."""
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
"""What the name of a video that `write_overlay_video` writes may end in."""

_DARK = np.array((20, 20, 20), np.uint8)
MAX_INDEX = 255
"""The largest id that an indexed PNG can hold."""


def overlay(
    image: PictureLike, masks: Mapping[int, Mask], *, alpha: float = 0.4, outline: bool = True
) -> npt.NDArray[np.uint8]:
    """Draw masks over a picture: each object tinted in its own colour, with a sharp outline.

    Args:
        image: A path, a file's bytes, a Pillow image, or an array ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]``.
        masks: A mask ``bool[H, W]`` for each object's id, as in `FrameResult.masks`; higher ids are drawn on top.
        alpha: Strength of the tint, 0 to 1.
        outline: Draw the outlines, too.

    Returns:
        ``uint8[H, W, 3]`` RGB, a copy: the input is not changed.

    Raises:
        InvalidArgument: The picture cannot be read, or a mask has another size.
    """
    if not 0 <= alpha <= 1:
        raise InvalidArgument.of("alpha", f"is {alpha}, must lie between 0 and 1")
    canvas = np.array(load_rgb(image))
    for object_id in sorted(masks):
        mask = _checked(masks[object_id], canvas.shape[:2], f"masks[{object_id}]")
        _draw(canvas, mask, colour_of(object_id), alpha=alpha, outline=outline)
    return canvas


def cutout(image: PictureLike, mask: Mask) -> Image:
    """Cut an object out of a picture.

    Args:
        image: As for `overlay`.
        mask: ``bool[H, W]``, at the size of the picture.

    Returns:
        A Pillow image in RGBA, of the same size, transparent outside the mask.

    Raises:
        InvalidArgument: The picture cannot be read, or the mask has another size.
    """
    from PIL import Image

    pixels = load_rgb(image)
    alpha = _checked(mask, pixels.shape[:2], "mask").astype(np.uint8) * 255
    return Image.fromarray(np.dstack([pixels, alpha]))


def save_mask(path: str | os.PathLike[str], mask: Mask) -> None:
    """Write a mask as a gray PNG: 255 for the object, 0 for the rest.

    Args:
        path: The file, overwritten if it exists.
        mask: ``bool[H, W]``.

    Raises:
        InvalidArgument: The mask is not two-dimensional.
        OSError: The file cannot be written.
    """
    from PIL import Image

    pixels = _checked(mask, None, "mask").astype(np.uint8) * 255
    Image.fromarray(pixels).save(Path(path), format="PNG")


def save_indexed_masks(
    path: str | os.PathLike[str], masks: Mapping[int, Mask], *, size: tuple[int, int] | None = None
) -> None:
    """Write the masks of several objects as one PNG with a palette, as DAVIS's annotations are.

    The value of a pixel is the id of its object, 0 where there is none. Where masks overlap, the higher id wins.

    Args:
        path: The file, overwritten if it exists.
        masks: A mask ``bool[H, W]`` for each object's id, 1 to 255.
        size: Height and width in pixels; needed only where `masks` may be empty.

    Raises:
        InvalidArgument: An id is above 255, masks have different sizes, or there is neither a mask nor a size.
        OSError: The file cannot be written.
    """
    from PIL import Image

    if size is None:
        if not masks:
            raise InvalidArgument.of("size", "is needed where there are no masks")
        size = next(iter(masks.values())).shape[:2]
    indices = np.zeros(size, np.uint8)
    for object_id in sorted(masks):
        if not 0 < object_id <= MAX_INDEX:
            raise InvalidArgument.of(
                "masks", f"object_id {object_id} is too large for an indexed PNG; ids may go up to 255"
            )
        indices[_checked(masks[object_id], size, f"masks[{object_id}]")] = object_id
    picture = Image.fromarray(indices)
    picture.putpalette(davis_colours().tobytes())
    picture.save(Path(path), format="PNG")


def write_overlay_video(
    video: VideoSource,
    results: Iterable[FrameResult],
    out_path: str | os.PathLike[str],
    *,
    alpha: float = 0.4,
    outline: bool = True,
) -> int:
    """Draw the masks over each frame of a video, and write the frames as H.264 with their own timing, without sound.

    It holds one frame at a time, so `results` may be the answer of `Client.track` itself, and the video may be of any
    length. The file appears when it is whole. If `results` end with an error, the file has the frames before it, and
    the error is raised again. Sides of an odd length grow by one pixel, because most players need even ones.

    Args:
        video: As it was given to `Client.track`; an iterable of arrays must be one that can be iterated over twice.
        results: In the order of the frames; the new video ends with them.
        out_path: The file; its name must end in .mp4, .mov or .mkv. It is replaced if it exists.
        alpha: Strength of the tint, 0 to 1.
        outline: Draw the outlines, too.

    Returns:
        The number of frames written; there is no file where it is 0.

    Raises:
        InvalidArgument: The name has another suffix or is the video's own, or the results do not belong to this video.
        DataLoss: The video cannot be decoded, or ends before the results do.
        OSError: A file cannot be read or written.
        Exception: What `results` raise.
    """
    from masklet._media.frames import matched, shown_frames  # brings PyAV
    from masklet._media.video_writer import VideoWriter

    path = Path(out_path)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InvalidArgument.of("out_path", f"{path.name!r} must end in {', '.join(VIDEO_SUFFIXES)}")
    refuse_same_file(video, path, "out_path")
    pending = iter(results)
    # Before anything is opened: a video that the server refuses is not decoded here either.
    first = next(pending, None)
    if first is None:
        return 0
    kept = _UntilFailure(itertools.chain([first], pending))
    with replacing(path) as partial, VideoWriter(partial) as writer:
        for result, pixels in matched(kept, shown_frames(video)):
            writer.write(overlay(pixels, result.masks, alpha=alpha, outline=outline), result.pts_seconds)
        writer.finish()
    if kept.failure is not None:
        raise kept.failure
    return writer.count


class _UntilFailure(Iterator[FrameResult]):
    """Results up to their end, or up to the first error, which is held back."""

    def __init__(self, results: Iterator[FrameResult]) -> None:
        self.failure: BaseException | None = None
        self._results = results

    def __next__(self) -> FrameResult:
        try:
            return next(self._results)
        except StopIteration:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again when the file is written
            self.failure = error
            raise StopIteration from None


def _checked(mask: Any, size: tuple[int, ...] | None, field: str) -> Mask:
    array = np.asarray(mask)
    if array.ndim != 2:
        raise InvalidArgument.of(field, f"has the shape {list(array.shape)}, must be [H, W]")
    if size is not None and array.shape != tuple(size):
        height, width = size
        raise InvalidArgument.of(
            field, f"is {array.shape[1]}x{array.shape[0]} pixels, the picture {width}x{height}; they must be equal"
        )
    return array.astype(np.bool_, copy=False)


def _draw(canvas: npt.NDArray[np.uint8], mask: Mask, colour: Colour, *, alpha: float, outline: bool) -> None:
    """Draw one object in place, working on its bounding box alone."""
    thickness = max(1, round(min(mask.shape) / 360)) if outline else 0
    window = _bounds(mask, margin=thickness + 1)
    if window is None:
        return
    region, inside = canvas[window], mask[window]
    tint = np.array(colour, np.float32)
    region[inside] = (region[inside] * (1 - alpha) + tint * alpha + 0.5).astype(np.uint8)
    if outline:
        # A thin dark line around the coloured one keeps it visible on a background of the same colour.
        region[_grown(inside) & ~inside] = _DARK
        region[inside & ~_shrunk(inside, thickness)] = colour


def _bounds(mask: Mask, *, margin: int) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _shrunk(mask: Mask, times: int) -> Mask:
    """The mask less its outermost pixels; the picture's edge counts as inside, so that no line runs along it."""
    for _ in range(times):
        mask = ~_grown(~mask)
    return mask


def _grown(mask: Mask) -> Mask:
    """The mask and its neighbours above, below, left and right."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
