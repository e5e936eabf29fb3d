"""A stream of a benchmark: a clip with nano, shrunk so that a frame takes a hundredth of a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import masklet
from tests.faults.history import History
from tests.support import clips, synthetic

HEIGHT, WIDTH = 120, 160


@dataclass(frozen=True)
class Work:
    """What a stream tracks.

    Attributes:
        clip: The video.
        frames: How many frames it has.
        model: The model's name.
        deterministic: The same masks to the bit, whatever else the server does.
    """

    clip: Path
    frames: int
    model: str
    deterministic: bool = True


def make_clip(folder: Path, frames: int) -> Path:
    """A file with two objects that move."""
    path = folder / "clip.mkv"
    pictures = list(synthetic.clip(frames, HEIGHT, WIDTH))
    path.write_bytes(clips.make_clip("matroska", "libx264", size=(WIDTH, HEIGHT), pictures=pictures))
    return path


def prompts() -> list[masklet.Prompt]:
    """Clicks on both objects."""
    return [
        masklet.Prompt(object_id=blob + 1, point_coords=[synthetic.BLOBS[blob].center(0, HEIGHT, WIDTH)])
        for blob in range(2)
    ]


def track(
    address: str,
    work: Work,
    history: History,
    on_resume: Callable[[masklet.ResumeEvent], None] | None = None,
    token: str | None = None,
) -> None:
    """Track the clip to its end; what the client sees goes into the history, an error too."""
    given = prompts()
    history.given, history.frame_count = len(given), work.frames
    try:
        with masklet.Client(address, connect_timeout=0, token=token) as client:
            for frame in client.track(
                work.clip,
                given,
                model=work.model,
                deterministic=work.deterministic,
                on_prompt=history.add,
                on_resume=on_resume or (lambda event: None),
            ):
                history.add(frame)
        history.end = "done"
    except masklet.MaskletError as error:
        history.end = f"{type(error).__name__}: {error}"
