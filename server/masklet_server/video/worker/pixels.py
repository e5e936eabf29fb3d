"""Makes pictures ready for the model: turned as shown, without transparency, resized. Runs in the decoding process."""

from __future__ import annotations

import io
import re
import struct
from typing import TYPE_CHECKING

from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image, UnidentifiedImageError

from masklet_media import picture_readers  # noqa: F401 - see there
from masklet_media.clip_reader import may_be_transparent
from masklet_media.rgb import flatten, to_rgb
from masklet_server.video.formats import PICTURE_FORMATS, Scaling
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import DecodePicture
from masklet_server.video.worker.refusal import Refusal

if TYPE_CHECKING:
    import av

# The server's own limits on pixels are checked before pixels are read. Pillow's limit would only warn.
Image.MAX_IMAGE_PIXELS = None
# Programs write ten or so.
MAX_SCANS = 100
# The next marker after a scan's pixels: 0xff and what neither stands for a byte of pixels nor begins a new interval.
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, 0xD8, *range(0xD0, 0xD8)}

# Averages are as sharp as the bicubic filter where both sides shrink by this factor at least.
_AVERAGED_FROM = 1.5
# What nearly all videos are. Other formats would lose digits or colours, or have a range that FFmpeg only guesses.
_AVERAGED_FORMATS = ("yuv420p", "yuv422p", "nv12")

_Transpose = Image.Transpose

_TURNED = (_Transpose.ROTATE_90, _Transpose.ROTATE_270, _Transpose.TRANSPOSE, _Transpose.TRANSVERSE)

# A display matrix [a b; c d] maps x, y to a x + c y, b x + d y. For each: Pillow's name, and the clockwise turn.
_ORIENTATIONS: dict[tuple[int, ...], tuple[Image.Transpose | None, int]] = {
    (1, 0, 0, 1): (None, 0),
    (0, 1, -1, 0): (_Transpose.ROTATE_270, 90),
    (-1, 0, 0, -1): (_Transpose.ROTATE_180, 180),
    (0, -1, 1, 0): (_Transpose.ROTATE_90, 270),
    (-1, 0, 0, 1): (_Transpose.FLIP_LEFT_RIGHT, 0),
    (1, 0, 0, -1): (_Transpose.FLIP_TOP_BOTTOM, 180),
    (0, 1, 1, 0): (_Transpose.TRANSPOSE, 90),
    (0, -1, -1, 0): (_Transpose.TRANSVERSE, 270),
}


def orientation(display_matrix: bytes | None) -> tuple[Image.Transpose | None, int]:
    """How to turn a frame with this display matrix, and the clockwise turn in degrees.

    The matrix is nine int32 (FFmpeg's libavutil/display.h). Only turns by multiples of 90 degrees are applied.
    """
    if display_matrix is None or len(display_matrix) != 36:
        return None, 0
    a, b, _, c, d = struct.unpack("=9i", display_matrix)[:5]
    signs = tuple((value > 1 << 14) - (value < -(1 << 14)) for value in (a, b, c, d))
    return _ORIENTATIONS.get(signs, (None, 0))


class FrameResizer:
    """Makes RGB pictures of one size from decoded frames, one after the other.

    swscale converts with the colour matrix and range that the stream names. If the stream names none, it uses BT.601
    with limited range, whatever the size. ``ffmpeg``, OpenCV and decord do the same, and so most pictures that SAM 2
    was trained on were made this way.

    With "bicubic", swscale resizes in the same pass by its bicubic filter, as it does for decord, which is SAM 2's own
    reader of videos. With "area", frames that become much smaller are averaged as YUV first, and only the small picture
    is made RGB. That takes less than half of the time, and the pictures are at least as near to the whole frame that is
    made RGB and resized by Pillow, because swscale converts small pictures with more care.

    Args:
        image_size: Side of the pictures that come out.
        scaling: As above.
    """

    def __init__(self, image_size: int, scaling: Scaling = "bicubic") -> None:
        self._size = image_size
        self._scaling: Scaling = scaling
        # One for all frames, because making its tables takes as long as a frame.
        self._swscale, self._averaging = VideoReformatter(), VideoReformatter()

    def pixels(self, frame: av.VideoFrame, transpose: Image.Transpose | None = None) -> bytes:
        """RGB bytes of ``[image_size, image_size, 3]``, turned if asked for; transparent pixels are put on black."""
        size = self._size
        if may_be_transparent(frame):
            flat = flatten(_plane(frame.reformat(format="rgba", threads=1), "RGBA"))
            picture = flat.resize((size, size))
        else:
            if self._is_averaged(frame):
                frame = self._averaging.reformat(
                    frame, size, size, "yuv422p", interpolation=Interpolation.AREA, threads=1
                )
            small = self._swscale.reformat(frame, size, size, "rgb24", interpolation=Interpolation.BICUBIC, threads=1)
            if transpose is None and small.planes[0].line_size == 3 * size:
                return bytes(small.planes[0])
            picture = _plane(small, "RGB")
        return (picture if transpose is None else picture.transpose(transpose)).tobytes()

    def _is_averaged(self, frame: av.VideoFrame) -> bool:
        least = _AVERAGED_FROM * self._size
        return (
            self._scaling == "area"
            and frame.format.name in _AVERAGED_FORMATS
            and min(frame.width, frame.height) >= least
        )


