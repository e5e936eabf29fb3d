"""A small player for notebooks: the video with its masks, and the table of its objects.

The player is a film inside the page itself, so it needs no server, no script and no other host, and it still plays when
the notebook is opened again somewhere else.
"""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from masklet._media.uploads import VideoSource
from masklet._protocol.results import FrameResult
from masklet.drawing import overlay
from masklet.errors import InvalidArgument
from masklet.recording import Recording

_DARK = 20
_LEAST_WIDTH = 64
_MOST_BYTES = 64 * 1024**2  # of a film inside a notebook
_OPTIONS = {"preset": "veryfast", "crf": "26", "bf": "0", "movflags": "+faststart"}


class Player:
    """A film of a recording, which notebooks show; see `show`.

    Args:
        film: An MP4.
        recording: What it shows.
        width: In pixels, as it is shown.
    """

    def __init__(self, film: bytes, recording: Recording, width: int) -> None:
        self._film, self._recording, self._width = film, recording, width

    @property
    def film(self) -> bytes:
        """The film as the bytes of an MP4 file (H.264)."""
        return self._film

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the film into a file.

        Args:
            path: The file, overwritten if it exists.

        Raises:
            OSError: The file cannot be written.
        """
        Path(path).write_bytes(self._film)

    def _repr_html_(self) -> str:
        data = base64.b64encode(self._film).decode()
        film = (
            f'<video controls loop muted playsinline width="{self._width}" src="data:video/mp4;base64,{data}"></video>'
        )
        return f"<div>{film}</div>{self._recording._repr_html_()}"

    def __repr__(self) -> str:
        return f"Player({self._recording!r}, {len(self._film):,} bytes)"


def show(
    recording: Recording,
    video: VideoSource | None = None,
    *,
    first: int = 0,
    last: int | None = None,
    width: int = 640,
) -> Player:
    """A small player for a recording, as the last line of a notebook's cell, or with ``display(masklet.show(...))``.

    Args:
        recording: The results.
        video: The video; None: the recording's `source`, or the masks alone on a dark ground if it has none.
        first: The first frame that is shown.
        last: The last frame that is shown; None: the last one of the recording.
        width: Of the film, in pixels; a smaller video keeps its own width.

    Returns:
        What the notebook shows. It can also be saved.

    Raises:
        InvalidArgument: There is no frame in the range, the film would be too large for a notebook, or the video cannot
            be read here.
        DataLoss: The video cannot be decoded, or ends before the results do.
        OSError: The video cannot be read.
    """
    if width < _LEAST_WIDTH:
        raise InvalidArgument.of("width", f"is {width}, must be at least {_LEAST_WIDTH} pixels")
    chosen = Recording(video=recording.video, source=recording.source)
    for frame_index in recording.frame_indices:
        if frame_index >= first and (last is None or frame_index <= last):
            chosen.add(recording[frame_index])
    if len(chosen) == 0:
        raise InvalidArgument.of(
            "first", f"there is no result from frame {first} to frame {last}; choose another range"
        )
    film, shown_width = _film(chosen, video, width)
    if len(film) > _MOST_BYTES:
        raise InvalidArgument.of(
            "recording",
            f"makes a film of {len(film) // 1024**2} MiB, too large for a notebook; choose a part with first= and "
            "last=, or a smaller width=",
        )
    for entry in recording.objects.values():
        chosen.name(entry.object_id, entry.name, entry.class_name)
    return Player(film, chosen, shown_width)


def _film(recording: Recording, video: VideoSource | None, width: int) -> tuple[bytes, int]:
    from PIL import Image

    from masklet._media.frames import matched, shown_frames
    from masklet.export.movie import Codec, Movie

    height, full = recording.size
    size = (min(width, full), max(2, round(height * min(width, full) / full)))
    source = video if video is not None else recording.source
    has_pictures = not (isinstance(source, str) and source == "")
    pairs = matched(recording, shown_frames(source)) if has_pictures else ((frame, None) for frame in recording)
    with tempfile.TemporaryDirectory(prefix="masklet-") as folder:
        path = Path(folder) / "film.mp4"
        with Movie(path, Codec("libx264", "yuv420p", _OPTIONS)) as movie:
            for frame, pixels in pairs:
                drawn = Image.fromarray(_drawn(frame, pixels, recording.size))
                movie.write(np.asarray(drawn.resize(size, reducing_gap=2.0)), frame.pts_seconds)
            movie.finish()
        return path.read_bytes(), size[0]


def _drawn(frame: FrameResult, pixels: npt.NDArray[np.uint8] | None, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    masks = {i: result.mask for i, result in frame.objects.items() if result.visible}
    if pixels is None:
        return overlay(np.full((*size, 3), _DARK, np.uint8), masks, alpha=0.8)
    if pixels.shape[:2] != size:
        raise InvalidArgument.of(
            "video",
            f"has {pixels.shape[1]}x{pixels.shape[0]} pixels on frame {frame.frame_index}, the results have "
            f"{size[1]}x{size[0]}; is it the one that was tracked?",
        )
    return overlay(pixels, masks, alpha=0.45)
