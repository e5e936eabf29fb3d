"""A video of the masks, with the times of the frames.

``.mkv``: FFV1, which loses nothing; a pixel is the id of its object, 0 for the background. Where masks overlap, the
higher id wins. ``.mp4`` and ``.mov``: H.264, white where any object is, black elsewhere: what editors call a luma
matte.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from masklet._media.atomic_file import replacing
from masklet.errors import InvalidArgument
from masklet.export.formats import Settings
from masklet.export.movie import Codec, Movie
from masklet.recording import Recording

_IDS = Codec("ffv1", "gray", {"level": "3"}, even=False)
_WHITE = Codec("libx264", "yuv420p", {"preset": "veryfast", "crf": "12", "bf": "0"})
_MAX_ID = 255


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write a video of the masks; it knows no options.

    Raises:
        InvalidArgument: An object's id is above 255.
    """
    del settings
    has_ids = path.suffix.lower() == ".mkv"
    if has_ids and max(recording.objects, default=0) > _MAX_ID:
        raise InvalidArgument.of("recording", f"object {max(recording.objects)} is above {_MAX_ID}; write .mp4 instead")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, Movie(partial, _IDS if has_ids else _WHITE) as movie:
        for frame in recording:
            pixels = np.zeros(recording.size, np.uint8)
            for object_id, result in frame.objects.items():
                if result.visible:
                    pixels[result.mask] = object_id if has_ids else 255
            movie.write(pixels, frame.pts_seconds)
        movie.finish()
