"""The containers, codecs and picture formats that are decoded; everything else is refused."""

from __future__ import annotations

from typing import Literal

# Names of FFmpeg's demuxers. There are no playlists (hls, concat, dash ...) among them, because playlists name further
# files, and no image formats, because Pillow reads those.
CONTAINERS: tuple[str, ...] = (
    "mov",
    "mp4",
    "matroska",
    "webm",
    "mpegts",
    "mpeg",
    "avi",
    "flv",
    "ogg",
    "gif",
    "apng",
)

# Names of codecs, and of those decoders that FFmpeg takes from another library.
CODECS: tuple[str, ...] = (
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "av1",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "mjpeg",
    "theora",
    "prores",
    "ffv1",
    "gif",
    "apng",
)
FOREIGN_DECODERS: tuple[str, ...] = ("libdav1d",)

# Codecs whose packets may come without a container, and the decoder of each.
PACKET_DECODERS: dict[str, str] = {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}

# Names of Pillow's formats.
PICTURE_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

# An encoded picture (one of `PICTURE_FORMATS`), or raw pixels of 8 bits a value.
PictureFormat = Literal["encoded", "rgb24", "bgr24", "gray8", "nv12"]
