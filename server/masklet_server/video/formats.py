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
    "mxf",
    "asf",
    "gif",
    "apng",
    # Streams without a container.
    "h264",
    "hevc",
    "obu",
    "ivf",
    "mpegvideo",
    "mjpeg",
    "yuv4mpegpipe",
    "dv",
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
    # What cameras and editing programs write.
    "dnxhd",
    "cfhd",
    "dvvideo",
    "png",
    "qtrle",
    "rawvideo",
    "v210",
    "huffyuv",
    "ffvhuff",
    "utvideo",
    "magicyuv",
    "jpeg2000",
    # Windows Media, and phones of its time.
    "wmv1",
    "wmv2",
    "wmv3",
    "vc1",
    "msmpeg4v2",
    "msmpeg4v3",
    "h263",
)
FOREIGN_DECODERS: tuple[str, ...] = ("libdav1d", "msmpeg4")


def convert_to(allowed: tuple[str, ...]) -> str:
    """What to do about a video that is not allowed, for error messages."""
    return (
        f"convert it to one of {', '.join(allowed)}, for example by: "
        "ffmpeg -i FILE -c:v libx264 -crf 18 -f matroska - | masklet track - --point X,Y"
    )


# Codecs whose packets may come without a container, and the decoder of each.
PACKET_DECODERS: dict[str, str] = {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}

# Names of Pillow's formats.
PICTURE_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")

# An encoded picture (one of `PICTURE_FORMATS`), or raw pixels of 8 bits a value.
PictureFormat = Literal["encoded", "rgb24", "bgr24", "gray8", "nv12"]

# How frames of video are made as small as a model wants them; `worker.pixels.FrameResizer` says what each means.
Scaling = Literal["bicubic", "area"]

# What decoding may leave out where only the latest frames are wanted, as FFmpeg's options. Its codecs of its own obey
# them (H.264, HEVC, VP8, VP9); dav1d does not.
LATEST_DECODING: dict[str, dict[str, str]] = {
    "full": {},
    "reference-frames": {"skip_frame": "noref"},
    "no-loop-filter": {"skip_loop_filter": "all"},
    "least": {"skip_frame": "noref", "skip_loop_filter": "all"},
}
