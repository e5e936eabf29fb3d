"""From any picture that Pillow can read to RGB of 8 bits a value, as the picture is meant to be seen.

Server and client use this module, so that the server tracks what the client draws on. The rules:

- The EXIF orientation is applied.
- Transparent pixels are put on black.
- 16-bit gray keeps its high byte, as Pillow does it for 16-bit colours.
- Other gray values (32-bit integers, floating point) have no range of their own. Values of a picture that lie between
  0 and 1 are fractions of white. Values up to 255 are taken as they are, and values up to 65535 as 16 bits. Any others
  are spread from the darkest to the brightest. What is not a number is black.
- All else (palette, CMYK, YCbCr, LAB, black and white) is converted by Pillow.
"""

from __future__ import annotations

from typing import cast

from PIL import Image, ImageMath, ImageOps

_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
_WHITE = 255


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB, as it is meant to be seen; see the module for the rules.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot read or convert it.
    """
    return flatten(ImageOps.exif_transpose(picture))


def flatten(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB, without turning it."""
    if picture.mode.startswith("I;16"):
        return _high_bytes(picture).convert("RGB")
    if picture.mode in ("I", "F"):
        return _gray(picture).convert("RGB")
    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Image.new("RGB", picture.size)
        black.paste(picture, mask=picture.getchannel("A"))
        return black
    return picture.convert("RGB")


def _high_bytes(picture: Image.Image) -> Image.Image:
    """16-bit gray as 8-bit gray: the more significant byte of every pixel."""
    high_first = picture.mode == "I;16B"
    data = picture.tobytes()
    return Image.frombytes("L", picture.size, data[0 if high_first else 1 :: 2])


def _gray(picture: Image.Image) -> Image.Image:
    """Gray of a range that has to be guessed, as 8-bit gray."""
    picture = _finite(picture.convert("F"))
    low, high = cast("tuple[float, float]", picture.getextrema())
    scale, shift = gray_scale(low, high)
    # Pillow's conversion from F to L cuts off what is beyond 0 and 255, and rounds down.
    return picture.point(lambda value: value * scale + shift).convert("L")


def gray_scale(low: float, high: float) -> tuple[float, float]:
    """What to multiply gray values with, and what to add then, so that white is 255.

    Args:
        low: The least value.
        high: The greatest value.
    """
    if low >= 0 and high <= 1:
        return float(_WHITE), 0.0
    if low >= 0 and high <= _WHITE:
        return 1.0, 0.0
    if low >= 0 and high <= 2**16 - 1:
        return 1 / 256, 0.0
    scale = _WHITE / (high - low) if high > low else 0.0
    return scale, -low * scale


def _finite(picture: Image.Image) -> Image.Image:
    """A picture of mode F with 0 for all that is not a finite number: only finite numbers less themselves are 0."""
    is_finite = ImageMath.lambda_eval(lambda images: (images["x"] - images["x"] == 0) * 255, x=picture)
    finite = Image.new("F", picture.size)
    finite.paste(picture, mask=is_finite.convert("L").convert("1"))
    return finite
