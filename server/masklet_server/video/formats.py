"""What may come in: the containers, codecs and picture formats that are decoded."""

from __future__ import annotations

from typing import Literal

# Names of FFmpeg's demuxers. No playlists (hls, concat, dash ...): they name further files. No image formats: Pillow's.
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

# Names of codecs, and of the decoders where FFmpeg has them from another library.
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

# Codecs whose packets may come without a container, each with the decoder that is used.
PACKET_DECODERS: dict[str, str] = {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}

# Names of Pillow's formats.
PICTURE_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

# An encoded picture (one of `PICTURE_FORMATS`), or raw pixels of 8 bits a value.
PictureFormat = Literal["encoded", "rgb24", "bgr24", "gray8", "nv12"]
