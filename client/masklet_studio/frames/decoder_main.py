"""The process that decodes one video: reads requests on its standard input, and answers on its standard output.

A decoder is the part that hostile files attack. So this process confines itself before it reads anything, as the
server's decoding processes do and by the same code (`masklet_media.confinement`). The video is a descriptor that was
opened for it; the pictures of a folder come with the requests.
"""

from __future__ import annotations

import io
import os
import sys
from array import array
from typing import Any

import PIL.Image

from masklet._media.pictures import learn_heif
from masklet.errors import DataLoss, InvalidArgument, MaskletError
from masklet_media import picture_readers  # noqa: F401 - see there
from masklet_media.confinement import confine
from masklet_media.picture_pages import has_pages
from masklet_studio.frames import messages
from masklet_studio.frames.clip_frames import MAX_FRAME_PIXELS, ClipFrames
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.frames.picture_series import FrameReader, PictureFile, PictureFolder

MAX_MEMORY_BYTES = 6 << 30
"""Of address space, which is more than what is used."""
_QUALITY, _QUALITY_OF_FULL = 85, 92


def main() -> None:
    """Decode the video whose descriptor is the first argument, until the input ends; -1: pictures that are sent."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    learn_heif()
    PIL.Image.MAX_IMAGE_PIXELS = MAX_FRAME_PIXELS
    missing = confine(memory_bytes=MAX_MEMORY_BYTES, cpu_seconds=0, nice=0)  # nice: a person waits for the frame
    _answer(answers, {"kind": "confined", "missing": missing})
    try:
        reader = _open(int(sys.argv[1]), requests)
    except Exception as error:  # noqa: BLE001 - the gateway is told, whatever it is
        _answer(answers, _failure(error))
    else:
        _answer(answers, *_facts(reader.facts))
        _serve(reader, requests, answers)
    answers.close()
    os._exit(0)  # without Python's clean-up, for which the rights are gone


def _serve(reader: FrameReader, requests: io.BufferedReader, answers: io.BufferedWriter) -> None:
    while (request := messages.read(requests)) is not None:
        told = reader.facts
        asked, data = request
        try:
            picture = _encode(reader.picture(asked["frame"], data), asked["width"])
        except Exception as error:  # noqa: BLE001 - the gateway is told, whatever it is
            message, picture = _failure(error), b""
        else:
            message = {"kind": "picture"}
        if reader.facts is not told:  # the frames were counted anew
            _answer(answers, *_facts(reader.facts))
        _answer(answers, message, picture)


def _open(descriptor: int, requests: io.BufferedReader) -> FrameReader:
    if descriptor < 0:
        request = messages.read(requests)
        if request is None:
            raise DataLoss("the studio has ended")
        return PictureFolder(request[0]["pictures"], request[1])
    file = os.fdopen(descriptor, "rb")
    start = file.read(16)
    file.seek(0)
    return PictureFile(file) if has_pages(start) else ClipFrames(file)


def _encode(picture: PIL.Image.Image, width: int) -> bytes:
    """A frame as JPEG: WebP takes ten times as long to encode, which a person sees."""
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
