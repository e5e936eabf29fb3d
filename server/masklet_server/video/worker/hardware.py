"""Decoding by the video unit of an NVIDIA GPU (NVDEC), where the settings ask for it and it is there.

Nothing else depends on it: whatever the unit does not decode, FFmpeg's own decoders do, in the same process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import av
from av.codec.hwaccel import HWAccel

T = TypeVar("T")

_DEVICE = Path("/dev/nvidiactl")
# FFmpeg loads these by name when it first decodes. A process that has them already opens no file for that.
_LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1")
# What says that there is no such unit, or that it does not know the codec.
_MISSING = (av.FFmpegError, NotImplementedError, ValueError, RuntimeError)


def prepare() -> bool:
    """Load NVIDIA's libraries before the process gives up its rights; whether they and the device are there.

    The device itself is first used after that: its driver starts threads, and those of before would keep their rights.
    """
    if not _DEVICE.exists():
        return False
    try:
        for name in _LIBRARIES:
            ctypes.CDLL(name)
    except OSError:
        return False
    return True


def with_hardware(wanted: bool, opened: Callable[[HWAccel | None], T], *, again: Callable[[], object]) -> T:
    """Open a decoder on the GPU, or by FFmpeg's own code if the GPU does not do it.

    Args:
        wanted: Try the GPU.
        opened: Opens the decoder with this acceleration, or without any.
        again: Called before it is opened a second time.
    """
    if wanted:
        try:
            return opened(_accelerated())
        except MemoryError:
            raise
        except _MISSING:
            again()  # the same input may still be a fault of the input: then the second try says which
    return opened(None)


def _accelerated() -> HWAccel:
    # Frames come back to main memory; codecs that the unit does not know are decoded by FFmpeg.
    return HWAccel(device_type="cuda", allow_software_fallback=True)
