"""MOTChallenge (https://motchallenge.net/instructions/): a line for each object on each frame.

    seqinfo.ini
    gt/gt.txt                  FRAME,ID,LEFT,TOP,WIDTH,HEIGHT,1,CLASS,VISIBILITY
    img1/000001.jpg

A path that ends in .txt gets a tracker's output instead: FRAME,ID,LEFT,TOP,WIDTH,HEIGHT,CONFIDENCE,-1,-1,-1. Frames,
ids and pixels count from 1, as in MATLAB. A class that MOTChallenge does not know is a pedestrian (1), the only class
that its evaluation counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from masklet._protocol.results import ObjectResult
from masklet.export.files import text_file, video_name, write_pictures
from masklet.export.formats import Settings
from masklet.recording import Recording

CLASSES = {
    "pedestrian": 1, "person": 1, "person on vehicle": 2, "car": 3, "bicycle": 4, "motorbike": 5, "motorcycle": 5,
    "non motorized vehicle": 6, "static person": 7, "distractor": 8, "occluder": 9, "occluder on the ground": 10,
    "occluder full": 11, "reflection": 12,
}  # fmt: skip
"""MOTChallenge's numbers of classes, by name."""
PEDESTRIAN = 1


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write ground truth into a folder, or a tracker's output into one file."""
    if path.suffix.lower() == ".txt":
        with text_file(path) as file:
            for frame_index, object_id, result in boxes(recording):
                file.write(f"{_place(frame_index, object_id, result)},{result.predicted_iou:.4f},-1,-1,-1\n")
        return
    with text_file(path / "gt" / "gt.txt") as file:
        for frame_index, object_id, result in boxes(recording):
            number = CLASSES.get(recording.objects[object_id].category.lower(), PEDESTRIAN)
            file.write(f"{_place(frame_index, object_id, result)},1,{number},1.0\n")
    write_sequence(recording, path, settings)


def boxes(recording: Recording) -> Iterator[tuple[int, int, ObjectResult]]:
    """Every visible object on every frame: the frame's number, the object's id, the result."""
    for frame in recording:
        for object_id, result in frame.objects.items():
            if result.visible and result.box is not None:
                yield frame.frame_index, object_id, result


def write_sequence(recording: Recording, path: Path, settings: Settings) -> None:
    """Write seqinfo.ini, and the frames if they are asked for."""
    height, width = recording.size
    with text_file(path / "seqinfo.ini") as file:
        file.write(
            f"[Sequence]\nname={video_name(recording)}\nimDir=img1\nframeRate={recording.frame_rate:g}\n"
            f"seqLength={recording.frame_count}\nimWidth={width}\nimHeight={height}\nimExt=.jpg\n"
        )
    write_pictures(recording, settings, path / "img1", lambda index: f"{index + 1:06d}.jpg")


def _place(frame_index: int, object_id: int, result: ObjectResult) -> str:
    x0, y0, x1, y1 = result.box or (0.0, 0.0, 0.0, 0.0)
    return f"{frame_index + 1},{object_id},{x0 + 1:g},{y0 + 1:g},{x1 - x0:g},{y1 - y0:g}"
