"""The objects without their background, for editors: with the video's times and its sound.

``.mov``: ProRes 4444 with alpha. ``.webm``: VP9 with alpha. A folder: a PNG with alpha a frame. Alpha is straight
(not premultiplied), and colours far from the objects are black, so that nothing of the background is left in the file.
With a background that is not transparent: ProRes 422 HQ, VP9 or, for ``.mp4``, H.264 (which knows no alpha).

Edges are the masks' own, softened by a Gauss filter of `feather` pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from masklet._media.atomic_file import replacing
from masklet._protocol.results import FrameResult
from masklet.export.files import FRAME_NAME, with_pictures
from masklet.export.formats import Settings
from masklet.export.movie import Codec, Movie
from masklet.recording import Recording

Pixels = npt.NDArray[np.uint8]

_MOV = ("pcm_s16le", "pcm_s24le", "aac", "mp3", "alac", "ac3")
_WEBM = ("libopus", "opus", "vorbis")
_MP4 = ("aac", "mp3", "ac3", "opus", "flac")
_VP9 = {"crf": "15", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"}
_X264 = {"preset": "veryfast", "crf": "15", "bf": "0"}
_TRANSPARENT = {
    # FFmpeg's encoder takes alpha of a row's last block from memory that nobody has set, where the block is not whole.
    ".mov": Codec(
        "prores_ks", "yuva444p10le", {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"}, _MOV, width_step=16
    ),
    ".webm": Codec("libvpx-vp9", "yuva420p", _VP9, _WEBM),
}
_OPAQUE = {
    ".mov": Codec("prores_ks", "yuv422p10le", {"profile": "hq", "vendor": "apl0"}, _MOV),
    ".webm": Codec("libvpx-vp9", "yuv420p", _VP9, _WEBM),
    ".mp4": Codec("libx264", "yuv420p", _X264, _MP4),
}
_COLOURS = {"green": "#00ff00", "black": "#000000"}
_KEPT_AROUND = 9  # pixels round the objects whose colours stay: encoders mix the colours of neighbours


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write a movie, or PNGs into a folder.

    Raises:
        InvalidArgument: The video cannot be read here.
        DataLoss: The video cannot be decoded, or ends before the results do.
        OSError: A file cannot be read or written.
    """
    suffix = path.suffix.lower()
    is_transparent = settings.background == "transparent"
    codecs = _TRANSPARENT if is_transparent else _OPAQUE
    frames = with_pictures(recording, settings)
    if suffix not in codecs:
        from PIL import Image

        path.mkdir(parents=True, exist_ok=True)
        for frame, pixels in frames:
            picture = Image.fromarray(_drawn(pixels, frame, settings))
            picture.save(path / f"{FRAME_NAME.format(frame.frame_index)}.png", format="PNG")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, Movie(partial, codecs[suffix], settings.video_of(recording)) as movie:
        for frame, pixels in frames:
            movie.write(_drawn(pixels, frame, settings), frame.pts_seconds)
        movie.finish()


def _drawn(pixels: Pixels, frame: FrameResult, settings: Settings) -> Pixels:
    """The picture with its background replaced: ``uint8[H, W, 4]`` where it is transparent, else ``uint8[H, W, 3]``."""
    mask = np.zeros(pixels.shape[:2], np.bool_)
    for result in frame.objects.values():
        if result.visible:
            mask |= result.mask
    alpha = _softened(mask, settings.feather)
    if settings.background == "transparent":
        kept = pixels * _around(alpha > 0)[..., None]
        return np.dstack([kept, alpha])
    share = alpha[..., None].astype(np.float32) / 255
    mixed = pixels * share + _background(pixels, settings.background) * (1 - share)
    return np.asarray((mixed + 0.5).astype(np.uint8))


def _softened(mask: npt.NDArray[np.bool_], feather: float) -> Pixels:
    alpha = mask.astype(np.uint8) * np.uint8(255)
    if feather == 0:
        return alpha
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(feather)))


def _around(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    from PIL import Image, ImageFilter

    grown = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * _KEPT_AROUND + 1))
    return np.asarray(grown).astype(np.bool_)


def _background(pixels: Pixels, name: str) -> npt.NDArray[np.float32]:
    if name == "blur":
        from PIL import Image, ImageFilter

        radius = max(4.0, min(pixels.shape[:2]) / 40)
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)), np.float32)
    colour = _COLOURS.get(name, name)
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
