"""Makes small videos of any container, codec, pixel format, rotation and timing."""

from __future__ import annotations

import asyncio
import gc
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation
from PIL import Image

from masklet.errors import MaskletError
from masklet_server.video.frame import Frame
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.sources.sandboxed import SandboxedSource

BUNNY = Path(__file__).parents[2] / "examples" / "bunny.mp4"


def picture(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """``uint8[height, width, 3]``: smooth colours, a red top-left quarter, and a bar that tells frames apart."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack(
        [columns * 200 // width, rows * 200 // height, np.full((height, width), (index * 9) % 200)], axis=-1
    )
    pixels[: height // 2, : width // 2] = (220, 20, 20)
    left = index * 4 % max(1, width - 8)
    pixels[-height // 4 :, left : left + 8] = (250, 250, 250)
    return pixels.astype(np.uint8)


def make_clip(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    frames: int = 10,
    size: tuple[int, int] = (64, 48),
    rate: int = 25,
    pixel_format: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: float | None = None,
    hflip: bool = False,
    audio: bool = False,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    pictures: Iterable[npt.NDArray[np.uint8]] | None = None,
    gop: int | None = None,
    bit_rate: int | None = None,
) -> bytes:
    """Encode a clip.

    Args:
        container: FFmpeg's name of the muxer.
        codec: FFmpeg's name of the encoder.
        frames: How many, where `pictures` does not say.
        size: Width and height.
        rate: Frames a second.
        pixel_format: What is encoded.
        pts: Time stamps in units of `time_base`; 0, 1, 2 ... if not given.
        time_base: Of `pts`; one frame if not given.
        rotation: Counter-clockwise degrees for the display matrix.
        hflip: The display matrix also mirrors.
        audio: Add a track with a tone.
        options: For the muxer.
        codec_options: For the encoder.
        pictures: ``uint8[H, W, 3]`` each.
        bit_rate: Bits a second.
        gop: Frames from key frame to key frame.
    """
    width, height = size
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format=container, options=options or {}) as output,
    ):
        stream: Any = output.add_stream(codec, rate=rate, options=codec_options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        if gop is not None:
            stream.codec_context.gop_size = gop
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound: Any = output.add_stream("aac", rate=16000, layout="mono") if audio else None
        output.start_encoding()
        if pictures is None:
            pictures = (picture(index, width, height) for index in range(frames))
        for index, pixels in enumerate(pictures):
            frame = as_frame(pixels, pixel_format)
            frame.pts = index if pts is None else pts[index]
            frame.time_base = time_base or Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            for tone in tones(frames / rate):
                output.mux(sound.encode(tone))
            output.mux(sound.encode(None))
        output.close()
        return Path(file.name).read_bytes()


def as_frame(pixels: npt.NDArray[np.uint8], pixel_format: str) -> av.VideoFrame:
    """One frame in the format to be encoded; ``uint8[H, W, 4]`` has transparency."""
    return av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24").reformat(
        format=pixel_format
    )


def tones(seconds: float) -> Iterable[av.AudioFrame]:
    """A tone of this length."""
    for start in range(0, int(seconds * 16000), 1024):
        wave = (np.sin(np.arange(start, start + 1024) / 10) * 8000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        yield frame


def make_sound(container: str = "mp4") -> bytes:
    """A file that has sound and no video."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        sound: Any = output.add_stream("aac", rate=16000, layout="mono")
        for tone in tones(0.5):
            output.mux(sound.encode(tone))
        output.mux(sound.encode(None))
    return file.getvalue()


def reference(data: bytes) -> list[av.VideoFrame]:
    """All frames of the first video stream as PyAV decodes them in this process."""
    with av.open(io.BytesIO(data), "r") as container:
        return list(container.decode(video=0))


def image_of(frame: av.VideoFrame) -> Image.Image:
    """The frame in RGB as swscale makes it by default."""
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def resized(frame: av.VideoFrame, image_size: int) -> Image.Image:
    """The frame at the model's size, as swscale makes it."""
    bicubic = Interpolation.BICUBIC
    return Image.fromarray(frame.to_ndarray(format="rgb24", width=image_size, height=image_size, interpolation=bicubic))


def difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Mean absolute difference of two pictures' values."""
    return float(np.abs(one.astype(int) - other).mean())


def shrunk(image: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """What SAM 2's loader makes of a picture."""
    return np.asarray(image.convert("RGB").resize((image_size, image_size)))


@dataclass
class Outcome:
    """The result of decoding a clip: its frames, and the error that came after them or instead of them."""

    frames: list[Frame] = field(default_factory=list)
    info: VideoInfo | None = None
    error: MaskletError | None = None


async def take_all(source: SandboxedSource) -> Outcome:
    """Take every frame of a source that was fed."""
    outcome = Outcome()
    try:
        outcome.info = await source.info()
        while (frame := await source.next_frame()) is not None:
            outcome.frames.append(frame)
    except MaskletError as error:
        outcome.error = error
    return outcome


async def decode_clip(
    data: bytes, *, image_size: int = 32, limits: VideoLimits | None = None, chunk: int = 256 * 1024
) -> Outcome:
    """Decode a clip in a real decoding process."""
    async with ClipSource(image_size, limits or VideoLimits()) as source:
        for start in range(0, len(data), chunk):
            await source.feed(data[start : start + chunk])
        await source.end()
        return await asyncio.wait_for(take_all(source), 60)


def frames_alive() -> int:
    """Decoded frames that have not been freed."""
    # By type, for isinstance() asks each object for its class, and torch has some that warn then.
    return sum(type(one) is av.VideoFrame for one in gc.get_objects())