def _plane(frame: av.VideoFrame, mode: str) -> Image.Image:
    plane = frame.planes[0]
    return Image.frombytes(mode, (frame.width, frame.height), bytes(plane), "raw", mode, plane.line_size, 1)


def shown_size(height: int, width: int, transpose: Image.Transpose | None) -> tuple[int, int]:
    """Height and width of a picture once it is turned."""
    return (width, height) if transpose in _TURNED else (height, width)


def shrink(picture: Image.Image, image_size: int) -> bytes:
    """The picture at the model's size, made as SAM 2's loader does: RGB bytes of ``[image_size, image_size, 3]``."""
    return picture.resize((image_size, image_size)).tobytes()


def check_size(height: int, width: int, limits: VideoLimits, *, what: str) -> None:
    """Compare a size with the limits.

    Raises:
        Refusal: The size is too large, or zero.
    """
    if height <= 0 or width <= 0:
        raise Refusal("DataLoss", f"{what} is {width}x{height} pixels: it is empty")
    if max(height, width) > limits.max_side:
        raise Refusal(
            "ResourceExhausted",
            f"{what} is {width}x{height} pixels; max_side is {limits.max_side}. Scale it down first",
        )
    if height * width > limits.max_frame_pixels:
        raise Refusal(
            "ResourceExhausted",
            f"{what} is {width}x{height} = {height * width} pixels; max_frame_pixels is {limits.max_frame_pixels}. "
            "Scale it down first",
        )


# From limited range (16 to 235 for luma, 16 to 240 for chroma) to full range.
_LUMA = [round(min(255.0, max(0.0, (value - 16) * 255 / 219))) for value in range(256)]
_CHROMA = [round(min(255.0, max(0.0, (value - 128) * 255 / 224 + 128))) for value in range(256)]


def from_nv12(data: bytes, height: int, width: int) -> Image.Image:
    """The RGB picture of NV12 data, BT.601 in limited range; height and width are even."""
    luma = Image.frombytes("L", (width, height), data[: width * height])
    chroma = Image.frombytes("LA", (width // 2, height // 2), data[width * height :])
    blue, red = (plane.point(_CHROMA).resize((width, height), Image.Resampling.BILINEAR) for plane in chroma.split())
    return Image.merge("YCbCr", (luma.point(_LUMA), blue, red)).convert("RGB")


def check_scans(data: bytes) -> None:
    """Refuse a JPEG with very many scans: each takes the time of decoding a picture, and has some bytes.

    Raises:
        Refusal: There are more than `MAX_SCANS`.
    """
    if data[:2] == b"\xff\xd8" and scans_of_jpeg(data, MAX_SCANS + 1) > MAX_SCANS:
        raise Refusal(
            "ResourceExhausted", f"the picture has more than {MAX_SCANS} scans; send a JPEG that is not progressive"
        )


def scans_of_jpeg(data: bytes, enough: int) -> int:
    """How many scans the first picture of a JPEG has. Counting ends at `enough`.

    Only the picture itself counts. Its headers may have previews, and phones put short films behind its end: in some
    megabytes of a film the bytes of a scan's marker come a hundred times by chance.
    """
    count, position = 0, 2
    while count < enough and (found := _NEXT_MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == _END:
            break
        count += marker == _SCAN
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2], "big")
    return count


def read_picture(message: DecodePicture, limits: VideoLimits, *, field: str) -> Image.Image:
    """The RGB picture, as shown, of an encoded picture or of raw pixels.

    Args:
        message: The picture's data and format.
        limits: What an encoded picture may cost; of a raw one they have been checked.
        field: The request's field that has the data, for errors.

    Raises:
        Refusal: The picture has no allowed format, is damaged or too large.
    """
    if message.format != "encoded":
        return _from_raw(message)
    try:
        with Image.open(io.BytesIO(message.data), formats=PICTURE_FORMATS) as picture:
            check_size(picture.height, picture.width, limits, what="the picture")
            check_scans(message.data)
            picture.load()
            return to_rgb(picture)
    except UnidentifiedImageError:
        formats = ", ".join(PICTURE_FORMATS)
        raise Refusal("InvalidArgument", f"is no picture in one of the formats {formats}", field) from None
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        # Pillow's readers raise nearly anything for damaged files: SyntaxError, struct.error, IndexError, EOFError ...
        raise Refusal("DataLoss", f"the picture is damaged: {error}") from error


def _from_raw(message: DecodePicture) -> Image.Image:
    if message.format == "nv12":
        return from_nv12(message.data, message.height, message.width)
    mode, raw = {"rgb24": ("RGB", "RGB"), "bgr24": ("RGB", "BGR"), "gray8": ("L", "L")}[message.format]
    return Image.frombytes(mode, (message.width, message.height), message.data, "raw", raw).convert("RGB")
