"""The process that decodes one video: reads requests on its standard input, and answers on its standard output.

A decoder is the part that hostile files attack. So this process can write no file, start no other process and take no
more memory than its limits say, and the gateway only ever reads pictures from it.
"""

from __future__ import annotations

import io
import os
import resource
import sys
from array import array
from pathlib import Path
from typing import Any

import PIL.Image

from masklet.errors import InvalidArgument, MaskletError
from masklet_media.picture_pages import has_pages
from masklet_studio.frames import messages
from masklet_studio.frames.clip_frames import MAX_FRAME_PIXELS, ClipFrames
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.frames.picture_series import FrameReader, PictureFile, PictureFolder

MAX_MEMORY_BYTES = 6 << 30
"""Of address space, which is more than what is used."""
_QUALITY, _QUALITY_OF_FULL = 85, 92


def main() -> None:
    """Decode the video that the first argument names, until the input ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    path = Path(sys.argv[1])
    try:
        _limit()
        reader = _open(path)
        _answer(answers, *_facts(reader.facts))
    except Exception as error:  # noqa: BLE001 - the gateway is told, whatever it is
        _answer(answers, _failure(error))
        return
    _serve(reader, requests, answers)


def _serve(reader: FrameReader, requests: io.BufferedReader, answers: io.BufferedWriter) -> None:
    while (request := messages.read(requests)) is not None:
        told = reader.facts
        try:
            picture = _encode(reader, request[0]["frame"], request[0]["width"])
        except Exception as error:  # noqa: BLE001 - the gateway is told, whatever it is
            message, picture = _failure(error), b""
        else:
            message = {"kind": "picture"}
        if reader.facts is not told:  # the frames were counted anew
            _answer(answers, *_facts(reader.facts))
        _answer(answers, message, picture)


def _limit() -> None:
    """Give up what decoding does not need."""
    for what, limit in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        _, hard = resource.getrlimit(what)
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (least, least))
    PIL.Image.MAX_IMAGE_PIXELS = MAX_FRAME_PIXELS


def _open(path: Path) -> FrameReader:
    if path.is_dir():
        return PictureFolder(path)
    with path.open("rb") as file:
        start = file.read(16)
    return PictureFile(path) if has_pages(start) else ClipFrames(path)


def _encode(reader: FrameReader, index: int, width: int) -> bytes:
    """A frame as JPEG: WebP takes ten times as long to encode, which a person sees."""
    picture = reader.picture(index)
    full = not width or width >= picture.width
    if not full:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
    data = io.BytesIO()
    if full:
        picture.save(data, "JPEG", quality=_QUALITY_OF_FULL, subsampling=0)
    else:
        picture.save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()


def _facts(facts: VideoFacts) -> tuple[dict[str, Any], bytes]:
    message = {
        "kind": "facts",
        "width": facts.width,
        "height": facts.height,
        "frame_rate": facts.frame_rate,
        "damage": facts.damage,
    }
    return message, array("d", facts.times).tobytes()


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, InvalidArgument) and error.violations:
        return {"kind": "failure", "error": error.violations[0].description}
    words = str(error) if isinstance(error, MaskletError) else f"the video cannot be read: {error or type(error)}"
    return {"kind": "failure", "error": words}


def _answer(file: io.BufferedWriter, message: dict[str, Any], payload: bytes = b"") -> None:
    file.write(messages.pack(message, payload))
    file.flush()


if __name__ == "__main__":
    main()
