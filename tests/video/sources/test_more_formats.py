"""Streams without a container, and what cameras and editing programs write."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clips import decode_clip, make_clip, reference

HEVC = {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}}
FORMATS: dict[str, dict[str, Any]] = {
    "h264": {"container": "h264"},
    "hevc": {"container": "hevc", **HEVC},
    "ivf": {"container": "ivf", "codec": "libvpx"},
    "ivf with av1": {"container": "ivf", "codec": "libsvtav1", "size": (64, 64)},
    "obu": {"container": "obu", "codec": "libsvtav1", "size": (64, 64)},
    "y4m": {"container": "yuv4mpegpipe", "codec": "wrapped_avframe"},
    "mxf": {"container": "mxf", "codec": "mpeg2video"},
    "wmv": {"container": "asf", "codec": "wmv2"},
    "wmv 1": {"container": "asf", "codec": "wmv1"},
    "divx 3": {"container": "avi", "codec": "msmpeg4"},
    "h263": {"container": "avi", "codec": "h263", "size": (176, 144)},
    "dnxhr": {
        "container": "mov",
        "codec": "dnxhd",
        "pixel_format": "yuv422p",
        "size": (256, 128),
        "codec_options": {"profile": "dnxhr_lb"},
    },
    "png": {"container": "mov", "codec": "png", "pixel_format": "rgb24"},
    "mjpeg": {"container": "mov", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "raw mjpeg": {"container": "mjpeg", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "raw": {"container": "avi", "codec": "rawvideo"},
    "v210": {"container": "mov", "codec": "v210", "pixel_format": "yuv422p10le"},
    "huffyuv": {"container": "avi", "codec": "huffyuv", "pixel_format": "yuv422p"},
    "ffvhuff": {"container": "avi", "codec": "ffvhuff"},
    "utvideo": {"container": "avi", "codec": "utvideo", "pixel_format": "yuv422p"},
    "magicyuv": {"container": "avi", "codec": "magicyuv", "pixel_format": "gbrp"},
    "animation": {"container": "mov", "codec": "qtrle", "pixel_format": "rgb24"},
    "cineform": {"container": "mov", "codec": "cfhd", "pixel_format": "yuv422p10le", "size": (64, 48)},
}


@pytest.mark.parametrize("kind", FORMATS)
async def test_every_frame_comes_at_its_time(kind: str) -> None:
    data = make_clip(**FORMATS[kind])
    assert len(reference(data)) == 10, "the test's own clip"
    outcome = await decode_clip(data, chunk=700 if len(data) < 300_000 else 2**20)
    assert outcome.error is None
    first = outcome.frames[0].pts_nanoseconds
    times = [round((frame.pts_nanoseconds - first) / 1e9, 3) for frame in outcome.frames]
    assert times == [round(index * 0.04, 3) for index in range(10)]
